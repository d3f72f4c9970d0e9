"""A hospital at a glance: what its page and the API's summary show."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count
from django.utils import timezone

from diagnoses.models import Admission, Import, Patient, Snapshot
from envoys.models import Envoy
from inference.models import InferenceRun, Prediction
from inference.services import study_in_use
from training.models import Distribution, ModelChoice, ModelVersion, Study, StudyMembership
from training.services import choice_in_use


@dataclass(frozen=True)
class RiskCount:
    """How many of a hospital's admissions the model in use puts into a class."""

    index: int
    name: str
    num_admissions: int
    share: float


@dataclass(frozen=True)
class NextStep:
    """What somebody at the hospital would do now, and the page to do it on."""

    text: str
    action: str
    page: str


@dataclass(frozen=True)
class HospitalSummary:
    envoy: Envoy
    study: Study | None
    num_patients: int
    num_admissions: int
    num_open: int
    model_version: ModelVersion | None  # the global one that was delivered here last
    delivered_at: datetime | None
    risks: list[RiskCount]
    num_scored: int
    num_waiting: int  # packages that nobody has answered
    last_export: Snapshot | None
    last_inference: InferenceRun | None  # by the model in use
    choice: ModelChoice | None  # which model of the run suits this hospital
    next_steps: list[NextStep] = field(default_factory=list)

    @property
    def model_age_days(self) -> int | None:
        if self.model_version is None:
            return None
        return (timezone.now() - self.model_version.created_at).days

    @property
    def num_unscored(self) -> int:
        return max(0, self.num_admissions - self.num_scored)


def model_in_use(envoy: Envoy) -> Distribution | None:
    """The last delivery of the federation's model, with version and study."""
    study = study_in_use(envoy)
    if study is None:
        return None
    return (
        Distribution.objects.filter(
            version__study=study, envoy=envoy, status=Distribution.Status.COMPLETE
        )
        .select_related("version__study")
        .order_by("-delivered_at", "-pk")
        .first()
    )


def hospital_summary(envoy: Envoy) -> HospitalSummary:
    """The figures of a hospital, for its own people: nothing is suppressed."""
    delivered = model_in_use(envoy)
    version = delivered.version if delivered else None
    unfinished = Import.objects.filter(envoy=envoy).exclude(status=Import.Status.COMPLETE)
    imports = list(unfinished.values_list("pk", flat=True))  # joining them would cost more
    admissions = Admission.objects.filter(envoy=envoy).exclude(source_import__in=imports)
    risks = _risks(envoy, version)
    summary = HospitalSummary(
        envoy=envoy,
        study=version.study if version else study_in_use(envoy),
        num_patients=Patient.objects.filter(envoy=envoy).exclude(source_import__in=imports).count(),
        num_admissions=admissions.count(),
        num_open=admissions.open().count(),
        model_version=version,
        delivered_at=delivered.delivered_at if delivered else None,
        risks=risks,
        num_scored=sum(risk.num_admissions for risk in risks),
        num_waiting=StudyMembership.objects.waiting().filter(envoy=envoy).count(),
        last_export=Snapshot.objects.filter(envoy=envoy).first(),
        last_inference=InferenceRun.objects.filter(envoy=envoy, model_version=version).first(),
        choice=choice_in_use(version.study, envoy) if version else None,
    )
    summary.next_steps.extend(_next_steps(summary))
    return summary


def _risks(envoy: Envoy, version: ModelVersion | None) -> list[RiskCount]:
    if version is None:
        return []
    found = Prediction.objects.filter(envoy=envoy, model_version=version).order_by()
    counts = dict(found.values_list("predicted_class").annotate(num_admissions=Count("*")))
    total = sum(counts.values())
    return [
        RiskCount(index, name, counts.get(index, 0), counts.get(index, 0) / total if total else 0.0)
        for index, name in enumerate(version.manifest["classes"])
    ]


def _next_steps(summary: HospitalSummary) -> list[NextStep]:
    steps = []
    if not summary.num_patients:
        steps.append(
            NextStep(
                "There is no patient yet: upload the hospital's diagnoses, or register patients"
                " one by one.",
                "Upload a file",
                "diagnoses:import-create",
            )
        )
    if summary.num_waiting:
        what = "A training package waits" if summary.num_waiting == 1 else "Training packages wait"
        steps.append(
            NextStep(
                f"{what} for an answer: read what would be trained on, and approve or refuse it.",
                "Read it" if summary.num_waiting == 1 else "Read them",
                "training:package-list",
            )
        )
    if summary.num_patients and summary.last_export is None:
        steps.append(
            NextStep(
                "The hospital's rows have never been exported: a training needs an export.",
                "Export",
                "diagnoses:export-list",
            )
        )
    running = summary.last_inference and summary.last_inference.is_active
    if summary.model_version and summary.num_unscored and not running:
        steps.append(
            NextStep(
                f"{summary.num_unscored:,} of {summary.num_admissions:,} admissions have no risk by"
                " the model in use: have the hospital scored.",
                "Score the hospital",
                "inference:inference-run-list",
            )
        )
    return steps
