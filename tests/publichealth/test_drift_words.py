import pytest

from publichealth.drift_words import input_rows, verdict
from publichealth.models import DriftCheck


def figures(name="aqi", **values):
    return {
        "input": name,
        "num_readings": 500,
        "psi": 0.01,
        "psi_limit": 0.1,
        "shift": 0.05,
        "shift_limit": 0.2,
        "share_known": 0.0,
        "share_limit": 0.1,
        "alerts": [],
    } | values


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (figures(), "As before"),
        (figures(shift=0.5, alerts=["shift"]), "Higher than before"),
        (figures(shift=-0.5, alerts=["psi", "shift"]), "Lower than before"),
        (figures("cough", shift=0.5, alerts=["shift"]), "More often than before"),
        (figures("cough", shift=-0.5, alerts=["shift"]), "Less often than before"),
        (figures(psi=0.4, alerts=["psi"]), "Spread differently than before"),
        (figures(share_known=-0.3, alerts=["share_known"]), "Measured less often than before"),
        (
            figures(shift=0.5, share_known=0.3, alerts=["shift", "share_known"]),
            "Higher, measured more often than before",
        ),
        (figures(psi=None, shift=None), "Too few to compare"),
    ],
)
def test_a_verdict_says_what_has_changed(found, words):
    assert verdict(found) == words


def test_what_has_drifted_comes_first_and_the_bar_is_of_the_figure_nearest_its_limit():
    quiet = figures(psi=0.025, shift=-0.1)
    gaps = figures("spo2", psi=None, shift=None, share_known=-0.4, alerts=["share_known"])
    rows = input_rows(DriftCheck(figures=[quiet, gaps]))
    assert [(row.title, row.is_alert) for row in rows] == [
        ("Oxygen saturation", True),
        ("Air quality index", False),
    ]
    assert [row.percent_of_limit for row in rows] == [100, 50]
