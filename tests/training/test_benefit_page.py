import copy
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from envoys.models import User
from tests.factories import make_choice, make_envoy, make_participant, make_run, make_user
from training.models import Study, TrainingRun
from training.services import study_for

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")


def figures(first: float) -> dict[str, Any]:
    """AUROC of the five models: `first`, and a hundredth more each."""
    return {
        model: {"auroc": first + place / 100, "auprc": 0.3, "accuracy": 0.6, "brier": 0.2}
        for place, model in enumerate(MODELS)
    }


def gain(name: str, **values: Any) -> dict[str, Any]:
    interval = {"estimate": 0.7, "low": 0.65, "high": 0.75}
    return {
        "num_patients": 180,
        "has_enough_patients": True,
        "intervals": dict.fromkeys(MODELS, interval),
        "difference": interval,
        "sentence": f"The global model helps {name}",
        "fine_tuned_difference": interval,
        "fine_tuned_sentence": f"Fine-tuning helps {name}",
        "other_intervals": {
            figure: {"global": {"estimate": middle, "low": middle - half, "high": middle + half}}
            for figure, middle, half in (
                ("auprc", 0.3, 0.05),
                ("accuracy", 0.6, 0.05),
                ("brier", 0.2, 0.02),
            )
        },
        **values,
    }


def from_histograms(of_global: float, of_local: float, bound: float) -> dict[str, Any]:
    def figure(value: float) -> dict[str, Any]:
        interval = {"estimate": value, "low": value - 0.01, "high": value + 0.01}
        return {
            "value": value,
            "low": value - bound,
            "high": value + bound,
            "interval": interval,
        }

    gain = of_global - of_local
    return {
        **figure(of_global),
        "by_model": {"local": figure(of_local), "global": figure(of_global)},
        "difference": {"estimate": gain, "low": gain - 0.004, "high": gain + 0.004},
    }


REPORT: dict[str, Any] = {
    "num_examples": 1289,
    "pooled_test": figures(0.5),
    "mean_of_envoys": figures(0.5),
    "envoys": [
        {"name": "Alpha", "num_examples": 1234, **figures(0.6)},
        {"name": "Beta", "num_examples": 55, **figures(0.7)},
    ],
    "benefit": {
        "num_resamples": 500,
        "pooled_test": gain("all"),
        "envoys": [
            {"name": "Alpha", **gain("Alpha")},
            {
                "name": "Beta",
                **gain(
                    "Beta",
                    num_patients=None,
                    has_enough_patients=False,
                    intervals={},
                    other_intervals={},
                ),
            },
        ],
    },
    "calibration": [
        {
            "class": "High",
            "slope": 0.95,
            "intercept": -0.12,
            "in_the_large": 0.0,
            "curve": [{"predicted": 0.25, "observed": 0.27, "num_admissions": 1500}],
        }
    ],
    "confusion": {
        "classes": ["Low", "High"],
        "cells": [[1020, 30], [None, None]],
        "row_totals": [1050, None],
        "column_totals": [None, 44],
        "total": None,
        "macro_f1": 0.654,
    },
    "subgroups": {
        "age": [
            {
                "name": "40–64",
                "num_patients": 1100,
                "auroc": 0.71,
                "auprc": 0.4,
                "accuracy": 0.8,
                "brier": 0.15,
                "intervals": {
                    figure: {"estimate": middle, "low": middle - 0.03, "high": middle + 0.03}
                    for figure, middle in (("auroc", 0.71), ("auprc", 0.4), ("brier", 0.15))
                },
            }
        ],
        "sex": [],
    },
    "from_histograms": {
        "auroc": from_histograms(0.652, 0.641, 0.002),
        "auprc": from_histograms(0.203, 0.198, 0.04),
    },
    "by_hospital": [
        {
            "name": "Alpha",
            "calibration": [
                {
                    "class": "High",
                    "slope": 0.91,
                    "intercept": -0.05,
                    "in_the_large": 0.0,
                    "slope_interval": {"estimate": 0.91, "low": 0.71, "high": 1.11},
                    "intercept_interval": {"estimate": -0.05, "low": -0.25, "high": 0.15},
                }
            ],
            "confusion": [[81, 19], [30, 50]],
            "macro_f1": 0.612,
            "macro_f1_interval": {"estimate": 0.612, "low": 0.58, "high": 0.64},
        },
        {"name": "Beta", "calibration": [], "confusion": None, "macro_f1": None},
    ],
}


