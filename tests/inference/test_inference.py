import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diagnoses.models import Admission, Import
from envoys.errors import StorageError
from envoys.models import AuditEvent
from federated.errors import SchemaMismatchError
from federated.params import from_bytes
from federated.prediction import predict_rows
from federated.schemas import feature_schema
from inference.models import InferenceRun, Prediction
from inference.services import (
    global_version,
    load_model,
    own_version,
    predict_admission,
    predict_envoy,
    request_inference,
)
from tests.factories import (
    make_admission,
    make_diagnosis,
    make_envoy,
    make_patient,
    make_user,
    make_version,
)
from tests.federation import envoy_path, finish, release
from training import services
from training.arrays import open_snapshot
from training.errors import NotReadyError
from training.models import ModelChoice, ModelVersion
from training.services.rounds import run_scaling

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parent.parent.parent
Status = InferenceRun.Status


@pytest.fixture
def version(queue, hospitals) -> ModelVersion:
    """The federation's model, delivered to every hospital."""
    return release(hospitals, queue)


def test_an_admission_gets_a_risk_with_its_reasons_and_the_look_is_audited(version, hospitals):
    doctor = make_user(envoy=hospitals[0])
    patient = make_patient(envoy=hospitals[0], sex="F")
    admission = make_admission(patient, age=81)
    make_diagnosis(admission, icd_code="I509")
    make_diagnosis(admission, icd_code="N179")

    prediction = predict_admission(admission, version, requested_by=doctor)
    assert len(prediction.probabilities) == 3
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)
    assert prediction.predicted_class == int(np.argmax(prediction.probabilities))
    assert prediction.requested_by == doctor

    inputs = [contribution["input"] for contribution in prediction.contributions]
    assert {"code I50", "primary code I50", "code N17", "female", "age"} <= set(inputs)
    assert "primary code N17" not in inputs
    sizes = [abs(contribution["change"]) for contribution in prediction.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    event = AuditEvent.objects.get(action="predicted risk")
    assert (event.user, event.target) == (doctor, f"admission:{admission.pk}")


def test_the_same_admission_again_is_one_prediction_and_two_audit_events(version, hospitals):
    admission = Admission.objects.filter(envoy=hospitals[0])[0]
    first = predict_admission(admission, version, requested_by=None)
    make_diagnosis(admission, icd_code="J9601", seq_num=90)
    second = predict_admission(admission, version, requested_by=None)
    assert first.pk == second.pk
    assert first.probabilities != second.probabilities
    assert AuditEvent.objects.filter(action="predicted risk").count() == 2


def test_an_admission_is_scored_with_those_before_it_and_none_after(version, hospitals):
    patient = make_patient(envoy=hospitals[0])
    first = make_admission(patient, age=70, hadm_id="1")
    alone = predict_admission(first, version, requested_by=None).probabilities
    second = make_admission(patient, age=70, hadm_id="2")

    assert predict_admission(first, version, requested_by=None).probabilities == alone
    assert predict_admission(second, version, requested_by=None).probabilities != alone


def test_an_admission_of_an_unfinished_import_is_not_scored(version, hospitals):
    unfinished = Import.objects.create(envoy=hospitals[0], status=Import.Status.INSERTING)
    patient = make_patient(envoy=hospitals[0], source_import=unfinished)
    admission = make_admission(patient, source_import=unfinished)
    with pytest.raises(NotReadyError, match="part of an import that is not complete"):
        predict_admission(admission, version, requested_by=None)
    assert not Prediction.objects.exists()


def test_serving_gives_the_probabilities_that_training_scores(version, hospitals, queue):
    envoy = hospitals[0]
    inference_run = request_inference(envoy, version, requested_by=None)
    queue.work()
    participant = version.run.participants.get(envoy=envoy)
    assert participant.snapshot is not None
    plan = services.plan_for(version.study, num_rounds=2)
    dataset = open_snapshot(participant.snapshot, plan)
    params = load_model(version.pk, envoy.pk).params
    rows = np.arange(len(dataset.labels))
    expected = predict_rows(params, run_scaling(version.run), dataset, rows)

    found = [p.probabilities for p in inference_run.predictions.all()]
    np.testing.assert_allclose(sorted(found), sorted(expected.tolist()), atol=1e-6)
    one = inference_run.predictions.select_related("admission")[0]
    alone = predict_admission(one.admission, version, requested_by=None)
    assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-6)


