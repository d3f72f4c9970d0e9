"""The product in one command: hospitals, workers and a run, from a cohort folder to predictions.

Everything here goes through the services and the workers that a real installation uses; what is
special is that it approves for its own hospitals, and says so.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from tqdm import tqdm

from diagnoses.errors import ImportRefusedError
from diagnoses.models import Import
from diagnoses.services import clear_abandoned_imports, import_cohort, load_icd_codes
from envoys.models import Envoy, User
from envoys.work import LeasedWork
from federated.cohorts import EnvoyFiles, find_envoys
from federated.plan import TrainingPlan
from federated.small_counts import MIN_PATIENTS, shown
from federated.synthetic import write_synthetic_cohort
from federated.words import Words
from inference.models import InferenceRun
from inference.services import global_version, request_inference
from techlife.processes import Supervisor
from training import services
from training.models import (
    Distribution,
    ModelVersion,
    RoundAssignment,
    RunReport,
    Study,
    TrainingRound,
    TrainingRun,
)
from training.progress import histograms_in_words

POLL_SECONDS = 0.2
DOCTOR, SCIENTIST, ADMINISTRATOR, OFFICER = "doc", "pass", "admin", "health"

Say = Callable[[str], None]


class DemonstrationError(RuntimeError):
    """The demonstration cannot go on; what has been done so far is kept."""


def cohort_folder(data: Path | None, *, seed: int) -> Path:
    """The folder to import: the one given, or synthetic hospitals made for this seed."""
    if data is not None:
        return data
    folder: Path = settings.DATA_DIR / "synthetic" / f"seed-{seed}"
    others = sorted(path.name for path in folder.parent.glob("seed-*") if path != folder)
    if others:
        raise DemonstrationError(
            f"The data folder holds the synthetic patients of {others[0]}; those of another seed"
            " would be put into the same hospitals: --fresh starts anew"
        )
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a start that was killed
        write_synthetic_cohort(unfinished, seed=seed)
        unfinished.rename(folder)
    return folder


def import_hospitals(folder: Path, say: Say) -> list[Envoy]:
    """Invite and fill each hospital of a cohort folder.

    Raises:
        CohortError, ImportRefusedError: what is wrong with a file; nothing of it is imported.
    """
    load_icd_codes()
    envoys = []
    for files in find_envoys(folder):
        namesake = Envoy.objects.filter(slug=files.client_id).exclude(name=files.name).first()
        if namesake:
            raise DemonstrationError(
                f"The name {files.name!r} is too like that of the hospital {namesake.name!r}, which"
                " is here already: rename one, or start with --fresh"
            )
        envoy, _ = Envoy.objects.get_or_create(name=files.name, defaults={"slug": files.client_id})
        clear_abandoned_imports(envoy, silent_seconds=0)  # nobody else works on a locked folder
        try:
            imported = _import_one(envoy, files)
        except ImportRefusedError as error:
            raise DemonstrationError(
                f"{error}\nThe data folder holds other data of this hospital: --fresh starts anew"
            ) from error
        say(
            f"  {envoy.name}: {imported.num_admissions:,} admissions,"
            f" {imported.num_diagnoses:,} diagnoses"
        )
        for warning in imported.warnings:
            # An example names the row of a patient: of a few, it would point to them.
            is_told = warning["example"] and warning["count"] >= MIN_PATIENTS
            example = f", for instance {warning['example']}" if is_told else ""
            say(f"    {shown(warning['count'])} × {warning['kind']}{example}")
        envoys.append(envoy)
    return envoys


def _import_one(envoy: Envoy, files: EnvoyFiles) -> Import:
    with progress_bar(f"Importing {envoy.name}", unit="rows") as bar:
        return import_cohort(
            envoy, files, on_progress=lambda row: show(bar, row.num_done, row.num_total)
        )


def make_accounts(envoys: list[Envoy]) -> dict[int, User]:
    """One who answers for each envoy, by envoy id; a data scientist, an administrator, an officer.

    `doc` belongs to the alphabetically first hospital, `doc-<slug>` to each other envoy.
    """
    doctors = {}
    hospitals = [envoy.name for envoy in envoys if envoy.kind == Envoy.Kind.HOSPITAL]
    for envoy in envoys:
        is_first = envoy.name == min(hospitals, default=None)
        username = DOCTOR if is_first else f"{DOCTOR}-{envoy.slug}"
        doctor = _account(username, User.Role.DOCTOR, password=DOCTOR)
        doctor.envoy = envoy
        doctor.save(update_fields=["envoy"])
        doctors[envoy.pk] = doctor
    _account(SCIENTIST, User.Role.DATA_SCIENTIST, password=SCIENTIST)
    _account(ADMINISTRATOR, User.Role.ADMINISTRATOR, password=ADMINISTRATOR)
    _account(OFFICER, User.Role.PUBLIC_HEALTH, password=OFFICER)
    return doctors


def _account(username: str, role: str, *, password: str) -> User:
    user, is_new = User.objects.get_or_create(username=username, defaults={"role": role})
    if is_new or not user.has_usable_password():
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


def approve_for_all(
    study: Study, plan: TrainingPlan, envoys: list[Envoy], doctors: dict[int, User]
) -> None:
    """Package the plan for each hospital, and approve it as the hospital's doctor.

    Where a doctor has revoked the approval of this plan, that stands.
    """
    for envoy in envoys:
        membership = services.package_training(study, envoy, plan)
        if membership.revoked_at is not None:
            continue
        services.approve_package(
            membership, approved_by=doctors[envoy.pk], plan_hash=membership.plan_sha256
        )


def start_or_resume(
    study: Study, plan: TrainingPlan, envoys: list[Envoy], *, seed: int, say: Say
) -> TrainingRun:
    """Start a run; one that was interrupted, of the same plan and seed, goes on instead."""
    interrupted = study.runs.active().first()
    if interrupted and _is_same(interrupted, plan, envoys, seed):
        say(f"Resuming {interrupted}, which was interrupted")
        return interrupted
    if interrupted:
        say(f"Stopping {interrupted}, which was interrupted and is not the one asked for")
        services.stop_run(interrupted, stopped_by=None)
    scientist = User.objects.get(username=SCIENTIST)
    return services.start_run(study, plan, started_by=scientist, seed=seed, envoys=envoys)


def _is_same(run: TrainingRun, plan: TrainingPlan, envoys: list[Envoy], seed: int) -> bool:
    participants = set(run.participants.values_list("envoy_id", flat=True))
    return (run.mode, run.plan_sha256, run.seed, participants) == (
        TrainingRun.Mode.AUTOMATIC,
        plan.sha256,
        seed,
        {envoy.pk for envoy in envoys},
    )


def watch_run(run: TrainingRun, supervisor: Supervisor) -> None:
    """Show a run's progress until it ends.

    Raises:
        DemonstrationError: the run failed or was stopped, with its reason.
    """
    assignments = RoundAssignment.objects.filter(training_round__run=run)
    num_clients = run.participants.filter(sits_out_because="").count()
    with progress_bar("Training", unit="updates") as bar:
        while True:
            supervisor.check()
            run.refresh_from_db()
            total = max(1, num_clients * (run.num_rounds + 1))
            show(bar, assignments.filter(status="SUBMITTED").count(), total)
            if not run.is_active:
                break
            time.sleep(POLL_SECONDS)
    if run.status != TrainingRun.Status.FINISHED:
        raise DemonstrationError(f"{run}: {run.get_status_display().lower()}. {run.reason}")


def wait_for_work(
    title: str, rows: "QuerySet[Any]", supervisor: Supervisor, *, unit: str
) -> list[LeasedWork]:
    """Show the progress of rows of work until all have ended.

    Raises:
        DemonstrationError: one failed, with its reason.
    """
    with progress_bar(title, unit=unit) as bar:
        while True:
            supervisor.check()
            work = list(rows.all())
            if len(work) == 1:
                show(bar, work[0].num_done, max(work[0].num_total, 1))
            else:
                show(bar, sum(not row.is_active for row in work), len(work))
            if not any(row.is_active for row in work):
                break
            time.sleep(POLL_SECONDS)
    failed = [row for row in work if row.status == LeasedWork.Status.FAILED]
    if failed:
        raise DemonstrationError(f"{title} failed. " + " ".join(row.reason for row in failed))
    return work


def make_report(run: TrainingRun, supervisor: Supervisor) -> dict[str, Any]:
    """Wait for a worker to compare rule of thumb, local, global, fine-tuned and pooled models."""
    report = services.request_report(run)
    wait_for_work(
        "Comparing models", RunReport.objects.filter(pk=report.pk), supervisor, unit="rounds"
    )
    run.refresh_from_db()
    if run.report is None:
        raise DemonstrationError(f"{run} has no report: {report.reason}")
    return run.report


def distribute(run: TrainingRun, supervisor: Supervisor) -> ModelVersion:
    """Release the run's model and deliver it to the hospitals that were asked to take part."""
    version = run.versions.of_federation().get()
    envoys = [participant.envoy for participant in run.participants.select_related("envoy")]
    scientist = User.objects.get(username=SCIENTIST)
    distributions = services.distribute_version(version, distributed_by=scientist, envoys=envoys)
    wait_for_work(
        f"Distributing version {version.number}",
        Distribution.objects.filter(pk__in=[d.pk for d in distributions]),
        supervisor,
        unit="hospitals",
    )
    version.refresh_from_db()
    return version