@pytest.fixture
def run() -> TrainingRun:
    run = make_run(status=TrainingRun.Status.FINISHED, report=REPORT)
    for name in ("Alpha", "Beta"):
        make_participant(run, make_envoy(name=name))
    return run


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(user: User, run: TrainingRun) -> str:
    response = client_of(user).get(reverse("training:run-benefit", args=[run.pk]))
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_page_has_a_sentence_and_five_models_for_each_hospital(run):
    alpha = run.participants.get(envoy__name="Alpha").envoy
    choice = make_choice(run, alpha, kind="LOCAL", reason="It is better here")
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert "The global model helps Alpha. Fine-tuning helps Alpha." in html
    assert "In use: trained at the hospital alone. It is better here." in html
    assert reverse("training:model-choice-detail", args=[choice.pk]) in html
    assert "0.600" in html  # the rule of thumb
    assert "0.630" in html  # fine-tuned
    assert "0.650 to 0.750" in html
    assert "0.95" in html
    assert "Not shown: one of its cells holds under 10 patients." in html
    assert '<script id="benefit-data" type="application/json">' in html
    assert '<details data-keep-open="confusion" open>' in html


@pytest.mark.parametrize(
    ("target", "counted"), [("risk_tier", "diagnoses"), ("health_risk", "warning signs")]
)
def test_the_rule_of_thumb_is_told_in_words_of_the_dataset(run, target, counted):
    run.study = study_for(target)
    run.save(update_fields=["study"])
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert f"<em>Rule of thumb</em>: by the number of {counted}." in html


def cells_of(html: str, hospital: str) -> list[list[str]]:
    """What stands in a hospital's rows, table by table."""
    rows = re.findall(rf'<tr>\s*<th scope="row">{hospital}</th>(.*?)</tr>', html)
    return [
        [
            " ".join(re.sub(r"<[^>]+>", " ", cell).split())
            for cell in re.findall(r"<td.*?</td>", row)
        ]
        for row in rows
    ]


def test_of_under_ten_test_patients_no_figure_is_shown(run):
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    models, global_model = cells_of(html, "Beta")
    assert models == ["55", "under 10", *["–"] * 5]
    assert global_model == ["under 10", *["–"] * 5]
    assert cells_of(html, "Alpha")[0][:3] == ["1,234", "180", "0.600 0.650 to 0.750"]


def test_the_page_shows_how_good_the_global_model_is_at_each_hospital(run):
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert cells_of(html, "Alpha")[1] == [
        "180",
        "0.300 0.250 to 0.350",
        "0.200 0.180 to 0.220",
        "0.600 0.550 to 0.650",
        "0.612 0.580 to 0.640",
        "High: slope 0.91 0.71 to 1.11 , intercept -0.05 -0.25 to 0.15",
    ]
    # Of all together a cell of the matrix is hidden: no Macro-F1.
    assert cells_of(html, "All test patients together")[1][4] == "–"
    assert "Confusion matrix, Alpha" in html
    assert cells_of(html, "Low")[0] == ["81", "19"]
    assert "Confusion matrix, Beta" not in html
    assert cells_of(html, "Age: 40–64") == [
        ["1,100", "0.710 0.680 to 0.740", "0.400 0.370 to 0.430", "0.150 0.120 to 0.180"]
    ]


@pytest.mark.parametrize("page", ["training:run-benefit", "training:run-detail"])
def test_both_pages_compare_the_models_by_exchanged_score_histograms(run, page):
    client = client_of(make_user(User.Role.DATA_SCIENTIST))
    html = " ".join(client.get(reverse(page, args=[run.pk])).content.decode().split())
    assert cells_of(html, "Local") == [
        [
            "0.641 0.631 to 0.651 0.639 to 0.643 possible",
            "0.198 0.188 to 0.208 0.158 to 0.238 possible",
        ]
    ]
    assert cells_of(html, "Global") == [
        [
            "0.652 0.642 to 0.662 0.650 to 0.654 possible",
            "0.203 0.193 to 0.213 0.163 to 0.243 possible",
        ]
    ]
    assert cells_of(html, "Global minus local") == [
        ["0.011 0.007 to 0.015", "0.005 0.001 to 0.009"]
    ]
    assert cells_of(html, "Pooled") == []


def test_a_report_with_the_global_models_histograms_alone_is_still_shown(run):
    report = copy.deepcopy(REPORT)
    report["from_histograms"] = {
        "auroc": {"value": 0.652, "low": 0.651, "high": 0.653},
        "auprc": None,
    }
    TrainingRun.objects.update(report=report)
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert cells_of(html, "Global") == [["0.652 0.651 to 0.653 possible", "–"]]
    assert "Global minus local" not in html


