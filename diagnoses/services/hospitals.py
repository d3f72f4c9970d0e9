"""Who keeps patients."""

from envoys.errors import NotNowError
from envoys.models import Envoy
from federated.targets import DIAGNOSES


def check_takes_patients(envoy: Envoy) -> None:
    """Before a patient, an admission or a file of them is written.

    Raises:
        NotNowError: the envoy is deleted, or is a node of readings: no study looks for patients
            there.
    """
    standing = Envoy.objects.standing().filter(pk=envoy.pk).first()
    if standing is None:
        raise NotNowError(f"{envoy} has been deleted: it takes no more patients")
    if standing.dataset != DIAGNOSES:
        raise NotNowError(f"{envoy} is a node of readings: patients belong to a hospital")
