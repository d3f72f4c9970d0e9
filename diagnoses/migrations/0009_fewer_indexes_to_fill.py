"""Indexes that others begin with, and two of columns that are mostly empty: an import fills each."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('diagnoses', '0008_exports_that_held_erased_patients'),
        ('envoys', '0010_hospital_of_kept_answers'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name='admission',
            name='envoy',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='admissions', to='envoys.envoy'),
        ),
        migrations.AlterField(
            model_name='diagnosis',
            name='recorded_by',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='diagnosis',
            name='struck_out_by',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='patient',
            name='envoy',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='patients', to='envoys.envoy'),
        ),
        migrations.AlterField(
            model_name='patient',
            name='name_index',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddIndex(
            model_name='diagnosis',
            index=models.Index(condition=models.Q(('recorded_by__isnull', False)), fields=['recorded_by'], name='diagnoses_recorded_by'),
        ),
        migrations.AddIndex(
            model_name='diagnosis',
            index=models.Index(condition=models.Q(('struck_out_by__isnull', False)), fields=['struck_out_by'], name='diagnoses_struck_out_by'),
        ),
    ]
