"""A prediction in words: what drives it, and how far to trust it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diagnoses.models import Admission, IcdCode
from inference.models import Prediction
from training.models import ModelVersion

MOST_DRIVERS = 6
SMALLEST_CHANGE = 0.005  # half a percentage point
NEARLY_EQUAL = 0.10
OLD_DAYS = 180

_OF_CODE = re.compile(r"(primary )?code (\w{3})")
_INPUTS = {
    "age": "Age",
    "diagnosis_count": "Number of diagnoses",
    "earlier_admissions": "Earlier admissions here",
    "number_inpatient": "Stays in the year before",
    "number_emergency": "Emergency visits in the year before",
    "number_outpatient": "Outpatient visits in the year before",
    "ICD-9": "Coded in ICD-9",
    "ICD-10": "Coded in ICD-10",
    "female": "Female",
    "male": "Male",
}


@dataclass(frozen=True)
class Driver:
    """An input in words, and by how many percentage points it changes the likeliest class."""

    text: str
    points: float

    @property
    def raises(self) -> bool:
        return self.points > 0

    @property
    def size(self) -> float:
        return abs(self.points)


@dataclass(frozen=True)
class ClassShare:
    name: str
    probability: float
    is_likeliest: bool

    @property
    def percent(self) -> float:
        return 100 * self.probability


@dataclass(frozen=True)
class Explanation:
    """All that the page says of one prediction."""

    predicted: str
    shares: list[ClassShare]
    drivers: list[Driver]
    trust: list[str]


def explain(
    prediction: Prediction,
    *,
    admission: Admission,
    titles: Mapping[str, str],
    num_diagnoses: int,
    now: datetime,
) -> Explanation:
    """A prediction in words.

    Args:
        titles: of 3-character ICD-10 categories; see `category_titles`.
        num_diagnoses: that stand in the admission.
    """
    classes = prediction.model_version.manifest["classes"]
    return Explanation(
        predicted=classes[prediction.predicted_class],
        shares=[
            ClassShare(name, probability, index == prediction.predicted_class)
            for index, (name, probability) in enumerate(
                zip(classes, prediction.probabilities, strict=True)
            )
        ],
        drivers=[
            Driver(in_words(entry["input"], titles), 100 * entry["change"])
            for entry in prediction.contributions
            if abs(entry["change"]) >= SMALLEST_CHANGE
        ][:MOST_DRIVERS],
        trust=[
            *_of_this_admission(prediction, admission, num_diagnoses),
            *_of_the_model(prediction.model_version, admission, now),
        ],
    )


def category_titles(predictions: Iterable[Prediction]) -> dict[str, str]:
    """The titles of the ICD-10 categories that are inputs of some predictions."""
    found = (
        _OF_CODE.fullmatch(entry["input"])
        for prediction in predictions
        for entry in prediction.contributions
    )
    categories = {match[2] for match in found if match}
    codes = IcdCode.objects.filter(version=10, code__in=categories)
    return dict(codes.values_list("code", "title"))


def in_words(name: str, titles: Mapping[str, str]) -> str:
    """An input of `FeatureSchema` as a doctor reads it."""
    if match := _OF_CODE.fullmatch(name):
        category = match[2]
        title = f"{titles[category]} ({category})" if titles.get(category) else category
        return f"{title} as the main diagnosis" if match[1] else title
    if name.startswith("chapter "):
        return f"A diagnosis among: {name.removeprefix('chapter ')}"
    if name.endswith(" unknown"):
        known = name.removesuffix(" unknown")
        return f"{_INPUTS.get(known, known)} not known"
    return _INPUTS.get(name, name)


def _of_this_admission(
    prediction: Prediction, admission: Admission, num_diagnoses: int
) -> list[str]:
    notes = []
    if num_diagnoses == 0:
        notes.append(
            "No diagnosis is recorded, so this says little more than what patients of this age and"
            " sex have on average."
        )
    likeliest, second = sorted(prediction.probabilities, reverse=True)[:2]
    if likeliest - second < NEARLY_EQUAL:
        notes.append("The two likeliest classes are almost equally likely: read it as undecided.")
    if admission.is_open:
        notes.append(
            "The patient is still here. Models learn from complete records of past stays, so the"
            " risk moves as diagnoses are added."
        )
    return notes


def _of_the_model(version: ModelVersion, admission: Admission, now: datetime) -> list[str]:
    updates = version.manifest.get("lineage", {}).get("updates", [])
    num_examples = sum(update["num_examples"] for update in updates)
    notes = []
    if version.envoy_id is None and updates:
        notes.append(f"It was trained on {num_examples:,} admissions of {len(updates)} hospitals.")
    elif updates and version.kind == ModelVersion.Kind.LOCAL:
        notes.append(f"It was trained on {num_examples:,} admissions of this hospital alone.")
    elif updates:
        notes.append(
            f"It is the last global model, trained on with {num_examples:,} admissions of this"
            " hospital alone."
        )
    notes.append(_how_well(version, admission))
    age_days = (now - version.created_at).days
    if age_days > OLD_DAYS:
        notes.append(f"It was made {age_days} days ago: patients and coding may have changed.")
    notes.append("It shows what goes along with the outcome, not what causes it.")
    return notes


def _how_well(version: ModelVersion, admission: Admission) -> str:
    """How the model did on patients that it had not seen, nearest to this hospital."""
    report: dict[str, Any] = version.run.report or {}
    name, model = admission.envoy.name, version.kind.lower()
    for entry in report.get("envoys", []):
        if entry["name"] in (name, admission.envoy.slug) and entry.get(model):
            gains = {gain["name"]: gain for gain in report.get("benefit", {}).get("envoys", [])}
            gain = gains.get(entry["name"], {})
            if not gain.get("has_enough_patients", True):
                break  # a figure of under ten test patients is not told
            interval = gain.get("intervals", {}).get(model)
            return _ranking(entry[model]["auroc"], "this hospital's test patients", interval)
    if version.envoy_id is not None:
        auroc = version.metrics.get("validation_auroc")
        return _ranking(auroc, "this hospital's validation patients", None)
    pooled = report.get("pooled_test", {}).get("global", {}).get("auroc")
    return _ranking(pooled, "the test patients of the hospitals that took part", None)


def _ranking(auroc: float | None, whose: str, interval: dict[str, float] | None) -> str:
    if auroc is None:
        return (
            f"How well it does on {whose} has not been measured: there are too few, or no report."
        )
    between = f" (95 %: {interval['low']:.2f} to {interval['high']:.2f})" if interval else ""
    verdict = "that is good" if auroc >= 0.8 else "that is fair" if auroc >= 0.7 else "that is weak"
    return (
        f"On {whose} its AUROC is {auroc:.2f}{between}, where 0.5 is chance and 1 is perfect:"
        f" {verdict}."
    )
