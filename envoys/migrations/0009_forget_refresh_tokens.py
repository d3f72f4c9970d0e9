from django.db import migrations


def blank_tokens(apps, schema_editor):
    """A row's number is enough to refuse a token; the token itself would let its reader in."""
    apps.get_model("token_blacklist", "OutstandingToken").objects.exclude(token="").update(token="")


class Migration(migrations.Migration):
    dependencies = [
        ("envoys", "0008_login_epoch_and_two_step_login"),
        ("token_blacklist", "0013_alter_blacklistedtoken_options_and_more"),
    ]

    operations = [migrations.RunPython(blank_tokens, migrations.RunPython.noop)]
