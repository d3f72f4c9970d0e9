import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("envoys", "0002_idempotent_calls_and_worker_signs"),
        ("inference", "0004_hospital_of_predictions_required"),
    ]

    operations = [
        migrations.AlterField(
            model_name="erasure",
            name="envoy",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="erasures",
                to="envoys.envoy",
            ),
        ),
        migrations.AddField(
            model_name="erasure",
            name="envoy_name",
            field=models.CharField(default="", max_length=200),
            preserve_default=False,
        ),
    ]
