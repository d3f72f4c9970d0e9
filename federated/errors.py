from collections.abc import Sequence


class FederatedError(ValueError):
    """Whatever this package refuses; the message names the value at fault, never a patient's."""


class InvalidCodeError(FederatedError):
    """What is no ICD code."""


class InvalidValueError(FederatedError):
    """Fields of a cohort's row that cannot be read: a problem each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UnusedInputsError(FederatedError):
    """A reading of nothing that any node's training rows knew."""


class InvalidRowError(InvalidValueError):
    """A row with such fields, and whose it is: empty where that cannot be read either."""

    def __init__(self, *problems: str, subject_id: str, hadm_id: str) -> None:
        super().__init__(*problems)
        self.subject_id = subject_id
        self.hadm_id = hadm_id


class CohortError(FederatedError):
    """What is wrong with a cohort folder: a problem a line, each naming file, line and value."""

    def __init__(self, problems: Sequence[str], *, num_problems: int | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)
        self.num_problems = num_problems or len(self.problems)  # those that are not told, too


class EmptyRoundError(FederatedError):
    """Nobody sent an example: there is nothing to average, and zero would look like convergence."""


class TooFewUpdatesError(FederatedError):
    """Fewer updates than a strategy needs to tolerate as many bad ones as it promises."""


class OneClassError(FederatedError):
    """All outcomes are the same: a model of them would know nothing else."""


class ShapeMismatchError(FederatedError):
    """Parameters of another model."""


class NotFiniteError(FederatedError):
    """NaN or infinity where a number belongs."""


class UnreadableParamsError(FederatedError):
    """Bytes that are no parameter file."""


class SchemaMismatchError(FederatedError):
    """Another vocabulary, or other inputs, than the study's."""


class UnreadableDatasetError(FederatedError):
    """Saved arrays that are missing or damaged."""


class InvalidPlanError(FederatedError):
    """A plan that cannot be carried out."""


class UnknownTargetError(FederatedError):
    """No such target."""


class UnknownNetworkError(FederatedError):
    """No such network."""


class UnknownStrategyError(FederatedError):
    """No such strategy."""


class UnknownAttackError(FederatedError):
    """No such attack."""


class UnknownDatasetError(FederatedError):
    """No such dataset."""
