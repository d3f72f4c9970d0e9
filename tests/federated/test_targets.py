from typing import Any

import pytest

from federated.errors import UnknownTargetError
from federated.targets import (
    HIGH,
    LOW,
    MEDIUM,
    num_diagnoses,
    rule_of_thumb_band,
    target_named,
    targets,
)
from tests.federated.builders import make_record

HOME_SOON: dict[str, Any] = {"readmit_30d": False, "discharged_home": True, "los_days": 2.0}


def label(target: str, **facts: Any) -> int | None:
    return target_named(target).label_of(make_record(**facts))


@pytest.mark.parametrize(
    ("facts", "tier"),
    [
        (HOME_SOON, LOW),
        (HOME_SOON | {"los_days": 6.9}, LOW),
        (HOME_SOON | {"los_days": 7.0}, MEDIUM),
        (HOME_SOON | {"discharged_home": False}, MEDIUM),
        (HOME_SOON | {"readmit_30d": True}, HIGH),
        (HOME_SOON | {"died_30d_after_discharge": True}, HIGH),
        (HOME_SOON | {"died_in_hospital": True}, HIGH),
        ({"died_in_hospital": True}, HIGH),  # though nothing else is known
        ({"died_30d_after_discharge": True}, HIGH),
        (HOME_SOON | {"readmit_30d": None}, None),  # may still come back
        (HOME_SOON | {"readmit_30d": None, "discharged_home": False}, None),
        (HOME_SOON | {"readmit_30d": None, "los_days": 9.0}, None),
        ({"readmit_30d": False}, None),  # neither where to nor how long
        ({"readmit_30d": False, "discharged_home": True}, LOW),
        ({"readmit_30d": False, "los_days": 2.0}, LOW),
        ({"readmit_30d": False, "los_days": 7.0}, MEDIUM),
        ({"readmit_30d": False, "discharged_home": False}, MEDIUM),
        ({}, None),
        ({"risk_tier": LOW, "died_in_hospital": True}, LOW),  # as given by the source
        ({"risk_tier": HIGH} | HOME_SOON, HIGH),
    ],
)
def test_the_risk_tier_is_as_given_or_as_defined(facts, tier):
    assert label("risk_tier", **facts) == tier


@pytest.mark.parametrize(
    ("facts", "readmitted"),
    [
        ({"readmit_30d": True}, 1),
        ({"readmit_30d": False}, 0),
        ({"readmit_30d": None}, None),
        ({"readmit_30d": False, "died_in_hospital": True}, None),
        ({"readmit_30d": True, "died_in_hospital": False}, 1),
    ],
)
def test_who_died_is_left_out_of_readmission(facts, readmitted):
    assert label("readmitted_30d", **facts) == readmitted


@pytest.mark.parametrize(("died", "expected"), [(True, 1), (False, 0), (None, None)])
def test_death_in_hospital_is_unknown_where_nobody_says(died, expected):
    assert label("died_in_hospital", died_in_hospital=died) == expected


def test_the_clinicians_risk_level_is_what_the_doctor_entered_and_no_other():
    assert label("clinician_risk_level", clinician_risk_level=HIGH, risk_tier=LOW) == HIGH
    assert label("clinician_risk_level", risk_tier=LOW) is None


@pytest.mark.parametrize(
    ("count", "band"), [(0, LOW), (1, LOW), (2, MEDIUM), (4, MEDIUM), (5, HIGH), (16, HIGH)]
)
def test_the_rule_of_thumb_goes_by_the_number_of_diagnoses(count, band):
    record = make_record(codes=["I10"] * count)
    assert num_diagnoses(record) == count
    assert rule_of_thumb_band(record) == band
    assert label("diagnosis_count", codes=["I10"] * count) == band


def test_the_number_of_diagnoses_given_by_the_source_goes_before_the_rows_that_came():
    record = make_record(codes=["I10"] * 3, number_diagnoses=9)
    assert num_diagnoses(record) == 9
    assert rule_of_thumb_band(record) == HIGH
    assert num_diagnoses(make_record(number_diagnoses=0)) == 0


def test_an_unknown_target_is_refused_with_those_there_are():
    for target in targets():
        assert target_named(target.name) is target
    with pytest.raises(UnknownTargetError, match=r"'mortality'; there are risk_tier, .*_count"):
        target_named("mortality")
