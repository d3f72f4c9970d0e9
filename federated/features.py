"""An admission as a model's input: sparse indices and a few numbers.

Sparse inputs are the presence of a 3-character ICD-10 category, the primary one apart, its
chapter, the code's version, sex, and which numbers are missing. Every hospital derives them from
the public code list, so an index means the same everywhere; the schema's hash proves it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np

from federated import icd
from federated.cohorts import AdmissionRecord, CodedDiagnosis
from federated.targets import (
    DEATH_CATEGORIES,
    DEATH_CODES_ICD9,
    DEATH_CODES_ICD10,
    Target,
    num_diagnoses,
    target_named,
)

TRAIN, VALIDATION, TEST = range(3)

# Counts enter as log(1 + count): the step from none to one says more than that from 20 to 21.
NUMERIC_INPUTS = (
    "age",
    "diagnosis_count",
    "earlier_admissions",
    "number_inpatient",
    "number_emergency",
    "number_outpatient",
)


def split_of(subject_id: str) -> int:
    """TRAIN, VALIDATION or TEST (70 / 15 / 15), the same wherever the patient is seen."""
    digest = hashlib.sha256(b"split-v1" + subject_id.encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return TRAIN if share < 0.70 else VALIDATION if share < 0.85 else TEST


@dataclass(frozen=True)
class FeatureSchema:
    """Which inputs a study's model has, in which order; `schemas.feature_schema` makes it.

    Attributes:
        sparse_inputs: the name of each sparse index.
        vocabulary_sha256: of what gives the inputs their meaning: a code list, a table of units.
    """

    target: str
    numeric_inputs: tuple[str, ...]
    sparse_inputs: tuple[str, ...] = field(repr=False)
    vocabulary_sha256: str

    @cached_property
    def sparse_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.sparse_inputs)}

    @cached_property
    def sha256(self) -> str:
        """Identifies inputs, their order and the vocabulary behind them."""
        text = json.dumps(
            [self.target, self.numeric_inputs, self.sparse_inputs, self.vocabulary_sha256]
        )
        return hashlib.sha256(text.encode()).hexdigest()


@cache
def admission_schema(target_name: str) -> FeatureSchema:
    """The inputs of a target of admissions. Raises UnknownTargetError."""
    target = target_named(target_name)
    numeric = tuple(name for name in NUMERIC_INPUTS if name not in target.excluded_inputs)
    categories = icd.categories()
    return FeatureSchema(
        target=target.name,
        numeric_inputs=numeric,
        sparse_inputs=(
            *(f"code {category}" for category in categories),
            *(f"primary code {category}" for category in categories),
            *(f"chapter {chapter}" for chapter in icd.chapters()),
            "ICD-9",
            "ICD-10",
            "female",
            "male",
            *(f"{name} unknown" for name in numeric),
        ),
        vocabulary_sha256=icd.vocabulary_sha256(),
    )


def defines_death(diagnosis: CodedDiagnosis, category: str | None) -> bool:
    """Whether a diagnosis, of this ICD-10 category, says "dead or dying" rather than why."""
    codes = DEATH_CODES_ICD9 if diagnosis.icd_version == 9 else DEATH_CODES_ICD10
    return category in DEATH_CATEGORIES or diagnosis.icd_code.startswith(codes)


def sparse_inputs_of(record: AdmissionRecord, schema: FeatureSchema, target: Target) -> list[int]:
    """The sorted indices of an admission's sparse inputs, without those of missing numbers."""
    index = schema.sparse_index
    inputs: set[int] = set()
    first = min((d.seq_num for d in record.diagnoses), default=0)
    for diagnosis in record.diagnoses:
        inputs.add(index[f"ICD-{diagnosis.icd_version}"])
        category = icd.icd10_category(diagnosis.icd_code, diagnosis.icd_version)
        if category is None:
            continue  # a code that no list knows says nothing a model could have learned
        if target.drops_death_codes and defines_death(diagnosis, category):
            continue
        inputs.add(index[f"code {category}"])
        inputs.add(index[f"chapter {icd.chapter_of(category)}"])
        if diagnosis.seq_num == first:
            inputs.add(index[f"primary code {category}"])
    if record.sex:
        inputs.add(index["female" if record.sex == "F" else "male"])
    return sorted(inputs)


def numeric_inputs_of(
    record: AdmissionRecord, earlier_admissions: int, schema: FeatureSchema
) -> list[float]:
    """An admission's numbers in the schema's order; NaN where not known."""
    values = {
        "age": record.age,
        "diagnosis_count": num_diagnoses(record),
        "earlier_admissions": earlier_admissions,
        "number_inpatient": record.number_inpatient,
        "number_emergency": record.number_emergency,
        "number_outpatient": record.number_outpatient,
    }
    numbers = []
    for name in schema.numeric_inputs:
        value = values[name]
        if value is None:
            numbers.append(np.nan)
        else:
            numbers.append(float(value) if name == "age" else float(np.log1p(value)))
    return numbers


@dataclass(frozen=True)
class EncodedExample:
    """An admission, or a reading, as a model's input."""

    sparse: list[int]  # sorted indices
    numeric: list[float]  # NaN where not known


def encode(
    records: Iterable[AdmissionRecord], schema: FeatureSchema, *, keeps_death_codes: bool = False
) -> Iterator[tuple[AdmissionRecord, EncodedExample]]:
    """Encode admissions, sorted so that a patient's stand together in order of time.

    What happened later never becomes an input: only admissions before this one are counted.

    Args:
        keeps_death_codes: even for a target that drops them, to show what they would be worth.
    """
    target = target_named(schema.target)
    if keeps_death_codes:
        target = replace(target, drops_death_codes=False)
    subject_id, earlier = None, 0
    for record in records:
        earlier = earlier + 1 if record.subject_id == subject_id else 0
        subject_id = record.subject_id
        numeric = numeric_inputs_of(record, earlier, schema)
        sparse = sparse_inputs_of(record, schema, target)
        sparse += [
            schema.sparse_index[f"{name} unknown"]
            for name, value in zip(schema.numeric_inputs, numeric, strict=True)
            if np.isnan(value)
        ]
        yield record, EncodedExample(sparse, numeric)
