from federated.errors import FederatedError


class StorageError(FederatedError):
    """An object that could not be stored, found, read or trusted."""


class LostObjectError(StorageError):
    """An object that is missing or not what was stored: asking again does not bring it back."""
