import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('envoys', '0006_audit_seals_and_service_tokens'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditevent',
            name='user',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['happened_at', 'id'], name='events_by_time'),
        ),
        migrations.AddIndex(
            model_name='auditevent',
            index=models.Index(fields=['user', 'happened_at', 'id'], name='events_of_a_person'),
        ),
        migrations.AddIndex(
            model_name='auditseal',
            index=models.Index(condition=models.Q(('stored_at', None)), fields=['number'], name='seals_not_stored'),
        ),
    ]
