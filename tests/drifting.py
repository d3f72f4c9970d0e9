"""Nodes whose readings have drifted, or not, from what a served model was trained on."""

from datetime import datetime, timedelta

import numpy as np
from django.utils import timezone

from envoys.models import Envoy
from federated.drift import distributions
from federated.readings import INPUT_NAMES
from publichealth.models import Reading, Serving
from tests.factories import make_envoy
from tests.health import make_serving
from training.models import TrainingRun

HOUR = timedelta(hours=1)


def make_readings(
    envoy: Envoy, num: int, *, aqi: float = 70.0, received_at: datetime | None = None, seed: int = 0
) -> None:
    """Readings of air quality, normal about a mean, with a standard deviation of 20."""
    rng = np.random.default_rng([seed, envoy.pk, num, int(aqi)])
    now, known = timezone.now(), Reading.objects.filter(envoy=envoy).count()
    rows = [
        Reading(
            envoy=envoy,
            subject_id=f"s{known + number}",
            measured_at=now + timedelta(seconds=number),
            aqi=float(value),
        )
        for number, value in enumerate(rng.normal(aqi, 20, num).clip(0))
    ]
    created = Reading.objects.bulk_create(rows)
    ids = [row.pk for row in created]
    Reading.objects.filter(pk__in=ids).update(received_at=received_at or now)


def make_node(name: str = "Air node", **values: object) -> Envoy:
    return make_envoy(**{"name": name, "kind": Envoy.Kind.ENVIRONMENT} | values)


def make_trained_serving(*envoys: Envoy, aqi: float = 70.0) -> Serving:
    """Of a version that was trained two hours ago on 1,000 readings of each of the nodes."""
    values = np.full((1000, len(INPUT_NAMES)), np.nan)
    rng = np.random.default_rng(9)
    values[:, INPUT_NAMES.index("aqi")] = rng.normal(aqi, 20, 1000).clip(0)
    trained_on = {str(envoy.pk): distributions(values) for envoy in envoys}
    serving = make_serving(training_distribution=trained_on)
    TrainingRun.objects.filter(pk=serving.version.run_id).update(
        started_at=timezone.now() - 2 * HOUR
    )
    return serving
