from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0002_refused_packages")]
    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="kind",
            field=models.CharField(
                choices=[
                    ("GLOBAL", "The federation's"),
                    ("FINE_TUNED", "Fine-tuned at the hospital"),
                    ("LOCAL", "Trained at the hospital alone"),
                ],
                default="GLOBAL",
                max_length=16,
            ),
        ),
    ]
