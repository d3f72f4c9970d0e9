"""Risk with its reasons: for one admission, and for a whole hospital."""

from inference.services.erasure import delete_envoy, erase_envoy, what_will_go
from inference.services.pages import predict_page, study_to_predict
from inference.services.patient_erasure import (
    erase_patient,
    finish_patient_erasure,
    what_goes_with,
)
from inference.services.predictions import (
    ServingModel,
    global_version,
    load_model,
    own_version,
    predict_admission,
    predict_envoy,
    request_inference,
    score_admission,
)
from inference.services.risk import ModelRisk, PatientRisk, patient_risk, risk_of, study_in_use
from inference.services.scale import MODELS, request_inferences

__all__ = [
    "MODELS",
    "ModelRisk",
    "PatientRisk",
    "ServingModel",
    "delete_envoy",
    "erase_envoy",
    "erase_patient",
    "finish_patient_erasure",
    "global_version",
    "load_model",
    "own_version",
    "patient_risk",
    "predict_admission",
    "predict_envoy",
    "predict_page",
    "request_inference",
    "request_inferences",
    "risk_of",
    "score_admission",
    "study_in_use",
    "study_to_predict",
    "what_goes_with",
    "what_will_go",
]