def predict_all(run: TrainingRun, supervisor: Supervisor) -> dict[str, InferenceRun]:
    """Score every hospital with the model that was delivered there; by name."""
    scientist = User.objects.get(username=SCIENTIST)
    started = [
        request_inference(
            participant.envoy,
            global_version(run.study, participant.envoy),
            requested_by=scientist,
        )
        for participant in run.participants.select_related("envoy")
    ]
    rows = InferenceRun.objects.filter(pk__in=[row.pk for row in started])
    wait_for_work("Predicting", rows, supervisor, unit="hospitals")
    return {row.envoy.name: row for row in rows.select_related("envoy", "model_version")}


def run_seconds(run: TrainingRun) -> tuple[float, float]:
    """Wall seconds of rounds 1..n together, and the median of a round."""
    rounds = run.rounds.filter(number__gt=0, status=TrainingRound.Status.AGGREGATED)
    seconds = [
        (row.aggregated_at - row.opened_at).total_seconds() for row in rounds if row.aggregated_at
    ]
    assert run.training_at is not None
    assert run.finished_at is not None
    return (run.finished_at - run.training_at).total_seconds(), statistics.median(seconds)


def report_json(
    run: TrainingRun, report: dict[str, Any], *, import_seconds: float
) -> dict[str, Any]:
    """What `--report` writes."""
    train_seconds, per_round_median = run_seconds(run)
    return {
        "study": run.study.name,
        "target": run.study.target,
        "strategy": run.strategy,
        "rounds": run.num_rounds,
        "seed": run.seed,
        "num_envoys": len(report["envoys"]),
        "num_examples": report["num_examples"],
        "final_sha256": run.final_sha256,
        "seconds": {
            "import": round(import_seconds, 3),
            "train": round(train_seconds, 3),
            "per_round_median": round(per_round_median, 4),
        },
        "pooled_test": report["pooled_test"],
        "mean_of_envoys": report["mean_of_envoys"],
        "from_histograms": report["from_histograms"],
        "envoys": report["envoys"],
    }


