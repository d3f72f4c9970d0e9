"""Hospitals of synthetic patients, for a demonstration and for tests without a real person in them.

A patient has lasting conditions, which come together through three hidden factors; a stay has a
reason, some passing conditions, and codes that were recorded more or less completely. Its outcome
follows from the recorded codes, age and earlier care, with noise. The codes, how often each is
recorded and what it adds to the risk stand in `synthetic_codes.csv`: real ICD-10-CM codes, whose
frequencies are set by hand to resemble those of a general hospital, not estimated from patients.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from federated.cohorts import DIAGNOSES_HEADER
from federated.seeds import rng_for
from federated.targets import HIGH, LONG_STAY_DAYS, LOW, MEDIUM

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

OUTCOME_COLUMNS = (  # what such a hospital knows of cohorts.OUTCOMES_HEADER
    "subject_id",
    "hadm_id",
    "age",
    "gender",
    "los_days",
    "died_in_hospital",
    "readmit_30d",
    "discharged_home",
    "risk_tier",
    "number_inpatient",
    "number_emergency",
    "number_outpatient",
    "number_diagnoses",
)

# How the score becomes an outcome: set so that pooled logistic regression reaches a macro AUROC
# of about 0.80 and the rule of thumb one of about 0.60.
NOISE = 0.85
RISK_PER_DECADE = 0.18
RISK_OF_REASON = 1.2  # what a code adds once more where it is the reason for the stay
RISK_OF_EARLIER_CARE = 0.45
MEDIUM_FROM = 1.0
HIGH_FROM = 2.6

NUM_FACTORS = 3  # metabolic, frail, distressed


@dataclass(frozen=True)
class SyntheticHospital:
    """A hospital's size and case mix. Shares are of its patients; the rest are other adults."""

    name: str
    num_patients: int
    mean_age: float  # of the other adults, in years
    newborn_share: float = 0.0
    child_share: float = 0.0
    mother_share: float = 0.0
    case_mix: Mapping[str, float] = field(default_factory=dict)  # condition -> added log odds
    base_risk: float = 0.0
    recorded_share: float = 0.65  # of the codes that apply, how many are recorded on average
    missing_share: float = 0.04  # of the counts of earlier care


HOSPITALS = (
    SyntheticHospital(
        "aspenfell-general",
        num_patients=4000,
        mean_age=62,
        newborn_share=0.05,
        child_share=0.06,
        mother_share=0.05,
    ),
    SyntheticHospital(
        "birkemoor-women-and-children",
        num_patients=2450,
        mean_age=46,
        newborn_share=0.27,
        child_share=0.18,
        mother_share=0.30,
        case_mix={"coronary": -1.0, "heart_failure": -1.0, "digestive": 0.4},
        recorded_share=0.7,
    ),
    SyntheticHospital(
        "cedarfjord-heart",
        num_patients=1850,
        mean_age=67,
        case_mix={"coronary": 1.5, "heart_failure": 1.3, "arrhythmia": 1.2, "cancer": -1.0},
        base_risk=-0.2,
        recorded_share=0.75,
    ),
    SyntheticHospital(
        "lindelow-cancer",
        num_patients=970,
        mean_age=64,
        case_mix={"cancer": 3.2, "infection": 0.3, "joints": -1.0, "injury": -1.0},
        base_risk=0.3,
        recorded_share=0.6,
    ),
    SyntheticHospital(
        "winterholm-cottage",
        num_patients=275,
        mean_age=75,
        case_mix={"injury": 0.6, "dementia": 0.5, "frailty": 0.4, "cancer": -0.6},
        base_risk=-0.3,
        recorded_share=0.5,
        missing_share=0.25,
    ),
)


@dataclass(frozen=True)
class Condition:
    """How common a condition is among adults, in log odds, and how often it is a stay's reason."""

    name: str
    at_60: float  # a woman of 60 in a general hospital
    per_decade: float = 0.0
    if_male: float = 0.0
    factors: tuple[float, float, float] = (0.0, 0.0, 0.0)  # metabolic, frail, distressed
    is_lasting: bool = True
    reason_weight: float = 1.0


