"""What each hospital gained by a run."""

from django.utils import timezone

from envoys.work import Progress
from federated.errors import FederatedError
from federated.plan import TrainingPlan
from federated.targets import target_named
from training.arrays import open_snapshot
from training.errors import NotReadyError
from training.models import RunReport, TrainingRun
from training.objects import load_params
from training.services.rounds import run_scaling


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
    """Train the baselines and score all models on the same held-out patients.

    Raises:
        StorageError, SchemaMismatchError: also written on the row.
    """
    for report in RunReport.objects.select_related("run").claim([report_id]):
        try:
            _make_report(report)
        except FederatedError as error:
            RunReport.objects.finish(report, status=RunReport.Status.FAILED, reason=str(error))
            raise


def _make_report(report: RunReport) -> None:
    from federated.benefit import benefit_report  # torch: workers only
    from federated.simulation import SimulationResult

    run = report.run
    plan = TrainingPlan.from_json(run.plan)
    participants = run.participants.filter(sits_out_because="").select_related("envoy", "snapshot")
    datasets = {
        participant.envoy.slug: open_snapshot(participant.snapshot, plan)
        for participant in participants
        if participant.snapshot
    }
    federated = SimulationResult(
        load_params(run.params_sha256), run_scaling(run), tuple(sorted(datasets))
    )
    result = benefit_report(
        datasets,
        plan,
        federated,
        num_classes=len(target_named(plan.target).classes),
        seed=run.seed,
        on_progress=Progress(report).show,
    )
    names = {participant.envoy.slug: participant.envoy.name for participant in participants}
    plain = result.to_json()
    for row in [*plain["envoys"], *plain["benefit"]["envoys"]]:
        row["name"] = names[row["name"]]
    TrainingRun.objects.filter(pk=run.pk).update(report=plain)
    RunReport.objects.finish(report, status=RunReport.Status.COMPLETE)
