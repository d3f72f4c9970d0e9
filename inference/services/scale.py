"""Inference at scale: all or chosen hospitals, one task each."""

from collections.abc import Iterable
from dataclasses import dataclass

from envoys import audit
from envoys.models import Envoy, User
from federated.targets import DIAGNOSES
from inference.models import InferenceRun
from inference.services.pages import study_to_predict
from inference.services.predictions import global_version, own_version, request_inference
from training.errors import NotReadyError
from training.models import ModelVersion

MODELS = {"global": global_version, "own": own_version}


@dataclass(frozen=True)
class Requested:
    """What came of it: a hospital without a model does not stop the others."""

    inference_runs: list[InferenceRun]
    problems: list[str]  # a sentence for each hospital that could not be asked


def request_inferences(
    envoys: Iterable[Envoy], *, model: str, requested_by: User | None
) -> Requested:
    """Have hospitals scored, each by the model that was delivered there or by its own.

    Args:
        model: "global" or "own".
    Raises:
        NotReadyError: none of them has such a model; it says what to do.
    """
    requested = Requested([], [])
    for envoy in sorted(envoys, key=lambda envoy: envoy.slug):
        try:
            _refuse_node(envoy)
            version = MODELS[model](study_to_predict(envoy), envoy)
            _refuse_twice(envoy, version)
        except NotReadyError as error:
            requested.problems.append(str(error))
            continue
        inference_run = request_inference(envoy, version, requested_by=requested_by)
        requested.inference_runs.append(inference_run)
    if not requested.inference_runs:
        raise NotReadyError("; ".join(requested.problems) or "choose at least one hospital")
    for inference_run in requested.inference_runs:
        audit.record(requested_by, "requested inference", inference_run)
    return requested


def _refuse_node(envoy: Envoy) -> None:
    if envoy.dataset != DIAGNOSES:
        raise NotReadyError(f"{envoy} is a {envoy.words.place}: only hospitals can be scored")


def _refuse_twice(envoy: Envoy, version: ModelVersion) -> None:
    if InferenceRun.objects.unfinished().filter(envoy=envoy, model_version=version).exists():
        raise NotReadyError(f"{envoy} is being scored with {version} already")
