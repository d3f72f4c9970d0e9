import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

KINDS = [
    ("GLOBAL", "The federation's"),
    ("FINE_TUNED", "Fine-tuned at the hospital"),
    ("LOCAL", "Trained at the hospital alone"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("envoys", "0003_account_manager"),
        ("training", "0005_several_versions_of_an_envoy_per_round"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.CreateModel(
            name="ModelChoice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(choices=KINDS, max_length=16)),
                ("reason", models.TextField()),
                ("figures", models.JSONField(default=dict)),
                ("made_at", models.DateTimeField(auto_now_add=True)),
                ("overruled_to", models.CharField(blank=True, choices=KINDS, max_length=16)),
                ("overrule_reason", models.TextField(blank=True)),
                ("overruled_at", models.DateTimeField(null=True)),
                (
                    "envoy",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="choices",
                        to="envoys.envoy",
                    ),
                ),
                (
                    "overruled_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="choices",
                        to="training.trainingrun",
                    ),
                ),
            ],
            options={
                "ordering": ["-made_at", "-pk"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=["run", "envoy"], name="one_choice_per_run_and_envoy"
                    )
                ],
            },
        ),
    ]
