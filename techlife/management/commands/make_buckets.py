from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from envoys.errors import StorageError
from envoys.storage import make_bucket


class Command(BaseCommand):
    help = "Make the director's and the envoys' default bucket where they are not there yet."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DIRECTOR_S3_BUCKET_NAME:
            self.stdout.write("Objects lie in folders: there are no buckets to make.")
            return
        names = {settings.DIRECTOR_S3_BUCKET_NAME, settings.ENVOY_S3_BUCKET_NAME} - {""}
        for name in sorted(names):
            try:
                was_made = make_bucket(name)
            except StorageError as error:
                raise CommandError(str(error)) from error
            self.stdout.write(f"{name}: {'made' if was_made else 'is there'}")
