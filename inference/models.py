from django.db import models

from diagnoses.models import Admission
from envoys.models import Envoy, User
from envoys.work import LeasedWork
from training.models import ModelVersion

SMALLEST_CELL = 10


class InferenceRun(LeasedWork):
    """A whole hospital scored with one model version."""

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="inference_runs")
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    counts = models.JSONField(default=dict)  # class -> number of admissions
    requested_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"inference {self.pk} for envoy {self.envoy_id}"

    def counts_in_words(self) -> str:
        """Admissions per class, in the classes' order, which JSON in PostgreSQL does not keep.

        A small count could give a patient away and is not shown.
        """
        classes = self.model_version.manifest["classes"] if self.counts else []
        return ", ".join(
            f"{name} {self.counts[name]:,}"
            if self.counts[name] >= SMALLEST_CELL
            else f"{name} <{SMALLEST_CELL}"
            for name in classes
        )


class Prediction(models.Model):
    admission = models.ForeignKey(Admission, on_delete=models.CASCADE, related_name="predictions")
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

    def __str__(self) -> str:
        return f"prediction {self.pk} by version {self.model_version_id}"
