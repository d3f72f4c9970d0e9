"""A model version as a person reads it: where it comes from, how good it is, where it arrived."""

from dataclasses import dataclass
from typing import Any

from envoys.models import Envoy, User
from federated.architectures import Architecture, architecture_named
from federated.errors import FederatedError
from federated.small_counts import shown
from federated.strategies import strategy_named
from training.models import Distribution, ModelVersion
from training.plan_words import inputs_in_words

METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "macro_f1": "Macro-F1",
    "log_loss": "Loss",
    "validation_auroc": "AUROC on validation patients",
    "validation_loss": "Loss on validation patients",
    "train_loss": "Loss on training patients",
}


@dataclass(frozen=True)
class Contributor:
    name: str
    num_examples: str  # empty where it may not be seen


@dataclass(frozen=True)
class VersionWords:
    classes: list[str]
    network: Architecture | None
    inputs: list[str]
    strategy: str
    seed: int | None
    base_sha256: str
    plan_sha256: str
    contributors: list[Contributor]
    num_needed: int
    metrics: list[tuple[str, float]]

    @property
    def has_enough_contributors(self) -> bool:
        return len(self.contributors) >= self.num_needed


def version_in_words(version: ModelVersion, user: User) -> VersionWords:
    """What the manifest says; of another hospital a doctor reads its name and no count."""
    manifest = version.manifest
    lineage = manifest.get("lineage", {})
    updates = lineage.get("updates", [])
    names = dict(
        Envoy.objects.filter(slug__in=[update["envoy"] for update in updates]).values_list(
            "slug", "name"
        )
    )
    visible = set(Envoy.objects.visible_to(user).values_list("slug", flat=True))
    return VersionWords(
        classes=manifest.get("classes", []),
        network=_known(architecture_named, version.study.network),
        inputs=_known(inputs_in_words, version.study.target) or [],
        strategy=getattr(_known(strategy_named, lineage.get("strategy", "")), "title", ""),
        seed=lineage.get("seed"),
        base_sha256=lineage.get("base_sha256", ""),
        plan_sha256=lineage.get("plan_sha256", ""),
        contributors=[
            Contributor(
                names.get(update["envoy"], update["envoy"]),
                shown(update["num_examples"]) if update["envoy"] in visible else "",
            )
            for update in updates
        ],
        num_needed=version.study.min_contributors,
        metrics=_metrics(version),
    )


def _known(named: Any, name: str) -> Any:
    """None for what an older program knew."""
    try:
        return named(name)
    except FederatedError:
        return None


def _metrics(version: ModelVersion) -> list[tuple[str, float]]:
    """A hospital's own on its validation patients; the federation's on all test patients."""
    report = version.run.report or {}
    found = version.metrics if version.envoy_id else report.get("pooled_test", {}).get("global", {})
    return [
        (version.study.words.instead(label), found[name])
        for name, label in METRICS.items()
        if isinstance(found.get(name), int | float)
    ]


@dataclass(frozen=True)
class Deliveries:
    rows: list[Distribution]  # the newest to each hospital

    @property
    def num_delivered(self) -> int:
        return sum(row.status == Distribution.Status.COMPLETE for row in self.rows)

    @property
    def num_failed(self) -> int:
        return sum(row.status == Distribution.Status.FAILED for row in self.rows)

    @property
    def is_active(self) -> bool:
        return any(row.is_active for row in self.rows)


def deliveries_of(version: ModelVersion, user: User) -> Deliveries:
    rows = version.distributions.filter(envoy__in=Envoy.objects.visible_to(user))
    newest: dict[int, Distribution] = {}
    for row in rows.select_related("envoy"):  # newest first
        newest.setdefault(row.envoy_id, row)
    return Deliveries(sorted(newest.values(), key=lambda row: row.envoy.name))
