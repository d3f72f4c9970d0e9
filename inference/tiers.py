"""How many admissions of a hospital a model puts where: small counts are not told."""

from dataclasses import dataclass

import numpy as np

from federated.suppression import suppress
from inference.models import InferenceRun


@dataclass(frozen=True)
class TierCounts:
    """Admissions by class, in the classes' order; None where it is not shown."""

    tiers: dict[str, int | None]
    total: int | None

    def in_words(self) -> list[tuple[str, str]]:
        return [
            (name, "–" if count is None else f"{count:,}")
            for name, count in [*self.tiers.items(), ("All", self.total)]
        ]


def tier_counts(inference_run: InferenceRun) -> TierCounts | None:
    """None before there are any."""
    if not inference_run.counts:
        return None
    # JSON in PostgreSQL does not keep the order.
    classes = inference_run.model_version.manifest["classes"]
    table = suppress(np.array([inference_run.counts[name] for name in classes], np.int64))
    return TierCounts(dict(zip(classes, table.cells, strict=True)), table.total)
