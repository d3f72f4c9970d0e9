from envoys.errors import NotNowError
from federated.errors import FederatedError


class ImportRefusedError(NotNowError):
    """A cohort that cannot be imported now, whatever is in its files."""


class UploadRefusedError(FederatedError):
    """A file that is not even looked into: empty, damaged or too large."""
