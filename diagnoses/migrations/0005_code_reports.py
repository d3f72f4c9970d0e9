import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("diagnoses", "0004_patients_by_name"),
        ("envoys", "0002_idempotent_calls_and_worker_signs"),
    ]

    operations = [
        migrations.CreateModel(
            name="CodeReport",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("num_codes", models.PositiveIntegerField()),
                ("kinds", models.JSONField(default=list)),
                ("made_at", models.DateTimeField()),
                (
                    "envoy",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="code_report",
                        to="envoys.envoy",
                    ),
                ),
            ],
        ),
    ]
