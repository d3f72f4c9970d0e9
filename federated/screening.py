"""Which updates of a round a person should look at before they count.

Three things are compared, each robust to a few bad hospitals: how long an update is beside the
others; which way it points beside the others; and, once an update of the hospital has counted,
whether it has turned round since. The last is what shows a hospital that turns bad late: then the
updates of honest hospitals pull against each other, each towards its own patients, but each in the
way in which it pulled before.

The limits were chosen by experiment (docs/learning.md). Updates of fewer than `MIN_SCREENED`
hospitals are not screened, since of two or three nobody can say which is the odd one.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.aggregation import ClientUpdate
from federated.params import Params, in_parts
from federated.plan import TrainingPlan
from federated.strategies import strategy_named
from federated.targets import READINGS

MIN_SCREENED = 4
LONGEST = 5.0  # times the upper quartile of the others' lengths
LONGEST_CONTROL = 50.0  # of control variates, which are divided by a hospital's number of steps
# Of a hospital that a person has vouched for: times what was vouched for.
TRUSTED = 2.0
# Where it points is of no matter in what is shorter than this: it moves nothing, and may be noise.
SHORT = 0.1
# A direction is odd below minus this, where that of the other hospitals is above it (their median):
# with opposite signs alone, a round in which nobody agrees would be full of suspects.
COSINE = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Screening:
    """How one update stands to the others of its round.

    Attributes:
        norm_ratio: its Euclidean length, by the upper quartile of the other hospitals' lengths.
        control_ratio: the same of the change of its control variate; None without one.
        others_cosine: with the sum of the other hospitals' directions.
        others_median: the other hospitals' median of that.
        own_cosine: with the hospital's own last update that counted; None before its first.
        own_median: the other hospitals' median of that.
        reason: why a person should look at it, in words; empty where nothing is odd.
    """

    norm_ratio: float | None = None
    control_ratio: float | None = None
    others_cosine: float | None = None
    others_median: float | None = None
    own_cosine: float | None = None
    own_median: float | None = None
    reason: str = ""

    @property
    def is_outlier(self) -> bool:
        return bool(self.reason)

    def figures_to_json(self) -> dict[str, float | None]:
        """The figures without the reason, to four digits."""
        figures = asdict(self)
        del figures["reason"]
        return {
            name: None if value is None else float(f"{value:.4g}")
            for name, value in figures.items()
        }


@dataclass
class RunMemory:
    """What a run remembers from round to round, to screen by.

    Attributes:
        held_since: hospitals of which an update waits for a decision, and its round: whoever was
            odd once could otherwise be odd again in a way that does not show.
        last_counted: each hospital's last change of the parameters that counted.
    """

    held_since: dict[str, int] = field(default_factory=dict)
    last_counted: dict[str, Params] = field(default_factory=dict)


def screens_directions(plan: TrainingPlan) -> bool:
    """Whether it is odd to point away from the others.

    Nodes of readings of different kinds measure different things: what one learns says nothing
    about where another should go, so that only their lengths are compared.
    """
    return plan.dataset != READINGS


def screen_round(
    plan: TrainingPlan,
    updates: Callable[[], Iterable[ClientUpdate]],
    *,
    last_counted: Callable[[str], Params | None],
    held_since: Mapping[str, int],
    trusted: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Screening]:
    """Compare a round's updates, and say of each, by client id, what is odd about it.

    One update is in memory at a time, with a float64 sum of directions and one earlier update; sums
    are float64, in the order given, without BLAS, whose order of addition differs by machine.

    Args:
        updates: gives the round's updates, sorted by client id; called twice.
        last_counted: the change that a hospital's last counted update in this run made.
        held_since: hospitals of which an earlier update waits for a decision, and its round. They
            are no measure for the others.
        trusted: hospitals that a person has vouched for, and the longest `norm_ratio` that this
            person looked at. They may point anywhere and be twice as long as that: trust in what
            was seen is no trust without a limit.
    """
    norms: dict[str, float] = {}
    control_norms: dict[str, float] = {}
    sum_of_directions: dict[str, Array] = {}
    for update in updates():
        name = update.client_id
        norms[name] = _norm(update.delta_params)
        if update.delta_control:
            control_norms[name] = _norm(update.delta_control)
        if name not in held_since:
            for key in sorted(update.delta_params):
                if key not in sum_of_directions:
                    sum_of_directions[key] = np.zeros(update.delta_params[key].shape)
                for part, added in in_parts(sum_of_directions[key], update.delta_params[key]):
                    part += _divided(added, norms[name])
        del update  # else it would be in memory while the next one is read
    peers = [name for name in norms if name not in held_since]
    found = {name: Screening() for name in norms}
    if len(peers) >= MIN_SCREENED:
        others_cosine: dict[str, float] = {}
        own_cosine: dict[str, float] = {}
        for update in updates():
            name = update.client_id
            others_cosine[name] = _cosine_with_others(
                update.delta_params, norms[name], sum_of_directions, is_summed=name in peers
            )
            before = last_counted(name)
            if before is not None:
                own_cosine[name] = _cosine(update.delta_params, norms[name], before)
            del update, before
        for name in norms:
            others = [peer for peer in peers if peer != name]
            screening = Screening(
                norm_ratio=_ratio(norms, name, others),
                control_ratio=_ratio(control_norms, name, others),
                others_cosine=others_cosine[name],
                others_median=_median(others_cosine, others),
                own_cosine=own_cosine.get(name),
                own_median=_median(own_cosine, others),
            )
            reason = _what_is_odd(plan, screening, trusted_ratio=trusted.get(name))
            found[name] = replace(screening, reason=reason)
    for name, round_number in held_since.items():
        if name in found:
            found[name] = replace(found[name], reason=_still_held(round_number, found[name]))
    return found


def _what_is_odd(plan: TrainingPlan, found: Screening, *, trusted_ratio: float | None) -> str:
    reasons = []
    is_trusted = trusted_ratio is not None
    for ratio, limit, what in _lengths(found, trusted_ratio):
        if ratio is not None and ratio > limit:
            reasons.append(
                f"its {what} is {_times(ratio)} as long as the others' (the upper quartile; up to"
                f" {limit:g} times is usual)"
            )
    is_short = found.norm_ratio is not None and found.norm_ratio < SHORT
    if screens_directions(plan) and not is_short and not is_trusted:
        # With control variates, which take a hospital's own pull out, what is left may turn.
        turns_freely = strategy_named(plan.strategy).uses_controls
        if found.own_cosine is None and _opposes(found.others_cosine, found.others_median):
            reasons.append(
                f"it points away from the others: its cosine with their direction is"
                f" {_signed(found.others_cosine)}, where their own median is"
                f" {_signed(found.others_median)}"
            )
        if not turns_freely and _opposes(found.own_cosine, found.own_median):
            reasons.append(
                f"it has turned round: its cosine with its own last update is"
                f" {_signed(found.own_cosine)}, where the others' median is"
                f" {_signed(found.own_median)}"
            )
    return "; ".join(reasons)


def _lengths(
    found: Screening, trusted_ratio: float | None
) -> Iterator[tuple[float | None, float, str]]:
    """What is compared by length: the ratio, up to where it is usual, and what it is of."""
    factor = max(1.0, TRUSTED * (trusted_ratio or 0.0) / LONGEST)
    yield found.norm_ratio, factor * LONGEST, "change"
    yield found.control_ratio, factor * LONGEST_CONTROL, "control variate's change"


def is_beyond_trust(found: Screening, trusted_ratio: float) -> bool:
    """Whether an update is far longer than what a person has vouched for."""
    return any(
        ratio is not None and ratio > limit for ratio, limit, _ in _lengths(found, trusted_ratio)
    )


def _opposes(cosine: float | None, median_of_others: float | None) -> bool:
    if cosine is None or median_of_others is None:
        return False
    return cosine < -COSINE and median_of_others > COSINE


def _still_held(round_number: int, found: Screening) -> str:
    held = f"its update of round {round_number} waits for a decision, and this one with it"
    return f"{held}; {found.reason}" if found.reason else held


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.2f}".replace("-", "−")


def _times(ratio: float) -> str:
    return f"{ratio:,.1f} times" if ratio < 1000 else "over 1,000 times"


def _norm(params: Params) -> float:
    squares = (
        np.square(part.astype(np.float64)).sum()
        for name in sorted(params)
        for (part,) in in_parts(params[name])
    )
    return float(np.sqrt(sum(squares)))


def _divided(value: NDArray[Any], norm: float) -> Array:
    """Part of a direction; that of no change at all is zero."""
    return value.astype(np.float64) / (norm or 1.0)


def _cosine(params: Params, norm: float, other: Params) -> float:
    other_norm = _norm(other)
    return sum(
        float((_divided(part, norm) * _divided(other_part, other_norm)).sum())
        for name in sorted(params)
        for part, other_part in in_parts(params[name], other[name])
    )


def _cosine_with_others(
    params: Params, norm: float, sum_of_directions: Mapping[str, Array], *, is_summed: bool
) -> float:
    along, square = 0.0, 0.0
    for name in sorted(params):
        for part, others in in_parts(params[name], sum_of_directions[name]):
            direction = _divided(part, norm)
            if is_summed:
                others = others - direction
            along += float((direction * others).sum())
            square += float(np.square(others).sum())
    return along / np.sqrt(square) if square > 0 else 0.0


def _ratio(norms: Mapping[str, float], name: str, others: Iterable[str]) -> float | None:
    """None where it is not known, or the others have hardly moved at all."""
    known = [norms[other] for other in others if other in norms]
    if name not in norms or not known:
        return None
    usual = _upper_quartile(known)
    return norms[name] / usual if usual > 0 else None


def _upper_quartile(values: Sequence[float]) -> float:
    """Between the two nearest, in proportion; `np.quantile` takes longer than a round's training."""
    ranked = sorted(values)
    below, share = divmod(0.75 * (len(ranked) - 1), 1)
    low, high = ranked[int(below)], ranked[min(int(below) + 1, len(ranked) - 1)]
    return low + (high - low) * share


def _median(figures: Mapping[str, float], others: Iterable[str]) -> float | None:
    known = [figures[other] for other in others if other in figures]
    return statistics.median(known) if known else None
