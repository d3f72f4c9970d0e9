from federated.errors import FederatedError


class ImportRefusedError(FederatedError):
    """A cohort that cannot be imported now, whatever is in its files."""