def test_a_whole_hospital_is_scored_and_counted(version, hospitals, queue, monkeypatch):
    monkeypatch.setattr("inference.services.predictions.ADMISSIONS_AT_ONCE", 50)
    doctor = make_user(envoy=hospitals[0])
    num_admissions = hospitals[0].admissions.count()
    inference_run = request_inference(hospitals[0], version, requested_by=doctor)
    assert (inference_run.num_done, inference_run.num_total) == (0, num_admissions)
    queue.work()

    inference_run.refresh_from_db()
    assert inference_run.status == Status.COMPLETE
    assert inference_run.num_done == inference_run.num_total == num_admissions > 100
    assert inference_run.completed_at is not None
    assert set(inference_run.counts) == {"Low", "Medium", "High"}
    assert sum(inference_run.counts.values()) == num_admissions
    predictions = Prediction.objects.filter(inference_run=inference_run, requested_by=doctor)
    assert predictions.count() == num_admissions
    num_low = predictions.filter(predicted_class=0).count()
    assert num_low == inference_run.counts["Low"]


def test_a_hospital_scored_twice_has_each_prediction_once(version, hospitals, queue):
    first = request_inference(hospitals[0], version, requested_by=None)
    queue.work(copies=2)
    first.refresh_from_db()
    assert first.attempt == 1
    num_admissions = hospitals[0].admissions.count()
    assert Prediction.objects.count() == num_admissions

    second = request_inference(hospitals[0], version, requested_by=None)
    queue.work()
    second.refresh_from_db()
    assert second.counts == first.counts
    assert Prediction.objects.filter(inference_run=second).count() == num_admissions
    assert Prediction.objects.count() == num_admissions


def test_an_empty_hospital_is_scored_without_a_fuss(version, hospitals, queue):
    empty = make_envoy()
    services.distribute_version(version, distributed_by=None, envoys=[empty])
    inference_run = request_inference(empty, version, requested_by=None)
    queue.work()
    inference_run.refresh_from_db()
    assert inference_run.status == Status.COMPLETE
    assert inference_run.counts == {"Low": 0, "Medium": 0, "High": 0}


def test_a_hospital_uses_what_was_delivered_there_or_its_own(version, hospitals, queue):
    study, envoy = version.study, hospitals[0]
    ModelChoice.objects.update(kind="GLOBAL")
    newer = finish(hospitals, queue).versions.of_federation().get()
    assert newer.number == 2
    assert global_version(study, envoy) == version  # the newer one has not been delivered
    own = own_version(study, envoy)
    assert (own.envoy, own.number) == (envoy, 2)

    services.distribute_version(newer, distributed_by=None, envoys=[envoy])
    assert global_version(study, envoy) == version
    queue.work()
    assert global_version(study, envoy) == newer
    assert global_version(study, hospitals[1]) == version

    admission = envoy.admissions.all()[0]
    by_all = predict_admission(admission, newer, requested_by=None)
    by_own = predict_admission(admission, own, requested_by=None)
    assert by_all.pk != by_own.pk
    assert by_all.probabilities != by_own.probabilities


def test_a_hospital_without_a_model_is_told_what_has_to_happen(queue, hospitals):
    study, small = services.study_for("risk_tier"), hospitals[3]
    with pytest.raises(NotReadyError, match=f"{small} has not received a model .* distributes one"):
        global_version(study, small)
    release(hospitals, queue)
    assert global_version(study, small)
    with pytest.raises(NotReadyError, match=f"{small} has no model of its own .* train there"):
        own_version(study, small)


