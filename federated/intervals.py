"""95 % intervals by resampling patients, and what a difference between two models says in words.

Patients are drawn, not admissions: those of one patient come or stay away together, else whoever
was admitted often would make every figure look surer than it is. A resample is a weight per row
(how often its patient was drawn), so that no row is copied, and rows are sorted by score once.

Two models scored on the same rows from the same seed see the same resamples: their difference is
paired. Over several hospitals each resamples its own patients where the rows are, and sends score
histograms (`federated.histograms`).
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from federated.metrics import Labels, Patients, Probabilities, scored_classes
from federated.seeds import rng_for

NUM_RESAMPLES = 1000
MIN_SHARE_DEFINED = 0.9  # of the resamples: below, too few patients carry the figure
TOO_FEW = "too few patients"
MAX_PLACES = 4  # a difference that rounds to zero there is none
WEIGHTS_AT_ONCE = 2**18  # 2 MiB: stays in a processor's cache

Figures = NDArray[np.float64]
Weights = NDArray[np.float64]  # (num_samples, num_rows): how often each row counts
Name = TypeVar("Name", bound=Hashable)  # of a statistic
Statistic = Callable[[Weights], Figures]  # → (num_samples,), NaN where undefined


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its 95 % interval."""

    estimate: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Resampled:
    """A figure of the rows as they are, then of each resample: (1 + num_resamples,).

    Subtract two of the same rows and seed to get their paired difference.
    """

    figures: Figures

    @property
    def estimate(self) -> float:
        return float(self.figures[0])

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.figures - other.figures)

    def interval(self) -> Interval | None:
        """The percentile interval (Efron & Tibshirani 1993, chapter 13).

        None where the figure is undefined on the rows, or on more than a tenth of the resamples
        (the others are left out): of three patients with the outcome, one resample in twenty
        draws none. Where resampling is biased (a patient drawn twice is two at the same score), the
        figure may lie outside its percentiles: then the interval reaches as far as the figure.
        """
        drawn = self.figures[1:]
        known = drawn[np.isfinite(drawn)]
        enough = len(known) and len(known) >= MIN_SHARE_DEFINED * len(drawn)
        if not enough or not np.isfinite(self.estimate):
            return None
        low, high = np.percentile(known, [2.5, 97.5]).tolist()
        return Interval(self.estimate, min(low, self.estimate), max(high, self.estimate))


