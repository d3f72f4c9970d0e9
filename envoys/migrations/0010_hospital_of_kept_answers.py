import django.db.models.deletion
from django.db import migrations, models
from django.db.models import OuterRef, Subquery


def note_hospital(apps, schema_editor):
    """What is kept was answered within the last day: to people of the hospital where they are."""
    users = apps.get_model("envoys", "User").objects.filter(pk=OuterRef("user"))
    calls = apps.get_model("envoys", "IdempotentCall").objects
    calls.update(envoy=Subquery(users.values("envoy")))


class Migration(migrations.Migration):
    dependencies = [("envoys", "0009_forget_refresh_tokens")]

    operations = [
        migrations.AddField(
            model_name="idempotentcall",
            name="envoy",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="envoys.envoy",
            ),
        ),
        migrations.RunPython(note_hospital, migrations.RunPython.noop),
    ]