CONDITIONS = (
    Condition("vascular_risk", 0.3, 0.45, 0.1, (0.9, 0.2, 0.0), reason_weight=0.3),
    Condition("diabetes", -1.3, 0.15, 0.2, (1.2, 0.2, 0.0), reason_weight=0.6),
    Condition("coronary", -1.8, 0.50, 0.7, (0.8, 0.1, 0.0)),
    Condition("heart_failure", -2.2, 0.60, 0.1, (0.8, 0.6, 0.0), reason_weight=1.2),
    Condition("arrhythmia", -2.0, 0.65, 0.3, (0.4, 0.3, 0.0)),
    Condition("kidney", -1.9, 0.40, 0.2, (0.9, 0.7, 0.0), reason_weight=0.8),
    Condition("lung", -1.5, 0.20, 0.1, (0.1, 0.5, 0.5)),
    Condition("cancer", -2.4, 0.35, 0.1, (0.0, 0.4, 0.0), reason_weight=1.5),
    Condition("substance", -2.6, -0.25, 0.8, (0.0, 0.1, 1.2)),
    Condition("mental", -1.3, -0.10, -0.5, (0.0, 0.1, 1.2), reason_weight=0.6),
    Condition("joints", -1.3, 0.25, -0.3, (0.2, 0.2, 0.2)),
    Condition("injury", -2.2, 0.10, 0.1, (0.0, 0.5, 0.5), False, 1.6),
    Condition("infection", -1.7, 0.15, 0.0, (0.2, 0.8, 0.3), False, 1.4),
    Condition("digestive", -0.8, 0.10, -0.1, (0.2, 0.1, 0.2), False, 0.7),
    Condition("nervous", -2.3, 0.35, 0.0, (0.3, 0.4, 0.1), reason_weight=1.2),
    Condition("dementia", -3.8, 0.95, -0.2, (0.1, 0.8, 0.1), reason_weight=0.6),
    Condition("frailty", -2.3, 0.50, -0.1, (0.0, 1.2, 0.3), reason_weight=0.4),
    Condition("general", np.inf, reason_weight=0.4),  # every adult: symptoms, histories
)
# What brings these patients to a hospital is always the birth, or the child's own illness.
LIFE_STAGES = ("adult", "newborn", "child", "maternity")
ADULT, NEWBORN, CHILD, MATERNITY = range(len(LIFE_STAGES))
CONDITION_NAMES = (*(condition.name for condition in CONDITIONS), *LIFE_STAGES[1:])


@dataclass(frozen=True)
class CodeTable:
    """The codes of `synthetic_codes.csv` as arrays, one entry a row."""

    icd_codes: tuple[str, ...]
    condition: Ints  # index into CONDITION_NAMES
    as_reason: Floats  # relative weight as the reason for a stay
    as_other: Floats  # probability beside another reason, where the condition is present
    risk: Floats  # added to the score
    is_for: Flags  # (2, codes): may a woman, a man have it
    alternatives: tuple[Ints, ...]  # rows of which a stay has at most one, the first wins


