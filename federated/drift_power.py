"""How often a drift check is wrong: measured, by `make drift-power`.

Reference and newest readings are drawn anew for each check from one pool of a node's readings, with
replacement, so that nothing has drifted unless it is made to.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from federated.drift import MIN_COMPARED, compare, compare_all, distribution, distributions
from federated.readings import INPUT_NAMES, INPUTS, ReadingRecord
from federated.seeds import rng_for

MOST_FALSE_ALARMS = 0.05  # of checks without drift
LEAST_DETECTED = 0.95  # of checks with a shift of one input
SHIFT = 0.5  # standard deviations
SHIFTED_READINGS = 500
NUM_TRAINED_ON = (500, 1400)  # the fewest that serve as a reference; 70 % of 2,000
NUM_NEWEST = (100, 500, 10_000)


@dataclass(frozen=True)
class Pool:
    """Readings to draw from.

    Attributes:
        values: (num_rows, len(INPUT_NAMES)), NaN where not measured.
        people: (num_rows,), a number of whom each is.
    """

    name: str
    values: NDArray[np.float64]
    people: NDArray[np.int64]

    @property
    def has_repeats(self) -> bool:
        """Whether some readings are of one person, and so not independent of each other."""
        return len(np.unique(self.people)) < len(self.people)

    @cached_property
    def _rows_of(self) -> list[list[int]]:
        """Of each person; a pool keeps them together."""
        starts = np.flatnonzero(np.diff(self.people)) + 1
        return [rows.tolist() for rows in np.split(np.arange(len(self.people)), starts)]

    def draw(
        self, rng: np.random.Generator, num_rows: int, *, whole_people: bool = False
    ) -> NDArray[np.float64]:
        """(num_rows, len(INPUT_NAMES)), with replacement; row by row, or all of a person's."""
        if not whole_people:
            return self.values[rng.integers(len(self.values), size=num_rows)]
        rows: list[int] = []
        while len(rows) < num_rows:
            rows.extend(self._rows_of[rng.integers(len(self._rows_of))])
        return self.values[rows[:num_rows]]


def make_pool(name: str, records: Iterable[ReadingRecord]) -> Pool:
    found = sorted(records, key=lambda record: record.subject_id)
    numbers: dict[str, int] = {}
    people = [numbers.setdefault(record.subject_id, len(numbers)) for record in found]
    values = [[record.values.get(name, np.nan) for name in INPUT_NAMES] for record in found]
    return Pool(name, np.array(values, np.float64), np.array(people, np.int64))


@dataclass(frozen=True)
class FalseAlarms:
    """Checks without drift, and how many of them gave an alert."""

    pool: str
    num_trained_on: int
    num_newest: int
    num_checks: int
    num_alerts: int
    whole_people: bool = False

    @property
    def rate(self) -> float:
        return self.num_alerts / self.num_checks


@dataclass(frozen=True)
class Detection:
    """Checks of which one input was shifted, and how many gave an alert for it."""

    pool: str
    input_name: str
    num_trained_on: int
    num_checks: int
    num_alerts: int

    @property
    def rate(self) -> float:
        return self.num_alerts / self.num_checks


def false_alarms(
    pool: Pool,
    *,
    num_trained_on: int,
    num_newest: int,
    num_checks: int,
    seed: int,
    whole_people: bool = False,
) -> FalseAlarms:
    rng = rng_for("drift-power", pool.name, num_trained_on, num_newest, seed)
    num_alerts = 0
    for _ in range(num_checks):
        reference = distributions(pool.draw(rng, num_trained_on, whole_people=whole_people))
        newest = pool.draw(rng, num_newest, whole_people=whole_people)
        found = compare_all(reference, newest)
        num_alerts += any(each.is_alert for each in found.values())
    return FalseAlarms(pool.name, num_trained_on, num_newest, num_checks, num_alerts, whole_people)


def detections(pool: Pool, *, num_trained_on: int, num_checks: int, seed: int) -> list[Detection]:
    """Of each input that enough of the readings know, shifted up in one half of the checks."""
    found = []
    for column, each in enumerate(INPUTS):
        known = ~np.isnan(pool.values[:, column])
        if known.mean() * SHIFTED_READINGS < MIN_COMPARED:
            continue
        rng = rng_for("drift-power", pool.name, each.name, num_trained_on, seed)
        deviation = float(pool.values[known, column].std())
        num_alerts = 0
        for number in range(num_checks):
            reference = distribution(each.name, pool.draw(rng, num_trained_on)[:, column])
            newest = pool.draw(rng, SHIFTED_READINGS)[:, column]
            if each.is_flag:
                newest = _flag_shifted(rng, newest, SHIFT * deviation)
            else:
                newest = newest + SHIFT * deviation * (1 if number % 2 else -1)
            num_alerts += compare(each.name, reference, newest).is_alert
        found.append(Detection(pool.name, each.name, num_trained_on, num_checks, num_alerts))
    return found


def _flag_shifted(
    rng: np.random.Generator, flags: NDArray[np.float64], by: float
) -> NDArray[np.float64]:
    """Some of the commoner answers turned over, so that the rarer one's share rises by that much."""
    share = float(np.nanmean(flags))
    rarer = 1.0 if share < 0.5 else 0.0
    others = 1 - share if rarer else share
    turned = (flags == 1 - rarer) & (rng.random(len(flags)) < by / others)
    return np.where(turned, rarer, flags)


def table(alarms: list[FalseAlarms], found: list[Detection]) -> Iterator[str]:
    """Both kinds of rates, and whether they pass the two bars."""
    width = max(len(name) for name in [each.pool for each in alarms] + ["readings"])
    yield f"Checks without drift; bar: alerts in at most {MOST_FALSE_ALARMS:.0%}"
    yield f"{'readings':{width}}  {'trained on':>10}  {'newest':>7}  {'checks':>7}  {'alerts':>7}"
    for alarm in alarms:
        note = "  whole people drawn: no bar" if alarm.whole_people else ""
        yield (
            f"{alarm.pool:{width}}  {alarm.num_trained_on:>10,}  {alarm.num_newest:>7,}"
            f"  {alarm.num_checks:>7,}  {alarm.rate:>7.2%}{note}"
        )
    yield ""
    yield (
        f"One input shifted by {SHIFT:g} standard deviations in {SHIFTED_READINGS} readings;"
        f" bar: an alert for it in at least {LEAST_DETECTED:.0%}"
    )
    yield f"{'readings':{width}}  {'input':12}  {'trained on':>10}  {'checks':>7}  {'alerts':>7}"
    for each in found:
        yield (
            f"{each.pool:{width}}  {each.input_name:12}  {each.num_trained_on:>10,}"
            f"  {each.num_checks:>7,}  {each.rate:>7.2%}"
        )
    yield ""
    most = max(alarm.rate for alarm in alarms if not alarm.whole_people)
    least = min(each.rate for each in found)
    yield (
        f"Most false alarms {most:.2%}: {'passes' if most <= MOST_FALSE_ALARMS else 'MISSES'}"
        f" {MOST_FALSE_ALARMS:.0%}. Least detected {least:.2%}:"
        f" {'passes' if least >= LEAST_DETECTED else 'MISSES'} {LEAST_DETECTED:.0%}."
    )
