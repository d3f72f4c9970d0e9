from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler


class LimitedUploadHandler(FileUploadHandler):
    """Lets the rest of a file that is too large go by, so that it does not fill the disk.

    What is kept of it is larger than is allowed, by a chunk at the most: whoever reads it refuses
    it in words, and meanwhile the browser gets to send its form to the end.
    """

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        return raw_data if start <= settings.UPLOAD_MAX_BYTES else None

    def file_complete(self, file_size: int) -> UploadedFile | None:
        return None  # the handlers after this one keep the file
