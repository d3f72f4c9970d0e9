from typing import ClassVar, Self

from django.db import models

from diagnoses.models import Admission
from envoys.models import Envoy, User
from envoys.work import LeasedWork, WorkQuerySet
from training.models import ModelVersion


class OfHospitalQuerySet(WorkQuerySet):
    def visible_to(self, user: User) -> Self:
        return self.filter(envoy__in=Envoy.objects.visible_to(user))


class InferenceRun(LeasedWork):
    """A whole hospital scored with one model version."""

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="inference_runs")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    counts = models.JSONField(default=dict)  # class -> number of admissions
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    objects: ClassVar = OfHospitalQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"inference {self.pk} for envoy {self.envoy_id}"

    def counts_in_words(self) -> str:
        """Admissions per class and in all; a dash is not shown, it could give a patient away."""
        from inference.tiers import tier_counts  # it loads NumPy, which setting up need not

        counts = tier_counts(self)
        return ", ".join(f"{name} {count}" for name, count in counts.in_words()) if counts else ""


class Prediction(models.Model):
    admission = models.ForeignKey(Admission, on_delete=models.CASCADE, related_name="predictions")
    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="+")  # the admission's
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    inference_run = models.ForeignKey(
        InferenceRun, null=True, on_delete=models.SET_NULL, related_name="predictions"
    )
    predicted_class = models.PositiveSmallIntegerField()
    probabilities = models.JSONField()  # one per class, in the order of the manifest
    # [{"input", "change"}]: how much leaving an input out lowers the predicted class's probability
    contributions = models.JSONField(default=list)
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["admission", "model_version"], name="one_prediction_per_version"
            )
        ]
        # How many of a hospital's admissions are at which risk is read from this index alone.
        indexes = [
            models.Index(
                fields=["envoy", "model_version", "predicted_class"], name="predictions_by_class"
            )
        ]

    def __str__(self) -> str:
        return f"prediction {self.pk} by version {self.model_version_id}"


class Erasure(LeasedWork):
    """The deletion of a hospital: its rows and objects, batch by batch."""

    envoy = models.ForeignKey(  # empty: no run names it, and its row is gone too
        Envoy, null=True, on_delete=models.SET_NULL, related_name="erasures"
    )
    envoy_name = models.CharField(max_length=200)  # as it was
    counts = models.JSONField(default=list)  # [{"what", "count"}]: what went; – is under 10
    remains = models.JSONField(default=list)  # [{"what", "why"}], in words
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.envoy_name
