import hashlib
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federated.cohorts import AdmissionRecord, CodedDiagnosis
from federated.errors import UnknownTargetError
from federated.features import TEST, TRAIN, VALIDATION, encode, split_of
from federated.schemas import feature_schema
from tests.federated.builders import make_record

KNOWN: dict[str, Any] = {
    "age": 70.0,
    "number_inpatient": 0,
    "number_emergency": 1,
    "number_outpatient": 3,
}


def sparse_names(record: AdmissionRecord, target: str = "risk_tier") -> set[str]:
    schema = feature_schema(target)
    ((_, encoded),) = encode([record], schema)
    assert encoded.sparse == sorted(set(encoded.sparse))
    return {schema.sparse_inputs[index] for index in encoded.sparse}


def numbers(record: AdmissionRecord, target: str = "risk_tier") -> dict[str, float]:
    schema = feature_schema(target)
    ((_, encoded),) = encode([record], schema)
    return dict(zip(schema.numeric_inputs, encoded.numeric, strict=True))


def codes_in(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith(("code", "primary", "chapter"))}


# The split


def test_the_split_is_by_sha256_of_split_v1_and_the_patient():
    for number in range(200):
        subject_id = f"p{number}"
        digest = hashlib.sha256(f"split-v1{subject_id}".encode()).hexdigest()
        share = int(digest[:16], 16) / 2**64
        expected = TRAIN if share < 0.7 else VALIDATION if share < 0.85 else TEST
        assert split_of(subject_id) == expected


def test_seventy_of_a_hundred_patients_train_and_fifteen_each_validate_and_test():
    parts = Counter(split_of(f"p{number}") for number in range(10_000))
    shares = [parts[part] / 10_000 for part in (TRAIN, VALIDATION, TEST)]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.01)


# Sparse inputs


def test_codes_enter_by_category_chapter_and_version_and_the_primary_one_apart():
    record = make_record(codes=["I509", "I501", "E119"], sex="F", **KNOWN)
    assert sparse_names(record) == {
        "code I50",
        "primary code I50",
        "code E11",
        "chapter Diseases of the circulatory system",
        "chapter Endocrine, nutritional and metabolic diseases",
        "ICD-10",
        "female",
    }


def test_a_code_of_icd_9_is_the_same_input_as_its_category_of_icd_10():
    nine = sparse_names(make_record(codes=["25000"], icd_version=9, **KNOWN))
    ten = sparse_names(make_record(codes=["E119"], **KNOWN))
    assert nine - {"ICD-9"} == ten - {"ICD-10"}


def test_the_primary_code_is_the_one_with_the_smallest_seq_num_wherever_it_stands():
    diagnoses = (CodedDiagnosis(3, "E119", 10), CodedDiagnosis(2, "I10", 10))
    names = sparse_names(replace(make_record(**KNOWN), diagnoses=diagnoses))
    assert "primary code I10" in names
    assert "primary code E11" not in names


def test_a_code_of_no_known_category_says_its_version_and_nothing_else():
    assert sparse_names(make_record(codes=["U991"], **KNOWN)) == {"ICD-10"}


def test_an_admission_without_codes_and_sex_has_no_sparse_inputs():
    assert sparse_names(make_record(codes=[], **KNOWN)) == set()


@pytest.mark.parametrize(
    ("code", "icd_version"),
    [
        ("I469", 10),
        ("Z515", 10),
        ("Z66", 10),
        ("R99", 10),
        ("G9382", 10),
        ("4275", 9),
        ("V667", 9),
        ("V4986", 9),
        ("7989", 9),
        ("34882", 9),
    ],
)
def test_codes_that_define_death_are_no_input_where_death_is_predicted(code, icd_version):
    record = make_record(codes=[code], icd_version=icd_version, **KNOWN)
    assert codes_in(sparse_names(record, "risk_tier"))
    assert not codes_in(sparse_names(record, "died_in_hospital"))


@pytest.mark.parametrize("code", ["Z511", "G9381", "I489"])
def test_neighbours_of_codes_that_define_death_stay_inputs(code):
    record = make_record(codes=[code], **KNOWN)
    assert codes_in(sparse_names(record, "died_in_hospital")) == codes_in(sparse_names(record))


# Numbers


def test_age_enters_in_years_and_counts_as_logarithms():
    found = numbers(make_record(codes=["I10", "E119"], **KNOWN))
    assert found == pytest.approx(
        {
            "age": 70.0,
            "diagnosis_count": np.log(3),
            "earlier_admissions": 0.0,
            "number_inpatient": 0.0,
            "number_emergency": np.log(2),
            "number_outpatient": np.log(4),
        }
    )


def test_an_unknown_number_is_nan_and_a_sparse_input_says_so():
    record = make_record(**KNOWN | {"age": None, "number_emergency": None})
    unknown = {name for name, value in numbers(record).items() if np.isnan(value)}
    assert unknown == {"age", "number_emergency"}
    said = {name for name in sparse_names(record) if name.endswith("unknown")}
    assert said == {"age unknown", "number_emergency unknown"}


def test_the_number_of_diagnoses_is_no_input_where_it_is_the_target():
    record = make_record(**KNOWN)
    assert "diagnosis_count" in numbers(record)
    assert set(numbers(record)) - set(numbers(record, "diagnosis_count")) == {"diagnosis_count"}
    assert "diagnosis_count unknown" not in feature_schema("diagnosis_count").sparse_index


def test_only_a_patients_own_and_earlier_admissions_are_counted():
    records = [make_record("p1", "1"), make_record("p1", "2"), make_record("p1", "3")]
    records += [make_record("p2", "4"), make_record("p3", "5"), make_record("p3", "6")]
    schema = feature_schema("risk_tier")
    position = schema.numeric_inputs.index("earlier_admissions")
    counted = [np.expm1(encoded.numeric[position]) for _, encoded in encode(records, schema)]
    assert counted == pytest.approx([0, 1, 2, 0, 0, 1])


def test_a_later_admission_changes_nothing_about_an_earlier_one():
    schema = feature_schema("risk_tier")
    ((_, alone),) = encode([make_record("p1", "1", **KNOWN)], schema)
    later = make_record("p1", "2", codes=["R99"], died_in_hospital=True)
    followed = [encoded for _, encoded in encode([make_record("p1", "1", **KNOWN), later], schema)]
    assert followed[0] == alone


# The schema


def test_a_schema_has_one_index_for_each_input():
    schema = feature_schema("risk_tier")
    assert len(set(schema.sparse_inputs)) == len(schema.sparse_inputs)
    assert all(schema.sparse_inputs[index] == name for name, index in schema.sparse_index.items())


def test_the_hash_of_a_schema_tells_target_inputs_and_vocabulary_apart():
    schema = feature_schema("risk_tier")
    others = [
        feature_schema("readmitted_30d"),
        replace(schema, numeric_inputs=schema.numeric_inputs[::-1]),
        replace(schema, vocabulary_sha256="0" * 64),
    ]
    assert len({schema.sha256, *(other.sha256 for other in others)}) == 4
    assert replace(schema).sha256 == schema.sha256


def test_an_unknown_target_has_no_schema():
    with pytest.raises(UnknownTargetError, match="'mortality'"):
        feature_schema("mortality")
