"""Hospitals with the benchmark's rows, on which a run trains as on any others.

A snapshot is complete as soon as it is frozen: import and export are no part of a round. The arrays
are built where a worker first opens it, under its hash, as elsewhere.
"""

import hashlib
from collections.abc import Callable

from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.models import Envoy, User
from federated.datasets import ClientDataset, DatasetSource
from techlife.bench.workloads import Workload, bench_schema, make_rows


def make_hospitals(workload: Workload) -> tuple[list[Envoy], dict[int, User]]:
    """The workload's envoys, and by envoy id a doctor who can approve a plan there."""
    envoys = [
        Envoy.objects.create(name=name, slug=name, prefix=f"envoys/{name}")
        for name in workload.hospitals()
    ]
    doctors = {
        envoy.pk: User.objects.create(
            username=f"doctor-of-{envoy.slug}", role=User.Role.DOCTOR, envoy=envoy
        )
        for envoy in envoys
    }
    for envoy in envoys:
        _snapshot(envoy, workload.num_rows).save()
    return envoys, doctors


def _snapshot(envoy: Envoy, num_rows: int) -> Snapshot:
    return Snapshot(
        envoy=envoy,
        sha256=hashlib.sha256(f"{envoy.slug} {num_rows}".encode()).hexdigest(),
        status=Snapshot.Status.COMPLETE,
        num_admissions=num_rows,
        completed_at=timezone.now(),
    )


def _freeze(envoy_id: int, user_id: int | None) -> int:
    envoy = Envoy.objects.get(pk=envoy_id)
    snapshot = _snapshot(envoy, _num_rows(envoy_id))
    snapshot.requested_by_id = user_id
    snapshot.save()
    return snapshot.pk


def _num_rows(envoy_id: int) -> int:
    newest = Snapshot.objects.filter(envoy=envoy_id).latest("pk")
    return newest.num_admissions


def _build(snapshot_id: int, target: str, heartbeat: Callable[[], None]) -> ClientDataset:
    snapshot = Snapshot.objects.select_related("envoy").get(pk=snapshot_id)
    return make_rows(snapshot.envoy.slug, snapshot.num_admissions)


def _export(snapshot_id: int) -> None:
    raise NotImplementedError("the benchmark's snapshots are complete from the start")


SOURCE = DatasetSource(
    schema=bench_schema,
    freeze=_freeze,
    export=_export,
    build=_build,
    count_labelled_patients=lambda envoy_id, target, limit: _num_rows(envoy_id),
)
