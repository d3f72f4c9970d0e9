from django.db import migrations
from django.db.models import OuterRef, Subquery


def fill_envoy(apps, schema_editor):
    Prediction = apps.get_model("inference", "Prediction")
    Admission = apps.get_model("diagnoses", "Admission")
    envoy = Admission.objects.filter(pk=OuterRef("admission_id")).values("envoy_id")
    Prediction.objects.filter(envoy__isnull=True).update(envoy_id=Subquery(envoy))


class Migration(migrations.Migration):
    dependencies = [("inference", "0002_erasures_and_hospital_of_predictions")]
    operations = [migrations.RunPython(fill_envoy, migrations.RunPython.noop)]