def test_the_page_names_the_strategy_and_the_model_in_use_in_words(run):
    make_choice(run, run.participants.get(envoy__name="Alpha").envoy, kind="GLOBAL", reason="So")
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert "FedAvg, 3 rounds" in html
    page = client_of(make_user(User.Role.DATA_SCIENTIST)).get(
        reverse("training:run-detail", args=[run.pk])
    )
    assert "<dt>Strategy</dt><dd>FedAvg</dd>" in page.content.decode()
    assert "In use: the federation&#x27;s model. So." in html


@pytest.mark.parametrize(("target", "is_told"), [("risk_tier", True), ("readmitted_30d", False)])
def test_of_three_classes_the_page_says_what_the_figures_are_over(run, target, is_told):
    report = copy.deepcopy(REPORT)
    if is_told:
        counts = {name: [None] * 3 for name in ("row_totals", "column_totals")}
        report["confusion"] |= {"classes": ["Low", "Medium", "High"], "cells": [[None] * 3] * 3}
        report["confusion"] |= counts
        report["by_hospital"][0]["confusion"] = None
    TrainingRun.objects.update(report=report)
    Study.objects.update(target=target)
    html = text_of(make_user(User.Role.DATA_SCIENTIST), run)
    assert html.count("the mean over the classes, each against the rest") == 3 * is_told
    assert html.count("from 0 to 2") == 2 * is_told


def test_the_counts_of_examples_are_those_of_the_runs_page(run):
    report = copy.deepcopy(REPORT)
    report["envoys"][1]["num_examples"] = 7  # 1,241 less 1,234
    TrainingRun.objects.update(report=report)
    client = client_of(make_user(User.Role.DATA_SCIENTIST))
    for page, place in (("training:run-benefit", 0), ("training:run-detail", 0)):
        response = client.get(reverse(page, args=[run.pk]))
        html = " ".join(response.content.decode().split())
        for hospital in ("Alpha", "Beta"):
            assert cells_of(html, hospital)[place][0] == "–", page


def test_a_report_made_before_there_was_so_much_in_it_is_still_shown(run):
    report = copy.deepcopy(REPORT)
    for name in ("from_histograms", "by_hospital", "num_examples"):
        del report[name]
    for each in (report["benefit"]["pooled_test"], *report["benefit"]["envoys"]):
        each.pop("other_intervals")
    TrainingRun.objects.update(report=report)
    scientist = make_user(User.Role.DATA_SCIENTIST)
    html = text_of(scientist, run)
    assert cells_of(html, "Alpha")[1] == ["180", "0.300", "0.200", "0.600", "–", "–"]
    assert "exchanged score histograms" not in html
    assert (
        client_of(scientist).get(reverse("training:run-detail", args=[run.pk])).status_code == 200
    )
    older = {name: report[name] for name in ("pooled_test", "mean_of_envoys", "envoys")}
    TrainingRun.objects.update(report=older)
    assert "Not compared" in text_of(scientist, run)


def test_a_doctor_sees_their_own_hospital_and_all_together(run):
    alpha = run.participants.get(envoy__name="Alpha").envoy
    html = text_of(make_user(envoy=alpha), run)
    assert "The global model helps Alpha" in html
    assert "The global model helps all" in html
    assert "Beta" not in html
    assert "The other 1 hospital of this run" in html


def test_the_call_answers_the_same_numbers(run):
    alpha = run.participants.get(envoy__name="Alpha").envoy
    found = client_of(make_user(envoy=alpha)).get(reverse("api:run-benefit", args=[run.pk])).json()
    (hospital,) = found["hospitals"]
    assert (hospital["name"], hospital["num_examples"], hospital["num_patients"]) == (
        "Alpha",
        "1,234",
        "180",
    )
    assert [model["model"] for model in hospital["models"]] == list(MODELS)
    assert hospital["models"][3]["auroc"] == pytest.approx(0.63)
    assert hospital["model_choice"] is None
    assert found["confusion"] == REPORT["confusion"]
    assert found["from_histograms"] == REPORT["from_histograms"]
    assert hospital["models"][2]["brier_interval"]["low"] == pytest.approx(0.18)
    assert hospital["calibration"][0]["slope_interval"]["high"] == pytest.approx(1.11)
    assert (hospital["confusion"], hospital["macro_f1"]) == ([[81, 19], [30, 50]], 0.612)


def test_before_the_report_the_page_says_when_it_comes(run):
    TrainingRun.objects.update(report=None, status=TrainingRun.Status.TRAINING)
    scientist = make_user(User.Role.DATA_SCIENTIST)
    assert "It is made when the run has finished." in text_of(scientist, run)
    answer = client_of(scientist).get(reverse("api:run-benefit", args=[run.pk]))
    assert answer.status_code == 409
    assert "has no report" in answer.json()["detail"]