def table(report: dict[str, Any], predicted: dict[str, str], *, words: Words) -> Iterator[str]:
    """AUROC per hospital or node and model, and in words what the model says there.

    Examples are those trained on; the figures are of others, who only tested the models.
    A dash is not defined, or not to be told: a count under 10, one beside it, a figure of so few.
    """
    models = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")
    names = [row["name"] for row in report["envoys"]]
    together = f"all test {words.people}"
    width = max(len(name) for name in [*names, together])
    head = f"{'AUROC':{width}}  {'trained on':>10}" + "".join(
        f"  {model.replace('_', ' '):>13}" for model in models
    )
    yield f"{head}  predicted" if predicted else head
    for row in report["envoys"]:
        said = predicted.get(row["name"], "")
        yield f"{_row(row['name'], row['num_examples'], row, models, width)}  {said}".rstrip()
    yield _row(together, report["num_examples"], report["pooled_test"], models, width)
    for title, figure in (("AUROC", "auroc"), ("AUPRC", "auprc")):
        binned = report["from_histograms"][figure]
        if binned:
            yield f"{title} {words.instead(histograms_in_words(binned))}"


def _row(
    name: str, num_examples: int | None, figures: dict[str, Any], models: Iterable[str], width: int
) -> str:
    examples = "–" if num_examples is None else f"{num_examples:,}"
    cells = ""
    for model in models:
        auroc = figures[model]["auroc"]
        cells += f"  {'–' if auroc is None else f'{auroc:.3f}':>13}"
    return f"{name:{width}}  {examples:>10}{cells}"


@contextmanager
def progress_bar(title: str, *, unit: str) -> Iterator[Any]:
    """A bar on a terminal; nothing where the output is a file."""
    with tqdm(desc=title, unit=f" {unit}", leave=False, disable=None, dynamic_ncols=True) as bar:
        yield bar


def show(bar: Any, num_done: int, num_total: int) -> None:
    bar.total = num_total
    bar.n = num_done
    bar.refresh()