@cache
def code_table() -> CodeTable:
    """Read the codes that synthetic patients can have, from the file beside this module."""
    with Path(__file__).with_name("synthetic_codes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["alternatives"] or row["icd_code"], []).append(index)
    return CodeTable(
        icd_codes=tuple(row["icd_code"] for row in rows),
        condition=np.array([CONDITION_NAMES.index(row["condition"]) for row in rows]),
        as_reason=np.array([float(row["as_reason"]) for row in rows]),
        as_other=np.array([float(row["as_other"]) for row in rows]),
        risk=np.array([float(row["risk"]) for row in rows]),
        is_for=np.array([[row["sex"] != other for row in rows] for other in ("M", "F")]),
        alternatives=tuple(np.array(group) for group in groups.values() if len(group) > 1),
    )


@dataclass(frozen=True)
class Patients:
    """One entry a patient of one hospital."""

    stage: Ints  # index into LIFE_STAGES
    age: Ints  # years, at the start of the year that is simulated
    is_male: Ints
    factors: Floats  # (patients, NUM_FACTORS)


@dataclass(frozen=True)
class Stays:
    """One entry an admission of one hospital, in order of time."""

    patient: Ints  # index into the patients
    age: Ints
    is_last: Flags
    earlier_care: Ints  # (stays, 3): inpatient, emergency, outpatient


@dataclass(frozen=True)
class Outcomes:
    """How each admission ended."""

    tier: Ints
    died: Flags
    readmitted: Flags
    discharged_home: Flags
    los_days: Floats


def _draw_patients(
    hospital: SyntheticHospital, num_patients: int, rng: np.random.Generator
) -> Patients:
    shares = [hospital.newborn_share, hospital.child_share, hospital.mother_share]
    stage = rng.choice(len(LIFE_STAGES), size=num_patients, p=[1 - sum(shares), *shares])
    ages = [
        np.clip(rng.normal(hospital.mean_age, 15, num_patients), 18, 97),
        np.zeros(num_patients),
        rng.uniform(1, 17, num_patients),
        np.clip(rng.normal(30, 5.5, num_patients), 17, 46),
    ]
    is_male = rng.integers(0, 2, num_patients)
    return Patients(
        stage=stage,
        age=np.choose(stage, ages).astype(np.int64),
        is_male=np.where(stage == MATERNITY, 0, is_male),
        factors=rng.normal(size=(num_patients, NUM_FACTORS)),
    )


def _draw_stays(patients: Patients, rng: np.random.Generator) -> Stays:
    """A year of admissions: one a patient, and more for frail adults and some children."""
    metabolic, frail, distressed = patients.factors.T
    expected = np.exp(-1.3 + 0.2 * metabolic + 0.5 * frail + 0.3 * distressed)
    more_often = np.choose(patients.stage, [1.0, 0.0, 0.3, 0.0])
    num_stays = 1 + np.minimum(rng.poisson(expected * more_often), 6)
    patient = np.repeat(np.arange(len(num_stays)), num_stays)
    time = rng.random(len(patient))  # of the year
    in_order = np.argsort(time)
    patient, time = patient[in_order], time[in_order]

    by_patient = np.argsort(patient, kind="stable")
    first = np.cumsum(num_stays) - num_stays
    num_earlier = np.empty_like(patient)
    num_earlier[by_patient] = np.arange(len(patient)) - first[patient[by_patient]]

    visits = rng.poisson(
        (expected * more_often)[patient, None] * np.array([0.8, 1.0, 1.6]) + [0.0, 0.05, 0.1]
    )
    visits[:, 0] += num_earlier  # all of one year, so each is among those of the year before
    visits[patients.stage[patient] == NEWBORN] = 0
    return Stays(
        patient=patient,
        age=patients.age[patient] + (time > 0.5) * (patients.stage[patient] != NEWBORN),
        is_last=num_earlier == num_stays[patient] - 1,
        earlier_care=visits,
    )


def _sigmoid(log_odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-log_odds))


def _case_mix(hospital: SyntheticHospital) -> Floats:
    return np.array([hospital.case_mix.get(name, 0.0) for name in CONDITION_NAMES])


def _draw_conditions(
    hospital: SyntheticHospital, patients: Patients, stays: Stays, rng: np.random.Generator
) -> Flags:
    """(stays, conditions): which are present; the lasting ones are the same at every stay."""
    decades = (stays.age[:, None] - 60) / 10
    is_male = patients.is_male[stays.patient, None]
    pull = np.array([condition.factors for condition in CONDITIONS]).T
    log_odds = (
        np.array([condition.at_60 for condition in CONDITIONS])
        + decades * np.array([condition.per_decade for condition in CONDITIONS])
        + is_male * np.array([condition.if_male for condition in CONDITIONS])
        + (patients.factors @ pull)[stays.patient]
        + _case_mix(hospital)[: len(CONDITIONS)]
    )
    lasting = np.array([condition.is_lasting for condition in CONDITIONS])
    draws = np.where(
        lasting,
        rng.random((len(patients.age), len(CONDITIONS)))[stays.patient],
        rng.random((len(stays.age), len(CONDITIONS))),
    )
    stage = patients.stage[stays.patient, None]
    is_grown_up = (stage == ADULT) | (stage == MATERNITY)
    own_of_stage = stage == np.arange(1, len(LIFE_STAGES))
    return np.hstack([(draws < _sigmoid(log_odds)) & is_grown_up, own_of_stage])


