from federated.errors import FederatedError


class StorageError(FederatedError):
    """An object that could not be stored, found, read or trusted."""


class LostObjectError(StorageError):
    """An object that is missing or not what was stored: asking again does not bring it back."""


class NotNowError(FederatedError):
    """The rows are not in a state in which this can be done; the message says what to do first."""
