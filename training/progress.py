"""What the page of a run shows, read in a number of queries that does not grow with the run.

A doctor sees how far every hospital is, but counts, metrics and reasons of their own hospital only
(`Envoy.objects.visible_to`); who runs the federation sees them all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from django.db.models import Count, Exists, OuterRef, QuerySet, Subquery
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from diagnoses.models import Snapshot
from envoys.models import Envoy, User
from federated.intervals import MAX_PLACES
from federated.suppression import suppress
from federated.words import Words
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    RunQuerySet,
    TrainingRound,
    TrainingRun,
)

TITLES = {
    "rule_of_thumb": "Rule of thumb",
    "local": "Local",
    "global": "Global",
    "fine_tuned": "Fine-tuned",
    "pooled": "Pooled",
}
NOT_OPEN, SITS_OUT = "NOT_OPEN", "SITS_OUT"
QUARANTINED, REJECTED = "QUARANTINED", "REJECTED"  # what came of an update that was submitted
LATE = "LATE"  # an update of which nothing came
SYMBOLS = {
    RoundAssignment.Status.PENDING.value: "○",
    RoundAssignment.Status.TRAINING.value: "◐",
    RoundAssignment.Status.SUBMITTED.value: "✓",
    RoundAssignment.Status.MISSED.value: "!",
    RoundAssignment.Status.FAILED.value: "✕",
    RoundAssignment.Status.DROPPED.value: "–",
    LATE: "◷",
    QUARANTINED: "?",
    REJECTED: "⊘",
    SITS_OUT: "∅",
    NOT_OPEN: "·",
}
WORDS = {
    **{status.value: str(status.label) for status in RoundAssignment.Status},
    LATE: "Late, not counted",
    QUARANTINED: "In quarantine",
    REJECTED: "Rejected",
    SITS_OUT: "Sits out",
    NOT_OPEN: "Not open yet",
}
MOST_PROBLEMS = 8


@dataclass(frozen=True)
class Cell:
    """One hospital in one round."""

    status: str
    words: str  # what the symbol means here, with attempt or reason
    is_decided: bool = False  # of one that was in quarantine

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.status]

    @property
    def html(self) -> SafeString:
        """As a cell of the matrix: of hundreds nearly all are alike, and a template is slow."""
        return _cell_html(self.status, self.words)

    @property
    def is_problem(self) -> bool:
        return self.status in (
            RoundAssignment.Status.MISSED,
            RoundAssignment.Status.FAILED,
            RoundAssignment.Status.DROPPED,
            LATE,
            QUARANTINED,
            REJECTED,
        )


@lru_cache(maxsize=256)
def _cell_html(status: str, words: str) -> SafeString:
    return format_html(
        '<td title="{}"><span class="sign sign-{}" aria-hidden="true">{}</span>'
        '<span class="visually-hidden">{}</span></td>',
        words,
        status.lower(),
        SYMBOLS[status],
        words,
    )


class AssignmentFacts(NamedTuple):
    """What the matrix shows of an assignment; a row each of hospitals times rounds."""

    envoy_id: int
    training_round_id: int
    status: str
    attempt: int
    reason: str


class Measured(NamedTuple):
    """What the curves show of an update; a row each of hospitals times rounds."""

    num_examples: int
    num_validation: int | None
    train_loss: float | None
    validation_loss: float | None
    validation_auroc: float | None


NOTHING = Measured(0, None, None, None, None)


class HeldUpdate(NamedTuple):
    """An update that screening has set aside, and what came of it."""

    envoy_id: int
    training_round_id: int
    verdict: str
    reason: str

    @property
    def status(self) -> str:
        is_rejected = self.verdict in (
            ReceivedUpdate.Verdict.REJECTED,
            ReceivedUpdate.Verdict.REFUSED,
        )
        return REJECTED if is_rejected else QUARANTINED

    def words(self, is_visible: bool) -> str:
        words = WORDS[self.status]
        if self.verdict == ReceivedUpdate.Verdict.LATE:
            words = "Released from quarantine, too late to count"
        return f"{words}: {self.reason}" if is_visible else words


class LateUpdate(NamedTuple):
    """An update that is kept and does not count."""

    envoy_id: int
    training_round_id: int
    received_at: datetime
    reason: str

    def words(self, assignment: AssignmentFacts, is_visible: bool) -> str:
        words = f"Late, not counted: an update came on {self.received_at:%-d %b at %H:%M:%S} UTC"
        if not is_visible:
            return words
        return f"{words}; {self.reason}. {words_of(assignment, is_visible)}"


@dataclass(frozen=True)
class Freezing:
    """How far a hospital's data is frozen; the percentage only where it may be seen."""

    status: str
    words: str
    percent: int | None


