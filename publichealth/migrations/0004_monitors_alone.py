from django.db import migrations


def forget_hours(apps, schema_editor):
    """People's readings were counted in them; they are counted again from those of monitors."""
    apps.get_model("publichealth", "HourlyFigures").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("publichealth", "0003_hourly_figures"),
    ]

    operations = [
        migrations.RunPython(forget_hours, migrations.RunPython.noop, elidable=True),
    ]
