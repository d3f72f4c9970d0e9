from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('envoys', '0003_account_manager'),
    ]

    operations = [
        migrations.AddField(
            model_name='idempotentcall',
            name='location',
            field=models.CharField(blank=True, max_length=300),
        ),
    ]
