from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest

from envoys.access import may_use

# Where files are taken, and by which names, each once: so much and no more is kept of a request.
ROUTES = ("diagnoses:import-create", "api:import-list")
NAMES = frozenset({"diagnoses", "outcomes"})


class LimitedUploadHandler(FileUploadHandler):
    """Lets go by what nobody will read, so that it does not fill the disk.

    That is every file sent to where none are taken, or by who may not send any; a file by another
    name, or by the same once more; and the rest of one that is too large. What is kept of the last
    is larger than is allowed, by a chunk at the most: whoever reads it refuses it in words, and
    meanwhile the browser gets to send its form to the end.
    """

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self.names: set[str] = set()  # of the files that were begun
        self.is_kept = False

    def new_file(self, field_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, *args, **kwargs)
        if not self.takes_files():
            raise SkipFile  # closes what has come before, so it is no way to leave out one of several
        self.is_kept = field_name in NAMES - self.names
        self.names.add(field_name)

    def takes_files(self) -> bool:
        """Of a page the session is known here, of a call the token: both are looked at first."""
        assert self.request is not None
        match = self.request.resolver_match
        if match is None or match.view_name not in ROUTES:
            return False
        return may_use(self.request.user, match.view_name, "POST")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        return raw_data if self.is_kept and start <= settings.UPLOAD_MAX_BYTES else None

    def file_complete(self, file_size: int) -> UploadedFile | None:
        return None  # the handlers after this one keep the file