def _draw_reasons(
    hospital: SyntheticHospital, present: Flags, allowed: Flags, rng: np.random.Generator
) -> Flags:
    """(stays, codes): the one code that is the reason for each stay."""
    table = code_table()
    always = 1e6  # a birth, or a child's illness: whatever else the patient has
    weight = np.array([c.reason_weight for c in CONDITIONS] + [always] * (len(LIFE_STAGES) - 1))
    weight *= np.exp(_case_mix(hospital) / 3)  # what a hospital is known for, it is sought for
    weights = np.where(allowed, table.as_reason * weight[table.condition], 0.0)
    reached = weights.cumsum(axis=1)
    chosen = (reached > rng.random(len(weights))[:, None] * reached[:, -1:]).argmax(axis=1)
    is_reason: Flags = np.arange(len(table.icd_codes)) == chosen[:, None]
    return is_reason


def _draw_codes(
    hospital: SyntheticHospital, patients: Patients, stays: Stays, rng: np.random.Generator
) -> tuple[Flags, Flags]:
    """(stays, codes) twice: the recorded codes, and the reason for the stay among them."""
    table = code_table()
    present = _draw_conditions(hospital, patients, stays, rng)
    allowed = present[:, table.condition] & table.is_for[patients.is_male[stays.patient]]
    is_reason = _draw_reasons(hospital, present, allowed, rng)

    # A patient who has a lasting complication has it at every stay; whether it is recorded varies.
    applies = rng.random((len(patients.age), len(table.icd_codes))) < table.as_other
    thoroughness = rng.beta(
        2 * hospital.recorded_share, 2 * (1 - hospital.recorded_share), len(stays.age)
    )
    is_noted = rng.random(allowed.shape) < thoroughness[:, None]
    recorded = (allowed & applies[stays.patient] & is_noted) | is_reason
    for rows in table.alternatives:
        first = recorded[:, rows] & (recorded[:, rows].cumsum(axis=1) == 1)
        reason = is_reason[:, rows]
        recorded[:, rows] = np.where(reason.any(axis=1, keepdims=True), reason, first)
    return recorded, is_reason


def _draw_outcomes(
    hospital: SyntheticHospital,
    stays: Stays,
    recorded: Flags,
    is_reason: Flags,
    rng: np.random.Generator,
) -> Outcomes:
    """The tier follows from the score; what happened is drawn so that it agrees with the tier."""
    risk = code_table().risk
    decades = (stays.age - 60) / 10
    score = (
        recorded @ risk
        + RISK_OF_REASON * (is_reason @ risk)
        + RISK_PER_DECADE * decades
        + RISK_OF_EARLIER_CARE * np.log1p(stays.earlier_care[:, :2].sum(axis=1))
        + hospital.base_risk
        + NOISE * rng.logistic(size=len(decades))
    )
    tier = np.select([score >= HIGH_FROM, score >= MEDIUM_FROM], [HIGH, MEDIUM], LOW)

    is_high = tier == HIGH
    chance_of_death = _sigmoid(-2.2 + 0.7 * (score - HIGH_FROM) + 0.3 * decades)
    died = is_high & stays.is_last & (rng.random(len(score)) < chance_of_death)
    # A medium stay was long, or ended elsewhere than home, or both; a high one may have.
    draw = rng.random(len(score))
    is_long = np.select([tier == MEDIUM, is_high], [draw < 0.6, draw < 0.4], False)
    left_for_care = np.select([tier == MEDIUM, is_high], [draw >= 0.4, draw >= 0.65], False)
    short_stay = LONG_STAY_DAYS * rng.beta(1.6, 3.0, len(score))
    long_stay = LONG_STAY_DAYS + rng.exponential(5.0, len(score))
    los_days = np.floor(10 * np.where(is_long, long_stay, short_stay)) / 10
    return Outcomes(
        tier=tier,
        died=died,
        readmitted=is_high & ~died,  # to this hospital or another
        discharged_home=~(died | left_for_care),
        los_days=np.maximum(los_days, 0.1),
    )