@dataclass(frozen=True)
class HospitalRow:
    name: str
    sits_out: bool
    sits_out_because: str
    is_mandatory: bool
    freezing: Freezing | None
    cells: list[Cell]


@dataclass(frozen=True)
class RoundCount:
    """How many of the hospitals that a run was started with count in a round."""

    num_counted: int
    num_expected: int
    is_settled: bool  # what counted is in the model

    @property
    def is_partial(self) -> bool:
        return self.is_settled and self.num_counted < self.num_expected


@dataclass(frozen=True)
class Missing:
    """A hospital of which a round has no update: since when, if it was asked, and why."""

    name: str
    since: datetime | None
    words: str


@dataclass(frozen=True)
class CurrentRound:
    """The round under way, hospital by hospital."""

    number: int
    opened_at: datetime
    deadline_at: datetime | None
    num_due: int  # also who has come to sit out since the run was started
    num_in: int
    missing: list[Missing]
    waits_because: str  # past its time, for the missing or for a person
    is_closed: bool = False  # to updates: the next model is being made


@dataclass(frozen=True)
class CurvePoint:
    """A row of the table of the curves, in words; a dash is not known."""

    after_round: int
    validation_loss: str
    train_loss: str
    validation_auroc: list[str]

    @property
    def is_known(self) -> bool:
        return {self.validation_loss, self.train_loss, *self.validation_auroc} != {"–"}


@dataclass(frozen=True)
class Curves:
    """Metrics of the global model after each round, as the hospitals measured them.

    A list has one entry per entry of `after_rounds`, None where nothing was measured.
    """

    after_rounds: list[int]
    validation_loss: list[float | None]
    train_loss: list[float | None]
    validation_auroc: dict[str, list[float | None]]  # by hospital
    num_updates: int  # a page that has drawn as many need not fetch the curves again

    def as_json(self) -> dict[str, Any]:
        return {
            "after_rounds": self.after_rounds,
            "validation_loss": self.validation_loss,
            "train_loss": self.train_loss,
            "hospitals": [
                {"name": name, "validation_auroc": values}
                for name, values in self.validation_auroc.items()
            ],
        }

    def table(self) -> list[CurvePoint]:
        """The same numbers in rows, without the rounds that nothing is known of."""
        points = [
            CurvePoint(
                after_round=number,
                validation_loss=_number(self.validation_loss[index], 4),
                train_loss=_number(self.train_loss[index], 4),
                validation_auroc=[
                    _number(values[index], 3) for values in self.validation_auroc.values()
                ],
            )
            for index, number in enumerate(self.after_rounds)
        ]
        return [point for point in points if point.is_known]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class ReportRow:
    name: str
    num_examples: str
    rule_of_thumb: float | None
    local: float | None
    global_model: float | None
    fine_tuned: float | None
    pooled: float | None
    local_interval: dict[str, float] | None  # "low" and "high"
    global_interval: dict[str, float] | None
    fine_tuned_interval: dict[str, float] | None
    difference: dict[str, float] | None  # of what the hospital gains: "estimate", "low", "high"
    sentence: str  # the gain in words
    fine_tuned_sentence: str  # what fine-tuning adds to it

    @property
    def gain(self) -> float | None:
        """What the hospital gains over training alone."""
        if self.global_model is None or self.local is None:
            return None
        return self.global_model - self.local

    @property
    def is_told_gain(self) -> bool:
        """Whether it is more than chance, as the sentence says."""
        low = self.difference["low"] if self.difference else 0.0
        return round(low, MAX_PLACES) > 0


@dataclass(frozen=True)
class CountRow:
    """A row of a table of patients; a count that is hidden is a dash."""

    name: str
    counts: list[str]


