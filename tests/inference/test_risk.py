import pytest

from diagnoses import services as diagnoses
from diagnoses.models import Import
from envoys.models import AuditEvent
from inference.models import Prediction
from inference.services import load_model, patient_risk, study_in_use
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user
from tests.federation import envoy_path, release
from training.errors import NotReadyError
from training.services import study_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def version(queue, hospitals):
    return release(hospitals, queue)


@pytest.fixture
def doctor(hospitals):
    return make_user(envoy=hospitals[0])


@pytest.fixture
def admission(hospitals):
    admission = make_admission(make_patient(envoy=hospitals[0], sex="F"), age=81)
    make_diagnosis(admission, icd_code="I509")
    return admission


def said_by(model):
    assert model.prediction is not None, model.missing
    return model.prediction


def test_both_models_give_a_risk_and_the_look_is_audited_once(version, doctor, admission):
    risk = patient_risk(admission, requested_by=doctor)
    assert risk.study == version.study
    assert said_by(risk.by_global).model_version == version
    assert said_by(risk.by_own).model_version.envoy == doctor.envoy
    assert said_by(risk.by_global).contributions
    event = AuditEvent.objects.get(target=f"admission:{admission.pk}")
    assert (event.user, event.action) == (doctor, "saw risk")


def test_a_risk_follows_what_has_changed_since(version, doctor, admission):
    before = said_by(patient_risk(admission, requested_by=doctor).by_global)
    diagnosis = diagnoses.record_diagnosis(
        admission, icd_code="J9601", icd_version=10, recorded_by=doctor
    )
    after = said_by(patient_risk(admission, requested_by=doctor).by_global)
    assert (after.pk, after.probabilities == before.probabilities) == (before.pk, False)
    diagnoses.strike_out_diagnosis(diagnosis, struck_out_by=doctor)
    again = said_by(patient_risk(admission, requested_by=doctor).by_global)
    assert again.probabilities == before.probabilities
    assert Prediction.objects.filter(admission=admission).count() == 2  # one a model


def test_the_number_of_queries_does_not_grow_with_the_admissions(
    version, doctor, admission, django_assert_max_num_queries
):
    patient_risk(admission, requested_by=doctor)
    for _ in range(20):
        make_diagnosis(make_admission(admission.patient))
    with django_assert_max_num_queries(24):
        patient_risk(admission, requested_by=doctor)


def test_a_missing_model_is_explained_and_the_other_still_speaks(version, doctor, admission):
    envoy_path(doctor.envoy, "global_model/model.safetensors").unlink()
    load_model.cache_clear()
    risk = patient_risk(admission, requested_by=doctor)
    assert risk.by_global.prediction is None
    assert "global_model/model.safetensors" in risk.by_global.missing
    assert risk.by_own.prediction is not None


def test_what_has_to_happen_before_the_first_model_is_said(doctor, admission):
    risk = patient_risk(admission, requested_by=doctor)
    assert risk.study is None
    assert "a data scientist makes one" in risk.by_global.missing

    study = study_for("risk_tier")
    assert study_in_use(doctor.envoy) == study
    risk = patient_risk(admission, requested_by=doctor)
    assert "a data scientist distributes one" in risk.by_global.missing
    assert "train there first" in risk.by_own.missing
    assert study_in_use(make_envoy()) == study


def test_an_admission_of_an_unfinished_import_has_no_risk(version, doctor):
    unfinished = Import.objects.create(envoy=doctor.envoy, status=Import.Status.INSERTING)
    patient = make_patient(doctor.envoy, source_import=unfinished)
    with pytest.raises(NotReadyError, match="import that is not complete"):
        patient_risk(make_admission(patient, source_import=unfinished), requested_by=doctor)
    assert not AuditEvent.objects.filter(action="saw risk").exists()
