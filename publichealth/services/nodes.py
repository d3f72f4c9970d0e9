"""A node at a glance: what its keeper's page and the API's summary show."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Q

from diagnoses.models import Snapshot
from envoys.models import Envoy
from publichealth.models import DriftCheck, Reading
from training.models import Distribution, StudyMembership

MOST_DELIVERED = 10


@dataclass(frozen=True)
class NodeSummary:
    """The figures of a node, for its own people: nothing is suppressed.

    Attributes:
        num_labelled: readings whose outcome or tier is known: what a study can train on.
        newest_at: when the newest reading was measured; None without one.
        delivered: the models that have arrived, the newest first.
        waiting: packages that nobody has answered, the newest first.
        drift_check: the last that is complete.
    """

    envoy: Envoy
    num_readings: int
    num_labelled: int
    newest_at: datetime | None
    last_export: Snapshot | None
    delivered: list[Distribution]
    waiting: list[StudyMembership]
    drift_check: DriftCheck | None

    @property
    def num_unlabelled(self) -> int:
        return self.num_readings - self.num_labelled


def node_summary(envoy: Envoy) -> NodeSummary:
    is_labelled = Q(outcome__isnull=False) | Q(tier__isnull=False)
    figures = Reading.objects.filter(envoy=envoy).aggregate(
        num_readings=Count("pk"),
        num_labelled=Count("pk", filter=is_labelled),
        newest_at=Max("measured_at"),
    )
    delivered = Distribution.objects.filter(envoy=envoy, status=Distribution.Status.COMPLETE)
    waiting = StudyMembership.objects.waiting().filter(envoy=envoy).select_related("study")
    checks = DriftCheck.objects.filter(envoy=envoy, status=DriftCheck.Status.COMPLETE)
    return NodeSummary(
        envoy=envoy,
        **figures,
        last_export=Snapshot.objects.filter(envoy=envoy).first(),
        delivered=list(
            delivered.select_related("version__study").order_by("-delivered_at", "-pk")[
                :MOST_DELIVERED
            ]
        ),
        waiting=list(waiting.order_by("-packaged_at", "-pk")),
        drift_check=checks.first(),
    )
