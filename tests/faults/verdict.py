"""What became of a run, and what runs under faults have lost against one without."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.models import ReceivedUpdate

Round = tuple[int, str, str, tuple[str, ...]]  # number, status, sha256, whose updates counted
Version = tuple[str, str, str]  # kind, hospital or nothing, sha256 of the parameters


@dataclass(frozen=True)
class Ended:
    """A run that is over, and the work that follows it: what it made, and what is gone of that."""

    pk: int
    seconds: float
    status: str
    notes: str  # of the run or its report: what they could not do
    final_sha256: str
    rounds: tuple[Round, ...]
    versions: tuple[Version, ...]
    lost: tuple[str, ...]  # what is not as it was recorded, in words


def look_at(run_id: int, seconds: float) -> Ended:
    """Read rows and objects of a run that is over; its models are made again.

    Raises StorageError: storage is out of reach.
    """
    from training.models import ReceivedUpdate, RunReport, TrainingRun
    from training.services.checking import Findings, check_runs

    found = Findings()
    for _ in check_runs(found, [run_id]):
        pass
    run = TrainingRun.objects.get(pk=run_id)
    counted = ReceivedUpdate.objects.filter(
        assignment__training_round__run=run, verdict=ReceivedUpdate.Verdict.ACCEPTED
    ).select_related("assignment__envoy")
    by_round: dict[int, list[str]] = {}
    lost = list(found.problems)
    for update in counted:
        assignment = update.assignment
        by_round.setdefault(assignment.training_round_id, []).append(assignment.envoy.slug)
        lost += _lost_state(update)
    rounds = tuple(
        (each.number, each.status, each.result_sha256, tuple(sorted(by_round.get(each.pk, ()))))
        for each in run.rounds.order_by("number")
    )
    versions = run.versions.values_list("kind", "envoy__slug", "params_sha256")
    reports = RunReport.objects.filter(run=run).values_list("reason", flat=True)
    return Ended(
        run_id,
        seconds,
        run.status,
        " ".join(text for text in (run.reason, *reports) if text),
        run.final_sha256,
        rounds,
        tuple(sorted((kind, slug or "", sha256) for kind, slug, sha256 in versions)),
        tuple(lost),
    )


def _lost_state(update: "ReceivedUpdate") -> list[str]:
    """What the strategy remembers at the hospital, which `check_runs` does not look at."""
    from envoys.errors import LostObjectError
    from envoys.storage import envoy_storage, read_object
    from training.services.updates import client_state_key

    sha256, envoy = update.client_state_sha256, update.assignment.envoy
    try:
        if sha256:
            read_object(envoy_storage(envoy), client_state_key(sha256), sha256=sha256)
    except LostObjectError as error:
        return [f"{update.assignment.training_round}, {envoy}: its client state: {error}"]
    return []


@dataclass
class Verdict:
    """Every run is held against what a run has to be, and against one that nothing disturbed."""

    reference: Ended
    num_rounds: int  # after the statistics, which are round 0
    hospitals: tuple[str, ...]  # sorted
    rounds_lost: int = 0
    stuck_rows: int = 0
    identical: bool = True
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # none of them: nothing was lost

    def judge(self, run: Ended) -> None:
        self.seconds.append(run.seconds)
        if run.status != "FINISHED" or run.notes:
            self.problems.append(f"run {run.pk}: {run.status.lower()}. {run.notes}")
        found = {each[0]: each for each in run.rounds}
        for number in range(self.num_rounds + 1):
            here = found.get(number)
            if here is None or (here[1], here[3]) != ("AGGREGATED", self.hospitals):
                self.lose(f"run {run.pk}, round {number}: {here}, not of {self.hospitals}")
        for problem in run.lost:
            self.lose(problem)
        due = {("GLOBAL", ""), *(("FINE_TUNED", hospital) for hospital in self.hospitals)}
        due |= {version[:2] for version in self.reference.versions}
        for kind, hospital in sorted(due - {version[:2] for version in run.versions}):
            self.problems.append(f"run {run.pk}: no {kind} version {hospital}".rstrip())
        if _made(run) != _made(self.reference):
            self.identical = False
            self.problems.append(f"run {run.pk}: it made other bytes than run {self.reference.pk}")

    def lose(self, problem: str) -> None:
        self.rounds_lost += 1
        self.problems.append(problem)

    def judge_rows(self) -> None:
        """What is still open, or was given up, when nothing is under way any more."""
        from envoys.work import kinds
        from training.services.checking import Findings, check_rows, num_open_rows

        found = Findings()
        check_rows(found)
        problems = list(found.problems)
        num_open = num_open_rows()
        if num_open:
            problems.append(f"{num_open} rows are still open")
        num_stuck = num_open + found.num_problems
        for kind in kinds():
            for row in kind.model.objects.filter(status="FAILED"):
                num_stuck += 1
                problems.append(f"{kind.title} {row.pk} has failed: {row.reason}")
        self.stuck_rows = num_stuck  # only now: who asks once more begins again
        self.problems += problems


def _made(run: Ended) -> tuple[object, ...]:
    return run.final_sha256, run.rounds, run.versions
