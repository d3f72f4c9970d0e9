import pytest

from diagnoses.models import Snapshot
from tests.factories import make_run
from tests.federation import NUM_ROUNDS, break_storage, envoy_path, start
from training import services
from training.errors import NotReadyError
from training.models import RunReport, TrainingRun

pytestmark = pytest.mark.django_db

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")


@pytest.fixture
def run(queue, hospitals) -> TrainingRun:
    """A run that has finished this moment."""
    run = start(hospitals)
    finished = TrainingRun.objects.filter(pk=run.pk, status=TrainingRun.Status.FINISHED)
    queue.work_and_sweep(until=finished.exists)
    run.refresh_from_db()
    return run


def test_a_report_compares_five_models_hospital_by_hospital(queue, run, hospitals):
    report = run.report_work
    assert queue.names() == ["report_run_task"]  # the run has asked for it
    queue.work()
    report.refresh_from_db()
    assert (report.status, report.reason) == (RunReport.Status.COMPLETE, "")
    assert report.num_done == report.num_total == 4 * NUM_ROUNDS  # three alone, and one on all

    run.refresh_from_db()
    assert run.report is not None
    assert [row["name"] for row in run.report["envoys"]] == [e.slug for e in hospitals[:3]]
    for figures in (run.report["pooled_test"], run.report["mean_of_envoys"], *run.report["envoys"]):
        for model in MODELS:
            assert set(figures[model]) == {"auroc", "auprc", "accuracy", "brier"}
    gains = run.report["benefit"]["envoys"]
    assert [gain["name"] for gain in gains] == [row["name"] for row in run.report["envoys"]]
    assert run.report["confusion"]["classes"] == ["Low", "Medium", "High"]
    assert run.report["envoys"][0]["num_examples"] > 50
    assert 0.4 < run.report["pooled_test"]["global"]["auroc"] <= 1


def test_a_report_is_made_once(queue, run):
    first = services.request_report(run)
    assert services.request_report(run) == first
    assert queue.names() == ["report_run_task"]
    queue.work(copies=2)
    run.refresh_from_db()
    before = run.report
    services.report_run(first.pk)
    run.refresh_from_db()
    assert run.report == before
    first.refresh_from_db()
    assert first.attempt == 1


@pytest.mark.parametrize("status", ["TRAINING", "FAILED", "STOPPED"])
def test_a_run_that_has_not_finished_has_no_report(status):
    with pytest.raises(NotReadyError, match="has not finished"):
        services.request_report(make_run(status=status))
    assert not RunReport.objects.exists()


def test_a_report_on_exports_that_stay_out_of_reach_fails_in_words(queue, run, hospitals, settings):
    report = services.request_report(run)
    break_storage(hospitals[0])
    assert not envoy_path(hospitals[0], "diagnoses.csv").exists()
    settings.DATA_DIR = settings.DATA_DIR / "of another host"  # without the arrays built there
    queue.work()
    report.refresh_from_db()
    assert report.status == RunReport.Status.PENDING  # the storage may come back

    settings.LEASE_SECONDS = 0
    queue.work_and_sweep()
    report.refresh_from_db()
    assert report.status == RunReport.Status.FAILED
    sha256 = Snapshot.objects.get(envoy=hospitals[0]).sha256
    assert f"snapshots/{sha256}" in report.reason
    run.refresh_from_db()
    assert run.report is None
    assert run.status == TrainingRun.Status.FINISHED
