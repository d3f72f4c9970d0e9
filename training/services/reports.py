"""What each hospital gained by a run, and which of its models suits it."""

from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import envoy_storage, read_object
from envoys.work import Progress
from federated.errors import FederatedError
from federated.params import Params, from_bytes
from federated.plan import TrainingPlan
from federated.targets import target_named
from training.arrays import let_go_of_removed, open_snapshot
from training.errors import NotReadyError
from training.models import ModelChoice, ModelVersion, RunReport, TrainingRun
from training.objects import load_params
from training.services.rounds import run_scaling
from training.services.versions import store_local_version

if TYPE_CHECKING:
    from federated.benefit import BenefitReport

KINDS = {  # by the model's name in `federated.choosing`
    "global": ModelVersion.Kind.GLOBAL,
    "fine_tuned": ModelVersion.Kind.FINE_TUNED,
    "local": ModelVersion.Kind.LOCAL,
}


def request_report(run: TrainingRun) -> RunReport:
    """Have the report of a finished run made; asked twice, made once, unless it failed.

    Raises:
        NotReadyError: the run has not finished.
    """
    from training.tasks import report_run_task

    if run.status != TrainingRun.Status.FINISHED:
        raise NotReadyError(f"{run} has not finished: its report compares the final model")
    now = timezone.now()
    report, is_new = RunReport.objects.get_or_create(run=run, defaults={"enqueued_at": now})
    again = RunReport.objects.filter(pk=report.pk, status=RunReport.Status.FAILED).update(
        status=RunReport.Status.PENDING, reason="", attempt=0, enqueued_at=now
    )
    if is_new or again:
        report_run_task.delay_on_commit(report.pk)
        report.refresh_from_db()
    return report


def report_run(report_id: int) -> None:
    """Train the baselines, score all models on the same held-out patients, choose for each hospital.

    Raises:
        StorageError, SchemaMismatchError: also written on the row.
    """
    for report in RunReport.objects.select_related("run__study").claim([report_id]):
        try:
            _make_report(report)
        except FederatedError as error:
            RunReport.objects.fail_or_postpone(report, error)
            raise


def _make_report(report: RunReport) -> None:
    from federated.benefit import benefit_report  # torch: workers only
    from federated.simulation import SimulationResult

    let_go_of_removed()
    run = report.run
    plan = TrainingPlan.from_json(run.plan)
    participants = run.participants.filter(sits_out_because="").select_related("envoy", "snapshot")
    envoys = {participant.envoy.slug: participant.envoy for participant in participants}
    datasets = {
        participant.envoy.slug: open_snapshot(participant.snapshot, plan)
        for participant in participants
        if participant.snapshot
    }
    notes: list[str] = []
    federated = SimulationResult(
        load_params(run.params_sha256),
        run_scaling(run),
        tuple(sorted(datasets)),
        _fine_tuned_params(run, notes),
    )
    result = benefit_report(
        datasets,
        plan,
        federated,
        num_classes=len(target_named(plan.target).classes),
        seed=run.seed,
        on_progress=Progress(report).show,
    )
    choices = []
    for name in sorted(datasets):
        usable = {"global", "fine_tuned"} | _keep_local_model(run, envoys[name], result, notes)
        choice = result.choice(name, of=usable)
        choices.append(
            ModelChoice(
                run=run,
                envoy=envoys[name],
                kind=KINDS[choice.model],
                reason=choice.reason,
                figures=choice.figures_to_json(),
            )
        )
    plain = result.to_json()
    for row in [*plain["envoys"], *plain["benefit"]["envoys"], *plain["by_hospital"]]:
        row["name"] = envoys[row["name"]].name
    with transaction.atomic():
        ModelChoice.objects.bulk_create(choices, ignore_conflicts=True)  # made once, for good
        TrainingRun.objects.filter(pk=run.pk).update(report=plain)
        RunReport.objects.finish(report, status=RunReport.Status.COMPLETE, reason=" ".join(notes))


def _keep_local_model(
    run: TrainingRun, envoy: Envoy, result: "BenefitReport", notes: list[str]
) -> set[str]:
    """Store what a hospital makes alone, so that it can be served: {"local"}, or nothing."""
    alone = result.local_models.get(envoy.slug)
    if alone is None:
        return set()
    validation = result.validation[envoy.slug].measure("local")
    try:
        store_local_version(
            run,
            envoy,
            alone.params,
            alone.scaling,
            num_examples=result.num_examples[envoy.slug],
            metrics={"validation_auroc": validation.auroc},
        )
    except StorageError as error:
        notes.append(f"{envoy}'s model trained alone was not stored: {error}")
        return set()
    return {"local"}


def _fine_tuned_params(run: TrainingRun, notes: list[str]) -> dict[str, Params]:
    """What the last training made of the global model, of each hospital that has it, by slug."""
    found = {}
    versions = run.versions.filter(kind=ModelVersion.Kind.FINE_TUNED).select_related("envoy")
    for version in versions.order_by("pk"):
        assert isinstance(version.envoy, Envoy)
        key = f"{version.storage_key}/model.safetensors"
        try:
            content = read_object(envoy_storage(version.envoy), key, sha256=version.object_sha256)
        except StorageError as error:
            notes.append(f"{version.envoy}'s fine-tuned model could not be read: {error}")
            continue
        found[version.envoy.slug] = from_bytes(content)
    return found
