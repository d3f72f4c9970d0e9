from envoys.errors import NotNowError


class TrainingError(NotNowError):
    """What the director refuses to do; the message says why and what to do next."""


class NotApprovedError(TrainingError):
    """The hospital has not approved the plan."""


class NotAllowedError(TrainingError):
    """The person's role does not include this."""


class TooFewPatientsError(TrainingError):
    """The hospital has too few patients with an outcome."""


class NotReadyError(TrainingError):
    """Something has to happen first."""


class ConflictError(TrainingError):
    """Another answer has been given already."""


class RefusedUpdateError(TrainingError):
    """An update that is recorded and not counted."""


class NotItsDataError(TrainingError):
    """An update that cannot come from the data it was asked to be trained on."""