def test_a_model_damaged_in_the_hospitals_storage_is_refused_and_the_row_says_why(
    version, hospitals, queue
):
    path = envoy_path(hospitals[0], "global_model/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    admission = hospitals[0].admissions.all()[0]
    with pytest.raises(StorageError, match="is not what was stored"):
        predict_admission(admission, version, requested_by=None)

    inference_run = request_inference(hospitals[0], version, requested_by=None)
    queue.work()
    inference_run.refresh_from_db()
    assert inference_run.status == Status.FAILED
    assert "is not what was stored" in inference_run.reason
    assert not Prediction.objects.exists()
    path.unlink()
    with pytest.raises(StorageError, match=r"global_model/model\.safetensors is missing"):
        load_model(version.pk, hospitals[0].pk)


def test_a_model_of_another_vocabulary_is_refused(version, hospitals, queue):
    manifest = version.manifest | {"schema_sha256": "0" * 64, "vocabulary_sha256": "1" * 64}
    ModelVersion.objects.filter(pk=version.pk).update(manifest=manifest)
    admission = hospitals[0].admissions.all()[0]
    here = feature_schema("risk_tier").vocabulary_sha256[:12]
    with pytest.raises(
        SchemaMismatchError, match=f"trained with the vocabulary 1{{12}}, .* {here}"
    ):
        predict_admission(admission, version, requested_by=None)

    inference_run = request_inference(hospitals[0], version, requested_by=None)
    queue.work()
    inference_run.refresh_from_db()
    assert inference_run.status == Status.FAILED
    assert "distribute a newer version" in inference_run.reason


def test_an_inference_that_a_dead_worker_left_is_done_again(version, hospitals, queue):
    inference_run = request_inference(hospitals[0], version, requested_by=None)
    queue.lose()
    assert InferenceRun.objects.claim([inference_run.pk])
    predict_envoy(inference_run.pk)  # its lease lives: nothing happens
    assert not Prediction.objects.exists()

    InferenceRun.objects.update(leased_until="2020-01-01T00:00Z", enqueued_at="2020-01-01T00:00Z")
    assert queue.sweep() == ["predict_envoy_task"]
    queue.work()
    inference_run.refresh_from_db()
    assert (inference_run.status, inference_run.attempt) == (Status.COMPLETE, 2)


def test_scoring_a_whole_hospital_leaves_no_reasons_of_an_earlier_look(version, hospitals, queue):
    admission = Admission.objects.filter(envoy=hospitals[0])[0]
    prediction = predict_admission(admission, version, requested_by=None)
    assert prediction.contributions
    request_inference(hospitals[0], version, requested_by=None)
    queue.work()
    prediction.refresh_from_db()
    assert prediction.contributions == []


def test_a_models_parameters_are_those_that_were_released(version, hospitals):
    model = load_model(version.pk, hospitals[3].pk)
    content = envoy_path(hospitals[3], "global_model/model.safetensors").read_bytes()
    for name, value in from_bytes(content).items():
        np.testing.assert_array_equal(model.params[name], value)
    assert model.classes == ("Low", "Medium", "High")


# --- What a web process loads ------------------------------------------------------------------

PREDICT = """
import sys

import django

django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
from federated.params import to_bytes
from federated.plan import make_plan
from federated.rounds import first_params
from envoys.storage import envoy_storage, write_object
from inference.services import predict_admission, predict_envoy, request_inference
from inference.tasks import predict_envoy_task
from tests.factories import (
    make_admission, make_diagnosis, make_envoy, make_patient, make_round, make_version
)

envoy = make_envoy()
admission = make_admission(make_patient(envoy=envoy), age=70)
make_diagnosis(admission)
plan = make_plan(target="risk_tier", network="shallow_network")
params = first_params(plan, seed=0)
num_numeric = len(params["numeric"])
training_round = make_round()
study = training_round.run.study
key = f"{study.storage_prefix}global_model/model.safetensors"
version = make_version(
    training_round=training_round,
    object_sha256=write_object(envoy_storage(envoy), key, to_bytes(params)),
    manifest={
        "target": plan.target,
        "schema_sha256": plan.schema_sha256,
        "vocabulary_sha256": plan.vocabulary_sha256,
        "scaling": {"mean": [0.0] * num_numeric, "std": [1.0] * num_numeric},
        "classes": ["Low", "Medium", "High"],
    },
)
prediction = predict_admission(admission, version, requested_by=None)
assert abs(sum(prediction.probabilities) - 1) < 1e-6
assert prediction.contributions
predict_envoy_task.delay_on_commit = lambda pk: None  # no broker here
inference_run = request_inference(envoy, version, requested_by=None)
predict_envoy(inference_run.pk)
inference_run.refresh_from_db()
assert inference_run.status == "COMPLETE", inference_run.reason
"""

IMPORT_URLS = """
import sys

import django

django.setup()
import techlife.urls
"""


@pytest.mark.parametrize("script", [PREDICT, IMPORT_URLS], ids=["predicting", "urls"])
def test_no_web_process_loads_torch_pandas_or_sklearn(tmp_path, script):
    loaded = 'print(sorted({"torch", "pandas", "sklearn"} & set(sys.modules)))'
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "techlife.settings",
        "TECHLIFE_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{loaded}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_small_count_and_what_would_give_it_away_are_not_shown_and_classes_keep_their_order():
    version = make_version(manifest={"classes": ["Low", "Medium", "High"]})
    inference_run = InferenceRun(
        model_version=version, counts={"High": 1400, "Low": 9, "Medium": 10}
    )
    assert inference_run.counts_in_words() == "Low –, Medium –, High 1,400, All 1,419"
    assert InferenceRun(model_version=version).counts_in_words() == ""
