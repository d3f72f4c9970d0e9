from typing import ClassVar, Self

from django.db import models

from envoys.models import Envoy, User
from envoys.work import LeasedWork, WorkQuerySet
from federated.readings import INPUT_NAMES, ReadingRecord, input_named
from training.models import ModelVersion, Study


class ReadingQuerySet(models.QuerySet["Reading"]):
    def visible_to(self, user: User) -> Self:
        """A node's own keeper sees its rows; everybody else sees counts and means."""
        if user.role != User.Role.DOCTOR:
            return self.none()
        return self.filter(envoy__in=Envoy.objects.visible_to(user))

    def of_monitors(self) -> Self:
        """Those whose subject is a place, as a monitor of the air reports them, and no person."""
        return self.filter(envoy__kind=Envoy.Kind.ENVIRONMENT)


class Reading(models.Model):
    """What a wearable, an air monitor or a clinic has measured once.

    The units and plausible ranges of the values are those of `federated.readings.INPUTS`; null is
    what was not measured.
    """

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="readings")
    subject_id = models.CharField(max_length=64)  # who or what was measured, without meaning
    city = models.CharField(max_length=60, blank=True)
    measured_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)

    heart_rate = models.FloatField(null=True)
    spo2 = models.FloatField(null=True)
    steps = models.FloatField(null=True)
    sleep_hours = models.FloatField(null=True)
    age = models.FloatField(null=True)
    bmi = models.FloatField(null=True)
    active = models.FloatField(null=True)
    smoker = models.FloatField(null=True)
    chronic = models.FloatField(null=True)
    aqi = models.FloatField(null=True)
    pm25 = models.FloatField(null=True)
    pm10 = models.FloatField(null=True)
    no2 = models.FloatField(null=True)
    o3 = models.FloatField(null=True)
    temperature = models.FloatField(null=True)
    humidity = models.FloatField(null=True)
    wind_speed = models.FloatField(null=True)
    cough = models.FloatField(null=True)
    breathless = models.FloatField(null=True)

    outcome = models.PositiveSmallIntegerField(null=True)  # 1 high risk, 0 low
    tier = models.PositiveSmallIntegerField(null=True)  # 0, 1, 2 for Low, Medium, High

    # What the model released at the time made of it; null before the first release.
    risk_score = models.FloatField(null=True)
    scored_with = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    objects = ReadingQuerySet.as_manager()

    class Meta:
        ordering = ["-measured_at", "-pk"]
        indexes = [
            models.Index(fields=["city", "measured_at"]),
            models.Index(fields=["measured_at"]),
            models.Index(fields=["envoy", "received_at"]),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["envoy", "subject_id", "measured_at"], name="one_reading_per_moment"
            )
        ]

    def __str__(self) -> str:
        return f"reading {self.pk}"

    @property
    def values(self) -> dict[str, float]:
        """What was measured, by input."""
        found = {name: getattr(self, name) for name in INPUT_NAMES}
        return {name: value for name, value in found.items() if value is not None}

    def to_record(self) -> ReadingRecord:
        return ReadingRecord(self.subject_id, self.values, self.outcome, self.tier)


class Serving(LeasedWork):
    """What a released version of a study of readings needs beside its parameters.

    A worker finds it on the nodes' validation and training rows when a version is released.
    """

    version = models.OneToOneField(ModelVersion, on_delete=models.CASCADE, related_name="serving")
    # Calibration: log-odds of the risk = slope × the model's + intercept.
    slope = models.FloatField(default=1.0)
    intercept = models.FloatField(default=0.0)
    threshold = models.FloatField(default=0.5)  # from this risk on it is called high
    num_validation = models.PositiveIntegerField(default=0)
    # By input, its histogram and moments over the training rows of each node: {envoy id: {…}}. Of
    # a node that was erased since, only in how many rows each input was known.
    training_distribution = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"serving of {self.version}"


class HourlyFigures(models.Model):
    """What monitors' readings of a past hour add up to, by city: kept, since a day's are many.

    As `publichealth.tallies` counts them: no reading of a person is in it.

    A beat counts each hour of the last day again every minute, so that it follows readings that
    came late, were scored later, or were erased.
    """

    starts_at = models.DateTimeField(unique=True)
    cities = models.JSONField(default=dict)  # by city, a `publichealth.tallies.Tally`
    counted_at = models.DateTimeField()

    class Meta:
        ordering = ["starts_at"]
        verbose_name_plural = "hourly figures"

    def __str__(self) -> str:
        return f"readings from {self.starts_at:%Y-%m-%d %H:%M} on"


class AlertThreshold(models.Model):
    """From which value on a city's figure is an alert; without a row the default applies."""

    class Figure(models.TextChoices):
        RISK = "RISK", "Mean risk"
        AQI = "AQI", "Air quality index"
        PM25 = "PM25", "PM2.5"

    figure = models.CharField(max_length=8, choices=Figure.choices, unique=True)
    value = models.FloatField()
    set_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    set_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["figure"]

    def __str__(self) -> str:
        return f"{self.get_figure_display()} from {self.value:g}"


class DriftQuerySet(WorkQuerySet):
    def visible_to(self, user: User) -> Self:
        return self.filter(envoy__in=Envoy.objects.visible_to(user))


class DriftCheck(LeasedWork):
    """A node's newest readings held against what the released model was trained on."""

    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="drift_checks")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    num_readings = models.PositiveIntegerField(default=0)
    # A dictionary an input: its name and the fields of `federated.drift.Drift`, `alerts` included
    figures = models.JSONField(default=list)
    is_alert = models.BooleanField(default=False)
    requested_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    completed_at = models.DateTimeField(null=True)

    objects: ClassVar = DriftQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        indexes = [models.Index(fields=["envoy", "created_at"])]

    def __str__(self) -> str:
        return f"drift check {self.pk} of envoy {self.envoy_id}"

    @property
    def alert_titles(self) -> list[str]:
        """Which inputs have drifted, as a page calls them."""
        return [input_named(each["input"]).title for each in self.figures if each["alerts"]]


class RetrainingProposal(models.Model):
    """Somebody has seen drift, and asks who runs the federation to train again."""

    class Answer(models.TextChoices):
        WAITING = "WAITING", "Waiting for an answer"
        ACCEPTED = "ACCEPTED", "Accepted"
        DECLINED = "DECLINED", "Declined"
        WITHDRAWN = "WITHDRAWN", "Withdrawn"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="proposals")
    drift_check = models.ForeignKey(
        DriftCheck, null=True, on_delete=models.SET_NULL, related_name="proposals"
    )
    reason = models.TextField(blank=True)
    proposed_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    answer = models.CharField(max_length=16, choices=Answer.choices, default=Answer.WAITING)
    answered_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    answered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"proposal {self.pk} to train {self.study} again"

    @property
    def is_waiting(self) -> bool:
        return self.answer == self.Answer.WAITING
