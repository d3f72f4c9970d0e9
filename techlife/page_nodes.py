"""Nodes of readings for the pages of public health to be timed and pictured with.

As in `techlife.page_world`, everything that is computed is made by the services, worked off in this
process; only readings in numbers are drawn straight into the database.
"""

from datetime import timedelta

from django.utils import timezone

from envoys.models import Envoy, User
from federated.synthetic_readings import generate
from publichealth.models import Reading
from publichealth.services import drift, serving
from publichealth.services.readings import record_readings
from publichealth.services.surveillance import count_hours_again
from publichealth.services.synthetic_nodes import (
    CITY_MONITORS,
    NODES,
    city_readings,
    last_day_of_cities,
    open_node,
    record_generated,
)
from techlife import demonstration
from training import services

SMALL_ROWS, NUM_ROUNDS = 200, 3
NUM_MONITOR_READINGS = 40_000  # of the last day: nine cities, one each every 19 seconds
ROWS_OF_A_NODE = 10_000  # new since the training
AT_ONCE = 2_000


def make_small_nodes(scientist: User) -> User:
    """Nodes that have trained a model together, and one of monitors; returns who keeps the first."""
    nodes = []
    for name, node in NODES.items():
        envoy = open_node(node.name, node.kind)
        record_generated(envoy, generate(name, num_rows=SMALL_ROWS, seed=0), seed=0)
        nodes.append(envoy)
    monitors = open_node(CITY_MONITORS.name, CITY_MONITORS.kind)
    study = services.study_for("health_risk")
    plan = services.plan_for(study, num_rounds=NUM_ROUNDS)
    keepers = demonstration.make_accounts(nodes)
    demonstration.approve_for_all(study, plan, nodes, keepers)
    run = services.start_run(study, plan, started_by=scientist, envoys=nodes)
    while run.is_active:
        services.advance_runs()
        run.refresh_from_db()
    services.request_report(run)
    version = run.versions.of_federation().get()
    services.distribute_version(version, distributed_by=scientist, envoys=nodes)
    serving.request_missing_servings()
    record_readings(monitors, last_day_of_cities(seed=0))
    for envoy in (*nodes, monitors):
        _add_new_readings(envoy, drift.NEWEST)
    drift.request_due_checks()
    count_hours_again()
    return keepers[nodes[0].pk]


def grow_nodes() -> int:
    """A busy day of nine cities, and what wearables and clinics send; returns how many readings."""
    monitors = Envoy.objects.get(name=CITY_MONITORS.name)
    now, cities = timezone.now(), len(city_readings(timezone.now(), seed=1))
    num_moments = NUM_MONITOR_READINGS // cities
    every = timedelta(days=1) / num_moments
    moments = [now - number * every for number in range(num_moments)]
    with demonstration.progress_bar("Monitoring cities", unit="readings") as bar:
        for first in range(0, num_moments, AT_ONCE // cities):
            some = moments[first : first + AT_ONCE // cities]
            readings = [each for moment in some for each in city_readings(moment, seed=1)]
            record_readings(monitors, readings)
            bar.update(len(readings))
    for node in NODES.values():
        _add_new_readings(Envoy.objects.get(name=node.name), ROWS_OF_A_NODE)
    count_hours_again(now=now + timedelta(minutes=2))
    for _ in range(24):  # an hour a call, where all hours are kept already
        count_hours_again(now=now + timedelta(minutes=2))
    return Reading.objects.count()


def _add_new_readings(envoy: Envoy, num_rows: int) -> None:
    """Readings like those that a node has, of others than had them, in the last half of a day."""
    like = list(Reading.objects.filter(envoy=envoy).order_by("pk")[:SMALL_ROWS])
    already, now = Reading.objects.filter(envoy=envoy).count(), timezone.now()
    step = timedelta(hours=12) / num_rows
    for first in range(0, num_rows, AT_ONCE):
        Reading.objects.bulk_create(
            Reading(
                envoy=envoy,
                subject_id=f"new-{already + number}",
                measured_at=now - number * step,
                **like[number % len(like)].values,
            )
            for number in range(first, min(first + AT_ONCE, num_rows))
        )
    serving.score_unscored()