@dataclass(frozen=True)
class RankingRow:
    """A model's figures, or a difference, from the score histograms that hospitals exchange.

    Attributes:
        auroc, auprc: "value", the "low" and "high" that binning may have cost, and "interval", the
            95 % one; a difference has "value" and "interval" alone. None is not defined.
    """

    title: str
    auroc: dict[str, Any] | None
    auprc: dict[str, Any] | None


@dataclass(frozen=True)
class ReportDetails:
    """The global model on all test patients together, as a report has it."""

    calibration: list[dict[str, Any]]  # by class: slope, intercept and the curve's bins
    classes: list[str]
    confusion: list[CountRow]  # by class, the total last; empty where a cell is too small
    macro_f1: float | None
    macro_f1_interval: dict[str, float] | None
    accuracy: float | None
    from_histograms: list[RankingRow]
    subgroups: list[tuple[str, list[dict[str, Any]]]]  # by title

    @property
    def has_many_classes(self) -> bool:
        """Whether figures are over several classes, and the Brier score up to 2."""
        return len(self.classes) > 2


@dataclass(frozen=True)
class RunProgress:
    run: TrainingRun
    shows_all_hospitals: bool
    num_rounds_done: int
    current_round: CurrentRound | None
    num_frozen: int
    rounds: list[TrainingRound | None]  # one per column, None where it is not open
    counts: list[RoundCount | None]  # one per column, as the rounds
    hospitals: list[HospitalRow]
    curves: Curves
    report_rows: list[ReportRow]
    pooled_row: ReportRow | None
    report_details: ReportDetails | None

    @property
    def sentences(self) -> list[ReportRow]:
        """The rows whose gain is told in words, all patients together first."""
        rows = [self.pooled_row] if self.pooled_row else []
        return [row for row in [*rows, *self.report_rows] if row.sentence]

    @property
    def num_taking_part(self) -> int:
        return sum(not hospital.sits_out for hospital in self.hospitals)

    @property
    def sitting_out(self) -> list[HospitalRow]:
        return [hospital for hospital in self.hospitals if hospital.sits_out]

    @property
    def reason(self) -> str:
        """Why the run ended; a failure's reason may quote those of other hospitals."""
        if self.shows_all_hospitals or self.run.status != TrainingRun.Status.FAILED:
            return self.run.reason
        return "Ask a data scientist why: the reason may speak of other hospitals."

    @property
    def problems(self) -> list[str]:
        """The newest assignments without an update, as a sentence each."""
        problems = [
            f"Round {number}, {hospital.name}: {hospital.cells[number].words}"
            for number in reversed(range(len(self.rounds)))
            for hospital in self.hospitals
            if hospital.cells[number].is_problem
        ]
        return problems[:MOST_PROBLEMS]

    @property
    def num_expected(self) -> int:
        """Hospitals that the run was started with."""
        return sum(hospital.freezing is not None for hospital in self.hospitals)

    @property
    def mandatory(self) -> list[str]:
        return [hospital.name for hospital in self.hospitals if hospital.is_mandatory]

    @property
    def num_partial_rounds(self) -> int:
        return sum(count is not None and count.is_partial for count in self.counts)

    @property
    def in_quarantine(self) -> list[str]:
        """Whose updates wait for a decision, each once."""
        return [
            hospital.name
            for hospital in self.hospitals
            if any(cell.status == QUARANTINED and not cell.is_decided for cell in hospital.cells)
        ]

    @property
    def waits_because(self) -> str:
        """Why the newest round does not go on before somebody has decided; empty if it does."""
        opened = [training_round for training_round in self.rounds if training_round]
        if not (self.run.is_active and opened and opened[-1].is_waiting):
            return ""
        if self.shows_all_hospitals:
            return opened[-1].reason
        return "the round waits for a data scientist, who decides on what is in quarantine"

    @property
    def waits_for_person(self) -> bool:
        waits_for_missing = self.current_round is not None and self.current_round.waits_because
        return bool(self.waits_because or waits_for_missing)

    @property
    def legend(self) -> list[Cell]:
        return [Cell(status, words) for status, words in WORDS.items()]

    @property
    def elapsed(self) -> str:
        return in_words((self.run.finished_at or timezone.now()) - self.run.started_at)


