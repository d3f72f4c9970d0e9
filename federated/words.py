"""What people call who takes part, and whose rows they have: by the dataset of a study."""

from collections.abc import Iterable
from dataclasses import dataclass

from federated.targets import DIAGNOSES, READINGS


@dataclass(frozen=True)
class Words:
    """Attributes:
    place: who takes part; `keeper` is who answers for it.
    people: those whose rows are there; `person` is one of them.
    """

    place: str
    places: str
    person: str
    people: str
    rows: str
    keeper: str

    def instead(self, text: str) -> str:
        """A sentence of the program on a hospital and its patients, said of this kind.

        Reports keep their sentences, and those made long ago read as today's do.
        """
        for of_hospitals, own in (
            (OF_HOSPITALS.place, self.place),
            (OF_HOSPITALS.people, self.people),
            (OF_HOSPITALS.person, self.person),
            (OF_HOSPITALS.rows, self.rows),
            (OF_HOSPITALS.keeper, self.keeper),
        ):
            text = text.replace(of_hospitals, own)
        return text


OF_HOSPITALS = Words("hospital", "hospitals", "patient", "patients", "admissions", "doctor")
OF_NODES = Words("node", "nodes", "person", "people", "readings", "keeper")
OF_BOTH = Words("hospital or node", "hospitals and nodes", "person", "people", "rows", "keeper")


def words_of(datasets: Iterable[str]) -> Words:
    """Of a study's dataset, or of all that a page speaks of; of none, hospitals' words."""
    named = set(datasets)
    if READINGS not in named:
        return OF_HOSPITALS
    return OF_BOTH if DIAGNOSES in named else OF_NODES
