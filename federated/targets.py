"""What a study predicts: of an admission what happened (or what its doctor entered), of a reading
whether it means danger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from federated.cohorts import AdmissionRecord
from federated.errors import UnknownTargetError

if TYPE_CHECKING:
    from federated.readings import ReadingRecord

DIAGNOSES, READINGS = "diagnoses", "readings"  # the datasets, see `federated.datasets`

RISK_TIERS = ("Low", "Medium", "High")
LOW, MEDIUM, HIGH = range(3)
LONG_STAY_DAYS = 7.0

# Codes that say "dead or dying" rather than why: an outcome, not an input (cardiac arrest,
# palliative care, do-not-resuscitate, unknown cause of death, brain death).
DEATH_CATEGORIES = frozenset({"I46", "R99"})
DEATH_CODES_ICD10 = ("Z515", "Z66", "G9382")
DEATH_CODES_ICD9 = ("4275", "V667", "V4986", "7989", "34882")


@dataclass(frozen=True)
class Target:
    """One outcome: its classes in order, and a record's class, or None where unknown.

    Attributes:
        label_of: given a record of the dataset, an `AdmissionRecord` or a `ReadingRecord`.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    label_of: Callable[[Any], int | None]
    definition: str
    dataset: str = DIAGNOSES
    excluded_inputs: frozenset[str] = frozenset()
    drops_death_codes: bool = False


def risk_tier(record: AdmissionRecord) -> int | None:
    """The tier as given; without one, from what happened (see the definition below).

    An admission that may still turn out worse has no tier: one that is open, or whose
    readmission is not known yet.
    """
    if record.risk_tier is not None:
        return record.risk_tier
    if record.died_in_hospital or record.readmit_30d or record.died_30d_after_discharge:
        return HIGH
    if record.readmit_30d is None:
        return None
    if record.discharged_home is False:
        return MEDIUM
    if record.los_days is not None and record.los_days >= LONG_STAY_DAYS:
        return MEDIUM
    if record.discharged_home is None and record.los_days is None:
        return None
    return LOW


def readmitted_30d(record: AdmissionRecord) -> int | None:
    if record.died_in_hospital or record.readmit_30d is None:
        return None  # who died cannot come back
    return int(record.readmit_30d)


def died_in_hospital(record: AdmissionRecord) -> int | None:
    return None if record.died_in_hospital is None else int(record.died_in_hospital)


def clinician_risk_level(record: AdmissionRecord) -> int | None:
    return record.clinician_risk_level


def health_risk(record: "ReadingRecord") -> int | None:
    return record.outcome


def health_tier(record: "ReadingRecord") -> int | None:
    return record.tier


def num_diagnoses(record: AdmissionRecord) -> int:
    """As given by the source, whose file may hold fewer rows than it counted; else counted."""
    if record.number_diagnoses is not None:
        return record.number_diagnoses
    return len(record.diagnoses)


def rule_of_thumb_band(record: AdmissionRecord) -> int:
    """Low for 0 or 1 diagnoses, Medium for 2 to 4, High for 5 and more."""
    count = num_diagnoses(record)
    return LOW if count <= 1 else MEDIUM if count <= 4 else HIGH


_TARGETS = (
    Target(
        "risk_tier",
        "Risk tier",
        RISK_TIERS,
        risk_tier,
        "As given by the source. Where it gives none: High = died in hospital, or readmitted or"
        " died within 30 days; Medium = discharged elsewhere than home, or stayed 7 days or more;"
        " Low = the rest.",
    ),
    Target(
        "clinician_risk_level",
        "Clinician's risk level",
        RISK_TIERS,
        clinician_risk_level,
        "What the doctor entered for the admission.",
    ),
    Target(
        "died_in_hospital",
        "Death in hospital",
        ("survived", "died"),
        died_in_hospital,
        "Died before discharge. Codes that define the outcome are no input.",
        drops_death_codes=True,
    ),
    Target(
        "readmitted_30d",
        "Readmission within 30 days",
        ("not readmitted", "readmitted"),
        readmitted_30d,
        "Readmitted within 30 days of discharge; those who died are left out.",
    ),
    Target(
        "diagnosis_count",
        "Rule of thumb",
        RISK_TIERS,
        rule_of_thumb_band,
        "Low for 0 or 1 diagnoses, Medium for 2 to 4, High for 5 and more.",
        excluded_inputs=frozenset({"diagnosis_count"}),
    ),
    Target(
        "health_risk",
        "Health risk",
        ("low risk", "high risk"),
        health_risk,
        "High risk as the source of the readings defines it.",
        dataset=READINGS,
    ),
    Target(
        "health_tier",
        "Health tier",
        RISK_TIERS,
        health_tier,
        "As given by the source; where people rate their own health: excellent or very good = Low,"
        " good = Medium, fair or poor = High.",
        dataset=READINGS,
    ),
)


def targets(dataset: str | None = None) -> tuple[Target, ...]:
    """All of them, or those of a dataset."""
    return tuple(target for target in _TARGETS if dataset in (None, target.dataset))


def target_named(name: str) -> Target:
    """Raises UnknownTargetError, which says what there is."""
    for target in _TARGETS:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in _TARGETS)
    raise UnknownTargetError(f"no target is called {name!r}; there are {known}")