def sample_weights(patients: Patients, *, num_resamples: int, seed: int | str) -> Iterator[Weights]:
    """Weights (some samples, num_rows), a few samples at a time: first the rows as they are.

    Args:
        patients: (num_rows,), rows of one patient share a number.
        seed: hospitals must differ in theirs, so it contains the hospital's name
            (f"{run_seed}:{client_id}"); models compared must not. A hospital whose rows the
            director may not see adds a secret of its own: who knows the weights, and is sent
            more resamples than there are patients, can solve for the patients.
    """
    yield np.ones((1, len(patients)))
    if not len(patients):
        yield np.ones((num_resamples, 0))
        return
    _, person = np.unique(patients, return_inverse=True)  # (num_rows,), from 0
    num_patients = int(person.max()) + 1
    rng = rng_for("resample patients", seed)
    at_once = max(1, WEIGHTS_AT_ONCE // len(patients))
    for start in range(0, num_resamples, at_once):
        num_samples = min(at_once, num_resamples - start)
        drawn = rng.integers(num_patients, size=(num_samples, num_patients))
        drawn += np.arange(num_samples)[:, np.newaxis] * num_patients
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield times.astype(np.float64)[:, person]


def resample(
    statistics: Mapping[Name, Statistic],
    patients: Patients,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int | str,
) -> dict[Name, Resampled]:
    """Several statistics of the same rows (models, figures), on the same resamples."""
    parts: dict[Name, list[Figures]] = {name: [] for name in statistics}
    for weights in sample_weights(patients, num_resamples=num_resamples, seed=seed):
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return {name: Resampled(np.concatenate(figures)) for name, figures in parts.items()}


def bootstrap(
    statistic: Statistic,
    patients: Patients,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int | str,
) -> Interval | None:
    """The interval of one statistic; None where there are too few patients for one."""
    found = resample({"": statistic}, patients, num_resamples=num_resamples, seed=seed)
    return found[""].interval()


@dataclass(frozen=True)
class _Ranking:
    """The rows by rising score, and the runs of equal scores that hold a positive.

    Only sums at the runs' borders are needed, and most rows are negatives between them.
    """

    order: NDArray[np.int64]  # of all rows
    order_of_positives: NDArray[np.int64]
    borders: NDArray[np.int64]  # (2, num_runs): how many rows are below a run, and up to its end
    borders_of_positives: NDArray[np.int64]

    @classmethod
    def of(cls, is_positive: NDArray[np.bool_], scores: Probabilities) -> "_Ranking":
        order = np.argsort(scores, kind="stable").astype(np.int64)
        of_positives = order[is_positive[order]]
        runs = np.unique(scores[is_positive])

        def borders(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            below = np.searchsorted(scores[rows], runs, side="left")
            return np.stack([below, np.searchsorted(scores[rows], runs, side="right")])

        return cls(order, of_positives, borders(order), borders(of_positives))

    def auroc(self, weights: Weights) -> Figures:
        """(num_samples,); of a positive and a negative of equal score, half is counted."""
        (positives_below, positives_to), num_positives = _sums_at(
            self.borders_of_positives, weights[:, self.order_of_positives]
        )
        (below, to), num_rows = _sums_at(self.borders, weights[:, self.order])
        negatives_below = (below - positives_below + to - positives_to) / 2
        pairs = num_positives * (num_rows - num_positives)
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = ((positives_to - positives_below) * negatives_below).sum(axis=1)
            found: Figures = ahead / pairs
        return found

    def auprc(self, weights: Weights) -> Figures:
        """(num_samples,); the precision at each positive, those of equal score at once."""
        (positives_below, positives_to), num_positives = _sums_at(
            self.borders_of_positives, weights[:, self.order_of_positives]
        )
        (below, _), num_rows = _sums_at(self.borders, weights[:, self.order])
        found_there = num_positives[:, np.newaxis] - positives_below
        # Where nobody was drawn from here up, there is nobody whose precision would count.
        precision = found_there / np.maximum(num_rows[:, np.newaxis] - below, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = ((positives_to - positives_below) * precision).sum(axis=1) / num_positives
        return np.where(num_rows > num_positives, found, np.nan)


def _sums_at(borders: NDArray[np.int64], ranked: Weights) -> tuple[Figures, Figures]:
    """Sums of the weights below each border (2, num_samples, num_runs), and of all."""
    running = np.zeros((len(ranked), ranked.shape[1] + 1))
    np.cumsum(ranked, axis=1, out=running[:, 1:])
    return np.stack([running[:, border] for border in borders]), running[:, -1]


def _rankings(labels: Labels, probabilities: Probabilities) -> list[_Ranking]:
    return [
        _Ranking.of(labels == cls, probabilities[:, cls])
        for cls in scored_classes(probabilities.shape[1])
    ]


def auroc_statistic(labels: Labels, probabilities: Probabilities) -> Statistic:
    """`metrics.auroc` of labels (num_rows,) and probabilities (num_rows, num_classes)."""
    rankings = _rankings(labels, probabilities)
    return lambda weights: np.mean([ranking.auroc(weights) for ranking in rankings], axis=0)


def auprc_statistic(labels: Labels, probabilities: Probabilities) -> Statistic:
    """Average precision, macro one-vs-rest as `metrics.measure` has it."""
    rankings = _rankings(labels, probabilities)
    return lambda weights: np.mean([ranking.auprc(weights) for ranking in rankings], axis=0)


def mean_statistic(values: NDArray[np.floating]) -> Statistic:
    """The mean of a value per row (num_rows,): Brier score, accuracy, cross-entropy."""

    def mean(weights: Weights) -> Figures:
        with np.errstate(invalid="ignore"):
            found: Figures = (weights @ values.astype(np.float64)) / weights.sum(axis=1)
        return found

    return mean


def number_in_words(value: float, places: int) -> str:
    """With a minus sign as it is printed, and none before a zero."""
    text = f"{abs(value):.{places}f}"
    return f"−{text}" if value < 0 and float(text) else text


def in_words(
    difference: Interval | None,
    *,
    model: str = "The global model",
    other: str = "this hospital's own",
    higher_is_better: bool = True,
    because: str = TOO_FEW,
) -> str:
    """One sentence on a paired difference, `model` minus `other`, without a full stop.

    A difference is told where the interval leaves zero out. It is written with two places, or with
    as many more (four at most) as it takes for its nearer bound not to be printed as zero.

    Args:
        because: why there is no difference, where there is none.
    """
    between = f"between {model[:1].lower()}{model[1:]} and {other}"
    if difference is None:
        return f"No difference can be told {between}: {because}"
    low, high = round(difference.low, MAX_PLACES), round(difference.high, MAX_PLACES)
    if low <= 0 <= high:
        figures = [difference.estimate, difference.low, difference.high]
        estimate, low_text, high_text = (number_in_words(figure, 2) for figure in figures)
        return f"No difference can be told {between}: {estimate} ({low_text} to {high_text})"
    sign = 1 if low > 0 else -1
    nearer, farther = sorted((abs(difference.low), abs(difference.high)))
    places = next(p for p in range(2, MAX_PLACES + 1) if round(nearer, p))
    verb = "beats" if (sign > 0) == higher_is_better else "is worse than"
    return (
        f"{model} {verb} {other} by {number_in_words(sign * difference.estimate, places)}"
        f" ({number_in_words(nearer, places)} to {number_in_words(farther, places)})"
    )
