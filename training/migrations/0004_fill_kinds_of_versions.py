from django.db import migrations


def fill_kind(apps, schema_editor):
    """So far a hospital's own model was what its last training made of the global one."""
    ModelVersion = apps.get_model("training", "ModelVersion")
    ModelVersion.objects.filter(envoy__isnull=False, kind="GLOBAL").update(kind="FINE_TUNED")


class Migration(migrations.Migration):
    dependencies = [("training", "0003_kinds_of_versions")]
    operations = [migrations.RunPython(fill_kind, migrations.RunPython.noop)]