def _diagnosis_rows(
    subject_ids: Ints, hadm_ids: Ints, recorded: Flags, is_reason: Flags, rng: np.random.Generator
) -> Iterator[tuple[object, ...]]:
    """Rows of diagnoses_icd.csv: the reason first, the others as somebody happened to type them."""
    icd_codes = code_table().icd_codes
    stay, code = np.nonzero(recorded)
    order = np.lexsort((rng.random(len(stay)), ~is_reason[stay, code], stay))
    stay, code = stay[order], code[order]
    num_codes = recorded.sum(axis=1)
    seq_num = 1 + np.arange(len(stay)) - np.repeat(num_codes.cumsum() - num_codes, num_codes)
    for s, c, number in zip(stay.tolist(), code.tolist(), seq_num.tolist(), strict=True):
        yield subject_ids[s], hadm_ids[s], number, icd_codes[c], 10


def _outcome_rows(
    hospital: SyntheticHospital,
    subject_ids: Ints,
    hadm_ids: Ints,
    patients: Patients,
    stays: Stays,
    outcomes: Outcomes,
    num_codes: Ints,
    rng: np.random.Generator,
) -> Iterator[tuple[object, ...]]:
    """Rows of outcomes.csv; some counts of earlier care are missing, as in real records."""
    is_missing = rng.random(stays.earlier_care.shape) < hospital.missing_share
    care = np.where(is_missing, "", stays.earlier_care.astype(str))
    yield from zip(
        subject_ids,
        hadm_ids,
        stays.age,
        np.array(["F", "M"])[patients.is_male[stays.patient]],
        (f"{days:.1f}" for days in outcomes.los_days),
        outcomes.died.astype(int),
        outcomes.readmitted.astype(int),
        outcomes.discharged_home.astype(int),
        outcomes.tier,
        *care.T,
        num_codes,
        strict=True,
    )


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_hospital(
    folder: Path, hospital: SyntheticHospital, num_patients: int, position: int, seed: int
) -> None:
    rng = rng_for("synthetic-hospital", seed, hospital.name)
    patients = _draw_patients(hospital, num_patients, rng)
    stays = _draw_stays(patients, rng)
    recorded, is_reason = _draw_codes(hospital, patients, stays, rng)
    outcomes = _draw_outcomes(hospital, stays, recorded, is_reason, rng)

    # Numbers say nothing but the order of time; no two hospitals share one.
    ids = 1_000_000 * (10 + position) + rng.choice(1_000_000, num_patients, replace=False)
    subject_ids = ids[stays.patient]
    hadm_ids = 1_000_000 * (20 + position) + np.sort(
        rng.choice(1_000_000, len(stays.patient), replace=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(
        folder / "diagnoses_icd.csv",
        DIAGNOSES_HEADER,
        _diagnosis_rows(subject_ids, hadm_ids, recorded, is_reason, rng),
    )
    _write_csv(
        folder / "outcomes.csv",
        OUTCOME_COLUMNS,
        _outcome_rows(
            hospital,
            subject_ids,
            hadm_ids,
            patients,
            stays,
            outcomes,
            recorded.sum(axis=1),
            rng,
        ),
    )


def write_synthetic_cohort(data_dir: Path, *, seed: int = 0, scale: float = 1.0) -> list[str]:
    """Write the cohort folder of five hospitals, about 12,000 admissions; return their names.

    `risk_tier` is High for who died in hospital or was readmitted within 30 days, Medium for who
    was discharged elsewhere than home or stayed 7 days or more, Low for the rest. The same seed
    and scale write the same bytes; files of the same name are replaced.

    Args:
        scale: of the number of patients at every hospital; each keeps one at least.
    """
    for position, hospital in enumerate(HOSPITALS):
        folder = data_dir / "envoys" / hospital.name
        num_patients = max(1, round(scale * hospital.num_patients))
        _write_hospital(folder, hospital, num_patients, position, seed)
    return [hospital.name for hospital in HOSPITALS]
