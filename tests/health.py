"""A released model of health risk for tests, with weights that can be worked out by hand."""

from typing import Any

import numpy as np
from django.utils import timezone

from envoys.storage import director_storage, write_object
from federated.architectures import architecture_named
from federated.params import Params, params_sha256, to_bytes
from federated.readings import INPUT_NAMES, NUMERIC_INPUTS, reading_schema
from federated.targets import target_named
from publichealth.models import Serving
from publichealth.services import serving
from tests.factories import make_round, make_run, make_version
from training import services
from training.models import ModelVersion, TrainingRound, TrainingRun

# Of the scaled inputs, towards high risk.
WEIGHTS = {"aqi": 2.0, "smoker": 1.0, "spo2": -1.0, "heart_rate": 0.5, "breathless": 1.5}
SCALES = {"aqi": (100.0, 50.0), "spo2": (95.0, 2.0), "heart_rate": (80.0, 20.0)}


def make_params(
    weights: dict[str, float] | None = None, *, bias: float = 0.0, num_classes: int = 2
) -> Params:
    """A logistic regression, by the names of numeric inputs; the rest weighs nothing."""
    shapes = architecture_named("logistic_regression").shapes(
        len(INPUT_NAMES), len(NUMERIC_INPUTS), num_classes
    )
    params: Params = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, weight in (WEIGHTS if weights is None else weights).items():
        params["numeric"][NUMERIC_INPUTS.index(name), -1] = weight
    params["bias"][-1] = bias
    return params


def scaling_json() -> dict[str, list[float]]:
    """Of each input, and of the same input where a group is absent; 0 and 1 where not given."""
    pairs = [SCALES.get(name.partition(" ")[0], (0.0, 1.0)) for name in NUMERIC_INPUTS]
    return {"mean": [mean for mean, _ in pairs], "std": [std for _, std in pairs]}


def make_health_version(
    params: Params | None = None, *, target: str = "health_risk", **values: Any
) -> ModelVersion:
    """Active, with its parameters in the director's storage, and not prepared for serving."""
    study = services.study_for(target)
    ModelVersion.objects.of_federation().active().filter(study=study).update(
        state=ModelVersion.State.RETIRED
    )
    plan = services.plan_for(study, num_rounds=1)
    run = make_run(
        TrainingRun.Status.FINISHED,
        study=study,
        plan=plan.to_json(),
        plan_sha256=plan.sha256,
        num_rounds=1,
        finished_at=timezone.now(),
        training_at=timezone.now(),
    )
    params = params if params is not None else make_params()
    content = to_bytes(params)
    folder = f"studies/{study.name}/global_model/versions/{params_sha256(params)[:12]}"
    sha256 = write_object(director_storage(), f"{folder}/model.safetensors", content)
    manifest = {
        "study": plan.study,
        "number": 1,
        "target": target,
        "target_definition": plan.target_definition,
        "classes": list(target_named(target).classes),
        "network": plan.network,
        "schema_sha256": reading_schema(target).sha256,
        "vocabulary_sha256": plan.vocabulary_sha256,
        "scaling": scaling_json(),
        "params_sha256": params_sha256(params),
        "lineage": {"plan_sha256": plan.sha256, "strategy": "fedavg", "updates": []},
    }
    return make_version(
        make_round(run, number=1, status=TrainingRound.Status.AGGREGATED),
        **{
            "manifest": manifest,
            "params_sha256": manifest["params_sha256"],
            "object_sha256": sha256,
            "storage_key": folder,
            "state": ModelVersion.State.ACTIVE,
        }
        | values,
    )


def trained_on(*inputs: str, num_rows: int = 1000) -> dict[str, dict[str, Any]]:
    """As a node releases of rows that always knew these inputs, and no others."""
    return {"1": {name: {"num_rows": num_rows, "num_readings": num_rows} for name in inputs}}


def make_serving(version: ModelVersion | None = None, **values: Any) -> Serving:
    """A version that can be served: 0.5 is high risk, and the risk the model's own."""
    version = version or make_health_version()
    values.setdefault("status", Serving.Status.COMPLETE)
    values.setdefault("completed_at", timezone.now())
    values.setdefault("training_distribution", trained_on(*INPUT_NAMES))
    row = Serving.objects.create(version=version, **values)
    serving.forget_served()
    return row
