from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("training", "0004_fill_kinds_of_versions")]
    operations = [
        migrations.RemoveConstraint(model_name="modelversion", name="one_envoy_version_per_number"),
        migrations.RemoveConstraint(model_name="modelversion", name="one_envoy_version_per_round"),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.UniqueConstraint(
                fields=["study", "envoy", "kind", "number"],
                condition=Q(envoy__isnull=False),
                name="one_envoy_version_per_number",
            ),
        ),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.UniqueConstraint(
                fields=["training_round", "envoy", "kind"],
                condition=Q(envoy__isnull=False),
                name="one_envoy_version_per_round",
            ),
        ),
        migrations.AddConstraint(
            model_name="modelversion",
            constraint=models.CheckConstraint(
                condition=Q(envoy__isnull=True, kind="GLOBAL")
                | Q(envoy__isnull=False) & ~Q(kind="GLOBAL"),
                name="global_version_of_no_envoy",
            ),
        ),
    ]
