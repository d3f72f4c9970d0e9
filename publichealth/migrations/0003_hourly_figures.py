from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("publichealth", "0002_drift"),
    ]

    operations = [
        migrations.CreateModel(
            name="HourlyFigures",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("starts_at", models.DateTimeField(unique=True)),
                ("cities", models.JSONField(default=dict)),
                ("counted_at", models.DateTimeField()),
            ],
            options={
                "verbose_name_plural": "hourly figures",
                "ordering": ["starts_at"],
            },
        ),
    ]