def in_words(duration: timedelta) -> str:
    seconds = max(0, int(duration.total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def with_counts(runs: RunQuerySet) -> RunQuerySet:
    """Runs with `num_rounds_done`, `num_partial_rounds` and `num_hospitals` that take part."""
    done = TrainingRound.objects.filter(status=TrainingRound.Status.AGGREGATED, number__gte=1)
    return runs.annotate(  # type: ignore[no-redef]
        num_rounds_done=count_per_run(done),
        num_hospitals=count_per_run(RunParticipant.objects.filter(sits_out_because="")),
        num_partial_rounds=count_per_run(TrainingRound.objects.partial()),
        waits_for_person=Exists(
            TrainingRound.objects.waits_for_person().filter(run=OuterRef("pk"))
        ),
    )


def count_per_run(rows: QuerySet[Any]) -> Coalesce:
    # A subquery each: two joins would count the product of rounds and hospitals.
    counts = rows.filter(run=OuterRef("pk")).order_by().values("run").annotate(count=Count("pk"))
    return Coalesce(Subquery(counts.values("count")), 0)


def progress_of(run: TrainingRun, user: User) -> RunProgress:
    visible_ids = set(Envoy.objects.visible_to(user).values_list("pk", flat=True))
    participants = list(run.participants.select_related("envoy", "snapshot"))
    rounds = {training_round.number: training_round for training_round in run.rounds.all()}
    rows = RoundAssignment.objects.filter(training_round__run=run).order_by()
    assignments = {
        row[:2]: AssignmentFacts(*row) for row in rows.values_list(*AssignmentFacts._fields)
    }
    held, late = uncounted_updates(run)
    columns = [rounds.get(number) for number in range(max([run.num_rounds, *rounds]) + 1)]
    hospitals = [
        hospital_row(
            participant, columns, assignments, held, late, participant.envoy_id in visible_ids
        )
        for participant in participants
    ]
    report_rows, pooled_row = report_of(
        run, [p.envoy for p in participants if p.envoy_id in visible_ids]
    )
    return RunProgress(
        run=run,
        shows_all_hospitals=all(p.envoy_id in visible_ids for p in participants),
        num_rounds_done=sum(
            r.number >= 1 and r.status == TrainingRound.Status.AGGREGATED for r in rounds.values()
        ),
        current_round=current_round(run, rounds, participants, assignments, visible_ids),
        num_frozen=sum(
            p.snapshot is not None and p.snapshot.status == Snapshot.Status.COMPLETE
            for p in participants
        ),
        rounds=columns,
        counts=round_counts(columns, hospitals, participants),
        hospitals=hospitals,
        curves=curves_of(run, participants, rounds, visible_ids),
        report_rows=report_rows,
        pooled_row=pooled_row,
        report_details=report_details(run),
    )


def uncounted_updates(
    run: TrainingRun,
) -> tuple[dict[tuple[int, int], HeldUpdate], dict[tuple[int, int], LateUpdate]]:
    """By hospital and round: what screening has set aside, and the newest that came too late.

    Late is what came of a hospital that has no other update in the round.
    """
    held, late = {}, {}
    updates = (
        ReceivedUpdate.objects.filter(assignment__training_round__run=run)
        .exclude(verdict=ReceivedUpdate.Verdict.ACCEPTED)
        .order_by("received_at", "pk")
    )
    for (
        envoy_id,
        round_id,
        status,
        verdict,
        reason,
        screening,
        received_at,
    ) in updates.values_list(
        "assignment__envoy_id",
        "assignment__training_round_id",
        "assignment__status",
        "verdict",
        "reason",
        "screening",
        "received_at",
    ):
        if screening:
            held[envoy_id, round_id] = HeldUpdate(envoy_id, round_id, verdict, reason)
        is_late = verdict == ReceivedUpdate.Verdict.LATE
        if is_late and status != RoundAssignment.Status.SUBMITTED:
            late[envoy_id, round_id] = LateUpdate(envoy_id, round_id, received_at, reason)
    return held, late


def round_counts(
    columns: list[TrainingRound | None],
    hospitals: list[HospitalRow],
    participants: list[RunParticipant],
) -> list[RoundCount | None]:
    """What was submitted and is not set aside counts."""
    num_expected = sum(participant.snapshot_id is not None for participant in participants)
    counts: list[RoundCount | None] = []
    for number, training_round in enumerate(columns):
        cells = [hospital.cells[number] for hospital in hospitals]
        num_counted = sum(cell.status == RoundAssignment.Status.SUBMITTED for cell in cells)
        is_settled = bool(
            training_round and training_round.status == TrainingRound.Status.AGGREGATED
        )
        count = RoundCount(num_counted, num_expected, is_settled) if training_round else None
        counts.append(count)
    return counts


def hospital_row(
    participant: RunParticipant,
    columns: list[TrainingRound | None],
    assignments: dict[tuple[int, int], AssignmentFacts],
    held: dict[tuple[int, int], HeldUpdate],
    late: dict[tuple[int, int], LateUpdate],
    is_visible: bool,
) -> HospitalRow:
    sits_out = bool(participant.sits_out_because)
    cells = []
    for training_round in columns:
        if training_round is None:
            cells.append(Cell(NOT_OPEN, WORDS[NOT_OPEN]))
            continue
        key = (participant.envoy_id, training_round.pk)
        assignment = assignments.get(key)
        if assignment is None:
            cells.append(Cell(SITS_OUT, WORDS[SITS_OUT]))
        elif key in held:
            is_decided = held[key].verdict != ReceivedUpdate.Verdict.QUARANTINED
            cells.append(Cell(held[key].status, held[key].words(is_visible), is_decided))
        elif key in late:
            cells.append(Cell(LATE, late[key].words(assignment, is_visible)))
        else:
            cells.append(Cell(assignment.status, words_of(assignment, is_visible)))
    return HospitalRow(
        name=participant.envoy.name,
        sits_out=sits_out,
        sits_out_because=participant.sits_out_because if is_visible else "",
        is_mandatory=participant.is_mandatory,
        freezing=freezing_of(participant.snapshot, is_visible) if participant.snapshot else None,
        cells=cells,
    )


def words_of(assignment: AssignmentFacts, is_visible: bool) -> str:
    words = WORDS[assignment.status]
    if assignment.attempt > 1:
        words += f", attempt {assignment.attempt}"
    if assignment.reason and is_visible:
        words += f": {assignment.reason}"
    return words


def freezing_of(snapshot: Snapshot, is_visible: bool) -> Freezing:
    words = {"PENDING": "Waiting", "RUNNING": "Freezing", "COMPLETE": "Frozen", "FAILED": "Failed"}
    percent = None
    if is_visible and snapshot.status == Snapshot.Status.RUNNING and snapshot.num_total:
        percent = snapshot.percent
    detail = f": {snapshot.reason}" if snapshot.reason and is_visible else ""
    return Freezing(snapshot.status, words[snapshot.status] + detail, percent)


def current_round(
    run: TrainingRun,
    rounds: dict[int, TrainingRound],
    participants: list[RunParticipant],
    assignments: dict[tuple[int, int], AssignmentFacts],
    visible_ids: set[int],
) -> CurrentRound | None:
    if not run.is_active or not rounds:
        return None
    newest = rounds[max(rounds)]
    is_closed = newest.status == TrainingRound.Status.CLOSED and not newest.reason
    if newest.status != TrainingRound.Status.COLLECTING and not is_closed:
        return None
    expected = [participant for participant in participants if participant.snapshot_id]
    missing = []
    for participant in expected:
        assignment = assignments.get((participant.envoy_id, newest.pk))
        is_visible = participant.envoy_id in visible_ids
        if assignment is None:
            because = f": {participant.sits_out_because}" if is_visible else ""
            missing.append(Missing(participant.envoy.name, None, f"sits out{because}"))
        elif assignment.status != RoundAssignment.Status.SUBMITTED:
            missing.append(missing_hospital(participant, newest, assignment, is_visible))
    return CurrentRound(
        number=newest.number,
        opened_at=newest.opened_at,
        deadline_at=newest.deadline_at,
        num_due=len(expected),
        num_in=len(expected) - len(missing),
        missing=missing,
        waits_because=newest.reason,
        is_closed=is_closed,
    )


def missing_hospital(
    participant: RunParticipant,
    training_round: TrainingRound,
    assignment: AssignmentFacts,
    is_visible: bool,
) -> Missing:
    name = participant.envoy.name
    words = words_of(assignment, is_visible)
    words = words[:1].lower() + words[1:]
    if assignment.status == RoundAssignment.Status.TRAINING and assignment.attempt > 1:
        words = f"retrying, attempt {assignment.attempt}"
    assert participant.snapshot is not None
    # In manual mode hospitals join a round that is open: their data is frozen as they do.
    return Missing(name, max(training_round.opened_at, participant.snapshot.created_at), words)


def curves_of(
    run: TrainingRun,
    participants: list[RunParticipant],
    rounds: dict[int, TrainingRound],
    visible_ids: set[int],
) -> Curves:
    """Curves of the hospitals that may be seen; a mean only of a round that has closed."""
    updates = ReceivedUpdate.objects.filter(
        assignment__training_round__run=run,
        assignment__training_round__number__gte=1,
        assignment__envoy__in=visible_ids,
        verdict=ReceivedUpdate.Verdict.ACCEPTED,
    )
    measured: dict[int, dict[int, Measured]] = {}  # round number -> envoy -> metrics
    for envoy_id, number, *values in updates.values_list(
        "assignment__envoy_id",
        "assignment__training_round__number",
        "num_examples",
        # Not `metrics__...`: what Django makes of that keeps this call's frames in a cycle, and so
        # all that a page has read, until the collector comes by.
        *(KeyTransform(name, "metrics") for name in Measured._fields[1:]),
    ):
        measured.setdefault(number, {})[envoy_id] = Measured(*values)
    numbers = range(1, max([run.num_rounds, *rounds]) + 1)
    # A mean over who is in so far would jump with every hospital that comes in.
    settled = [
        list(measured.get(number, {}).values())
        if number in rounds and rounds[number].status != TrainingRound.Status.COLLECTING
        else []
        for number in numbers
    ]
    return Curves(
        after_rounds=[number - 1 for number in numbers],  # measured before the round's training
        validation_loss=[weighted(m, "validation_loss", "num_validation") for m in settled],
        train_loss=[weighted(m, "train_loss", "num_examples") for m in settled],
        validation_auroc={
            participant.envoy.name: [
                measured.get(number, {}).get(participant.envoy_id, NOTHING).validation_auroc
                for number in numbers
            ]
            for participant in participants
            if participant.envoy_id in visible_ids and not participant.sits_out_because
        },
        num_updates=sum(map(len, measured.values())) + sum(bool(metrics) for metrics in settled),
    )


def weighted(metrics: Iterable[Measured], name: str, weight_name: str) -> float | None:
    values = [(getattr(m, name), getattr(m, weight_name)) for m in metrics]
    pairs = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def report_of(
    run: TrainingRun, visible_envoys: list[Envoy]
) -> tuple[list[ReportRow], ReportRow | None]:
    """The report's hospitals that may be seen, and the figures on all test patients together."""
    if not run.report:
        return [], None
    words = run.study.words
    names = {name: envoy.name for envoy in visible_envoys for name in envoy.known_as}
    benefit = run.report.get("benefit", {"envoys": [], "pooled_test": {}})
    gains = {gain["name"]: gain for gain in benefit["envoys"]}
    entries = [entry for entry in run.report["envoys"] if entry["name"] in names]
    counts, total = examples_in_words(run.report)
    if len(entries) < len(run.report["envoys"]):  # a doctor, who sees the own hospital and no total
        total = ""
    rows = [
        report_row(
            names[entry["name"]],
            entry,
            gains.get(entry["name"], {}),
            counts[entry["name"]],
            words,
        )
        for entry in entries
    ]
    pooled = run.report["pooled_test"]
    return rows, report_row(
        f"All test {words.people} together", pooled, benefit["pooled_test"], total, words
    )


def examples_in_words(report: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Admissions trained on, by the hospital's name in the report, and of all hospitals.

    A dash where a count would tell of a few. A report hides such counts itself; one made before it
    did has them all, and they are hidden here.
    """
    counts = {entry["name"]: entry.get("num_examples") for entry in report["envoys"]}
    total = report.get("num_examples")
    if counts and None not in counts.values():
        table = suppress(np.array(list(counts.values()), np.int64))
        counts, total = dict(zip(counts, table.cells, strict=True)), table.total
    return {name: shown(count) for name, count in counts.items()}, shown(total)


def report_row(
    name: str, entry: dict[str, Any], gain: dict[str, Any], num_examples: str, words: Words
) -> ReportRow:
    """A hospital's figures; `gain` is empty in a report made before there were intervals."""

    def auroc(model: str) -> float | None:
        metrics = entry.get(model)
        return metrics["auroc"] if metrics and not is_too_small(gain) else None

    intervals = gain.get("intervals", {})
    return ReportRow(
        name=name,
        num_examples=num_examples,
        rule_of_thumb=auroc("rule_of_thumb"),
        local=auroc("local"),
        global_model=auroc("global"),
        fine_tuned=auroc("fine_tuned"),
        pooled=auroc("pooled"),
        local_interval=intervals.get("local"),
        global_interval=intervals.get("global"),
        fine_tuned_interval=intervals.get("fine_tuned"),
        difference=gain.get("difference"),
        sentence=words.instead(gain.get("sentence", "")),
        fine_tuned_sentence=words.instead(gain.get("fine_tuned_sentence", "")),
    )


def is_too_small(gain: dict[str, Any]) -> bool:
    """Whether a hospital was tested on so few patients that no figure of them is shown."""
    return not gain.get("has_enough_patients", True)


def report_details(run: TrainingRun) -> ReportDetails | None:
    """What a report says of all test patients together; None if it was made before it did."""
    if not run.report or "confusion" not in run.report:
        return None
    confusion = run.report["confusion"]
    # Beside accuracy a matrix is shown whole or not at all; older reports hide single cells.
    is_whole = all(count is not None for row in confusion["cells"] for count in row)
    names = [*confusion["classes"], "Total"]
    cells = [*confusion["cells"], confusion["column_totals"]]
    totals = [*confusion["row_totals"], confusion["total"]]
    subgroups = run.report["subgroups"]
    return ReportDetails(
        calibration=[
            {**line, "curve": [{**b, "count": shown(b["num_admissions"])} for b in line["curve"]]}
            for line in run.report["calibration"]
        ],
        classes=confusion["classes"],
        confusion=[
            CountRow(name, [shown(count) for count in [*row, total]])
            for name, row, total in zip(names, cells, totals, strict=True)
            if is_whole
        ],
        macro_f1=confusion["macro_f1"] if is_whole else None,
        macro_f1_interval=confusion.get("macro_f1_interval") if is_whole else None,
        accuracy=(run.report["pooled_test"].get("global") or {}).get("accuracy"),
        from_histograms=ranking_rows(run.report.get("from_histograms", {})),
        subgroups=[
            (title, [{**group, "count": shown(group["num_patients"])} for group in subgroups[key]])
            for title, key in (("Age", "age"), ("Sex", "sex"))
        ],
    )


def ranking_rows(from_histograms: dict[str, Any]) -> list[RankingRow]:
    """The models of which there is a figure, then global minus local.

    A report made before it had every model has the global one's alone.
    """
    figures = {key: from_histograms.get(key) or {} for key in ("auroc", "auprc")}
    by_model = {
        key: figure.get("by_model", {"global": figure} if figure else {})
        for key, figure in figures.items()
    }
    rows = [
        RankingRow(title, by_model["auroc"].get(model), by_model["auprc"].get(model))
        for model, title in TITLES.items()
        if any(model in of_models for of_models in by_model.values())
    ]
    differences = {
        key: {"value": found["estimate"], "interval": found}
        for key, figure in figures.items()
        if (found := figure.get("difference"))
    }
    if differences:
        rows.append(
            RankingRow("Global minus local", differences.get("auroc"), differences.get("auprc"))
        )
    return rows


def histograms_in_words(binned: dict[str, float]) -> str:
    """A figure from score histograms with its bounds, after the figure's name."""
    value, low, high = (f"{binned[key]:.3f}" for key in ("value", "low", "high"))
    return f"over all hospitals from exchanged score histograms {value} ({low} to {high} possible)"


def shown(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"
