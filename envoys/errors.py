from federated.errors import FederatedError


class StorageError(FederatedError):
    """An object that could not be stored, found, read or trusted."""


class LostObjectError(StorageError):
    """An object that is missing or not what was stored: asking again does not bring it back."""


class NotNowError(FederatedError):
    """The rows are not in a state in which this can be done; the message says what to do first."""


class AccountRefusedError(FederatedError):
    """What is wrong with an account or a password: field -> texts."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = problems


class LoginRefusedError(FederatedError):
    """A wrong name, password, code or token, or an account that is not active."""


class CodeNeededError(LoginRefusedError):
    """The password was right, and the code of the second step is missing."""
