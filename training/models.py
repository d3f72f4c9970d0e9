from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.models import Envoy, EnvoyQuerySet, User
from envoys.work import LeasedWork, WorkQuerySet
from federated.targets import targets
from federated.words import Words, words_of

MAIN_STUDY = "diagnosis-risk"


class Study(models.Model):
    """What is predicted, from which inputs, by which network."""

    name = models.SlugField(max_length=80, unique=True)
    title = models.CharField(max_length=200)
    dataset = models.CharField(max_length=40, default="diagnoses")  # see federated.datasets
    target = models.CharField(max_length=40)
    target_definition = models.TextField(blank=True)  # where the outcome comes from, in words
    network = models.CharField(max_length=40, default="logistic_regression")
    schema_sha256 = models.CharField(max_length=64)
    min_examples = models.PositiveIntegerField(default=20)
    min_contributors = models.PositiveIntegerField(default=3)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "studies"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.title

    @property
    def envoys(self) -> EnvoyQuerySet:
        """Who has rows of its kind, and is active."""
        return Envoy.objects.active().with_dataset(self.dataset)

    @property
    def words(self) -> Words:
        """What pages call who trains it, and whose rows it is trained on."""
        return words_of([self.dataset])

    @property
    def target_title(self) -> str:
        """As people write it; a target that this version does not know, as it was stored."""
        return _title_among(targets(), self.target)

    @property
    def network_title(self) -> str:
        from federated.architectures import architectures  # with NumPy, see `_title_of`

        return _title_among(architectures(), self.network)

    @property
    def storage_prefix(self) -> str:
        """Before every key of this study: none for the one that the layout was made for."""
        return "" if self.name == MAIN_STUDY else f"studies/{self.name}/"


class MembershipQuerySet(models.QuerySet["StudyMembership"]):
    def standing(self) -> Self:
        return self.filter(approved_at__isnull=False, revoked_at__isnull=True)

    def waiting(self) -> Self:
        """Packages that no doctor has answered, but for those that a newer one has replaced."""
        return self.with_answer().answered(StudyMembership.Answer.WAITING)

    def with_answer(self) -> Self:
        """With `answer`, a `StudyMembership.Answer`: what the hospital has said to the package."""
        newer = StudyMembership.objects.filter(
            study=models.OuterRef("study"),
            envoy=models.OuterRef("envoy"),
            packaged_at__gt=models.OuterRef("packaged_at"),
        )
        answers = StudyMembership.Answer
        return self.annotate(
            answer=models.Case(
                models.When(refused_at__isnull=False, then=models.Value(answers.REFUSED)),
                models.When(revoked_at__isnull=False, then=models.Value(answers.REVOKED)),
                models.When(approved_at__isnull=False, then=models.Value(answers.APPROVED)),
                models.When(models.Exists(newer), then=models.Value(answers.REPLACED)),
                default=models.Value(answers.WAITING),
                output_field=models.CharField(),
            )
        )

    def answered(self, answer: str) -> Self:
        """Of those `with_answer`."""
        return self.filter(Q(answer=answer))

    def num_by_answer(self) -> dict[str, int]:
        answers = self.with_answer().order_by().values_list(models.F("answer"))
        return dict(answers.annotate(models.Count("pk")))

    def visible_to(self, user: User) -> Self:
        return self.filter(envoy__in=Envoy.objects.visible_to(user))


class StudyMembership(models.Model):
    """A hospital's answer to one plan of a study: who approved which hash, and until when."""

    class Answer(models.TextChoices):
        WAITING = "WAITING", "Waiting for an answer"
        APPROVED = "APPROVED", "Approved"
        REFUSED = "REFUSED", "Refused"
        REVOKED = "REVOKED", "Revoked"
        REPLACED = "REPLACED", "Replaced by a newer one"

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="memberships")
    envoy = models.ForeignKey(Envoy, on_delete=models.CASCADE, related_name="memberships")
    plan = models.JSONField()
    plan_sha256 = models.CharField(max_length=64)
    package_sha256 = models.CharField(max_length=64)
    packaged_at = models.DateTimeField()  # of the newest package with this plan
    approved_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    approved_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    refused_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    refused_at = models.DateTimeField(null=True)
    refusal_reason = models.TextField(blank=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["study", "envoy", "plan_sha256"], name="one_answer_per_plan"
            )
        ]

    def __str__(self) -> str:
        return f"{self.envoy} on plan {self.plan_sha256[:12]}"

    @property
    def strategy_title(self) -> str:
        return _title_of(self.plan.get("strategy", ""))


def _title_of(strategy: str) -> str:
    """As people write it; a strategy that this version does not know, as it was stored."""
    from federated.strategies import strategies  # it loads NumPy, which setting up need not

    return _title_among(strategies(), strategy)


def _title_among(known: Iterable[Any], name: str) -> str:
    return next((each.title for each in known if each.name == name), name)


class RunQuerySet(models.QuerySet["TrainingRun"]):
    def active(self) -> Self:
        return self.filter(status__in=[TrainingRun.Status.PREPARING, TrainingRun.Status.TRAINING])

    def visible_to(self, user: User) -> Self:
        """All for who runs the federation; for a doctor those their hospital takes part in."""
        return self.filter(
            pk__in=RunParticipant.objects.filter(envoy__in=Envoy.objects.visible_to(user)).values(
                "run_id"
            )
        )


REPORT_MAY_FOLLOW = timedelta(seconds=10)


class TrainingRun(models.Model):
    """A training of a study: rounds 1..n, after round 0 has collected pooled statistics."""

    class Status(models.TextChoices):
        PREPARING = "PREPARING", "Freezing data"
        TRAINING = "TRAINING", "Training"
        FINISHED = "FINISHED", "Finished"
        FAILED = "FAILED", "Failed"
        STOPPED = "STOPPED", "Stopped"

    class Mode(models.TextChoices):
        AUTOMATIC = "AUTOMATIC", "Round after round"
        MANUAL = "MANUAL", "One round, aggregated on request"

    class OnMiss(models.TextChoices):
        """What a round does that lacks an update it asked for; see `services.rounds`."""

        GO_ON = "GO_ON", "Go on with the quorum and all who must take part; fail without them"
        WAIT = "WAIT", "Wait for a person, who asks again, waits on or goes on without it"
        STOP = "STOP", "Stop: the run fails, and says who is missing"

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="runs")
    mode = models.CharField(max_length=16, choices=Mode.choices, default=Mode.AUTOMATIC)
    plan = models.JSONField()
    plan_sha256 = models.CharField(max_length=64)
    strategy = models.CharField(max_length=40, default="fedavg")
    num_rounds = models.PositiveIntegerField(default=10)
    seed = models.BigIntegerField(default=0)
    quorum = models.PositiveIntegerField(default=1)
    deadline_seconds = models.PositiveIntegerField(default=3600)  # of one round
    on_miss = models.CharField(max_length=16, choices=OnMiss.choices, default=OnMiss.GO_ON)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PREPARING)
    reason = models.TextField(blank=True)
    scaling = models.JSONField(null=True)  # pooled in round 0: {"mean": […], "std": […]}
    params_sha256 = models.CharField(max_length=64, blank=True)  # the newest global parameters
    final_sha256 = models.CharField(max_length=64, blank=True)
    report = models.JSONField(null=True)  # what each hospital gains; see RunReport
    started_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    started_at = models.DateTimeField(auto_now_add=True)
    training_at = models.DateTimeField(null=True)  # when round 1 could open
    finished_at = models.DateTimeField(null=True)
    # When its objects and hashes were gone through after its end, and what was wrong, in words.
    checked_at = models.DateTimeField(null=True)
    check_problems = models.JSONField(default=list)
    # Of rounds 1 up to the one before this, updates and parameters need not be there any more; up
    # to the one before that, they are gone. See `services.retention`.
    objects_kept_from_round = models.PositiveIntegerField(default=0)
    objects_removed_before_round = models.PositiveIntegerField(default=0)

    # No columns: whoever has looked says so, see `progress.with_counts`.
    num_partial_rounds: int | None = None
    waits_for_person = False  # its newest round goes on only when somebody has decided

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-pk"]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.study}"

    @property
    def is_active(self) -> bool:
        return self.status in (self.Status.PREPARING, self.Status.TRAINING)

    @property
    def strategy_title(self) -> str:
        return _title_of(self.strategy)

    def has_let_go_of(self, round_number: int) -> bool:
        """Whether that round's objects may be gone; round 0 keeps its own."""
        return 0 < round_number < self.objects_kept_from_round

    @property
    def last_round_let_go(self) -> int:
        return max(self.objects_kept_from_round - 1, 0)

    @property
    def is_partial(self) -> bool:
        """Whether a round of it counted fewer hospitals than the run was started with."""
        if self.num_partial_rounds is None:
            self.num_partial_rounds = TrainingRound.objects.filter(run=self).partial().count()
        return self.num_partial_rounds > 0

    @property
    def is_being_reported(self) -> bool:
        """Whether its report is on the way; right after the end it may be about to be asked for."""
        if self.status != self.Status.FINISHED or self.report or self.finished_at is None:
            return False
        work = RunReport.objects.filter(run=self).first()
        if work is None:
            return timezone.now() - self.finished_at < REPORT_MAY_FOLLOW
        return work.is_active


class ParticipantQuerySet(models.QuerySet["RunParticipant"]):
    def expected(self) -> Self:
        """Whose data was frozen for the run: a round without one of them is no whole one."""
        return self.filter(snapshot__isnull=False)


class RunParticipant(models.Model):
    """An envoy in a run: its frozen data, or why it sits out."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="participants")
    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="+")
    snapshot = models.ForeignKey(Snapshot, null=True, on_delete=models.PROTECT, related_name="+")
    num_labelled_patients = models.PositiveIntegerField(default=0)  # 0: not counted yet
    sits_out_because = models.TextField(blank=True)
    is_mandatory = models.BooleanField(default=False)  # no round of the run counts without it
    # Somebody looked at an odd update of it and released it: it is not screened again in this run.
    is_trusted = models.BooleanField(default=False)

    objects = ParticipantQuerySet.as_manager()

    class Meta:
        ordering = ["envoy__slug"]
        constraints = [
            models.UniqueConstraint(fields=["run", "envoy"], name="one_participation_per_run")
        ]

    def __str__(self) -> str:
        return f"{self.envoy} in run {self.run_id}"


class RoundQuerySet(models.QuerySet["TrainingRound"]):
    def collecting(self) -> Self:
        return self.filter(status=TrainingRound.Status.COLLECTING)

    def open_manual(self, study: Study) -> Self:
        """The round that waits for somebody to ask to aggregate."""
        return self.collecting().filter(
            run__in=study.runs.active().filter(mode=TrainingRun.Mode.MANUAL)
        )

    def closed(self) -> Self:
        return self.filter(status=TrainingRound.Status.CLOSED)

    def waiting(self) -> Self:
        """Closed, and nothing goes on before somebody has decided on what is in quarantine."""
        return self.closed().exclude(reason="")

    def waits_for_person(self) -> Self:
        """Of an active run, what goes on only when somebody has decided."""
        status = TrainingRound.Status
        waiting = self.filter(status__in=[status.COLLECTING, status.CLOSED]).exclude(reason="")
        return waiting.filter(run__in=TrainingRun.objects.active())

    def partial(self) -> Self:
        """Aggregated without the update of a hospital that the run was started with."""
        counted = ReceivedUpdate.objects.filter(
            assignment__training_round=models.OuterRef(models.OuterRef("pk")),
            assignment__envoy=models.OuterRef("envoy"),
            verdict=ReceivedUpdate.Verdict.ACCEPTED,
        )
        missing = RunParticipant.objects.expected().filter(
            ~models.Exists(counted), run=models.OuterRef("run")
        )
        return self.filter(models.Exists(missing), status=TrainingRound.Status.AGGREGATED)

    def all_in(self) -> Self:
        """Without an assignment that may still bring an update."""
        return self.exclude(pk__in=RoundAssignment.objects.unfinished().values("training_round"))

    def may_close(self, now: datetime) -> Self:
        """All in, or past the deadline."""
        unfinished = RoundAssignment.objects.unfinished().values("training_round")
        return self.filter(~Q(pk__in=unfinished) | Q(deadline_at__lt=now))


class TrainingRound(models.Model):
    """One exchange director → envoys → director. Number 0 collects pooled statistics.

    One with a reason that has not ended waits for a person: closed, for a decision on what is in
    quarantine; collecting, on who is missing.
    """

    class Status(models.TextChoices):
        COLLECTING = "COLLECTING", "Collecting"
        CLOSED = "CLOSED", "Closed"
        AGGREGATED = "AGGREGATED", "Aggregated"
        FAILED = "FAILED", "Failed"

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.COLLECTING)
    reason = models.TextField(blank=True)
    base_sha256 = models.CharField(max_length=64, blank=True)
    # What the strategy remembers on the server before this round; empty: nothing, or its first.
    state_sha256 = models.CharField(max_length=64, blank=True)
    result_sha256 = models.CharField(max_length=64, blank=True)
    opened_at = models.DateTimeField(auto_now_add=True)
    deadline_at = models.DateTimeField(null=True)  # none: open until somebody asks to aggregate
    closed_at = models.DateTimeField(null=True)
    aggregated_at = models.DateTimeField(null=True)

    objects = RoundQuerySet.as_manager()

    class Meta:
        ordering = ["run", "number"]
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="one_round_per_number")
        ]

    def __str__(self) -> str:
        return f"round {self.number} of run {self.run_id}"

    @property
    def is_waiting(self) -> bool:
        """For a decision on what is in quarantine."""
        return self.status == self.Status.CLOSED and bool(self.reason)

    @property
    def lacks_hospitals(self) -> bool:
        """Open past its time, until the missing come in or somebody goes on without them."""
        return self.status == self.Status.COLLECTING and bool(self.reason)

    @property
    def is_open_to_decisions(self) -> bool:
        """Whether an update that is released still counts in it."""
        return self.is_waiting or self.status == self.Status.COLLECTING


class AssignmentQuerySet(WorkQuerySet):
    def submitted(self) -> Self:
        return self.filter(status=RoundAssignment.Status.SUBMITTED)

    def missing(self) -> Self:
        """Without an update, and nobody has gone on without it."""
        brought = [RoundAssignment.Status.SUBMITTED, RoundAssignment.Status.DROPPED]
        return self.exclude(status__in=brought)

    def failed_in_open_rounds(self) -> Self:
        """What can still be asked for again."""
        rounds = TrainingRound.objects.collecting().filter(run__in=TrainingRun.objects.active())
        return self.failed().filter(training_round__in=rounds)


class RoundAssignment(LeasedWork):
    """What one envoy owes one round."""

    class Status(models.TextChoices):
        PENDING = "PENDING", "Waiting"
        TRAINING = "TRAINING", "Training"
        SUBMITTED = "SUBMITTED", "Submitted"
        MISSED = "MISSED", "Missed"
        FAILED = "FAILED", "Failed"
        DROPPED = "DROPPED", "Left out"  # a person has gone on without it

    WORKING: ClassVar[str] = "TRAINING"

    training_round = models.ForeignKey(
        TrainingRound, on_delete=models.CASCADE, related_name="assignments"
    )
    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="assignments")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    submitted_at = models.DateTimeField(null=True)

    objects: ClassVar = AssignmentQuerySet.as_manager()

    class Meta:
        ordering = ["training_round", "envoy__slug"]
        constraints = [
            models.UniqueConstraint(
                fields=["training_round", "envoy"], name="one_assignment_per_envoy"
            )
        ]

    def __str__(self) -> str:
        return f"{self.envoy_id} in {self.training_round_id}: {self.status}"


class UpdateQuerySet(models.QuerySet["ReceivedUpdate"]):
    def in_quarantine(self) -> Self:
        return self.filter(verdict=ReceivedUpdate.Verdict.QUARANTINED)

    def decided(self) -> Self:
        """What a person has released or rejected."""
        return self.filter(decided_at__isnull=False)

    def visible_to(self, user: User) -> Self:
        return self.filter(assignment__envoy__in=Envoy.objects.visible_to(user))


class ReceivedUpdate(models.Model):
    """An update as it arrived. A refused one is kept with its reason and not counted.

    One that was in quarantine keeps the reason for it. Released, it is accepted if its round still
    waited, else late; `decided_by` and `decided_at` say that it was released.
    """

    class Verdict(models.TextChoices):
        ACCEPTED = "ACCEPTED", "Accepted"
        REFUSED = "REFUSED", "Refused"
        LATE = "LATE", "Late"
        QUARANTINED = "QUARANTINED", "In quarantine"  # unlike the others: a person decides
        REJECTED = "REJECTED", "Rejected"  # a person has decided that it does not count

    assignment = models.ForeignKey(
        RoundAssignment, on_delete=models.CASCADE, related_name="updates"
    )
    sha256 = models.CharField(max_length=64)
    # What the strategy remembers at the hospital, in its own storage; it is not sent.
    client_state_sha256 = models.CharField(max_length=64, blank=True)
    num_examples = models.PositiveIntegerField()
    # {"train_loss", "validation_loss", "validation_auroc", "validation_accuracy",
    # "num_validation", "seconds"}
    metrics = models.JSONField(default=dict)
    verdict = models.CharField(max_length=16, choices=Verdict.choices)
    reason = models.TextField(blank=True)
    # How it differs from the round's others, see `federated.screening`; empty: not looked at.
    screening = models.JSONField(default=dict)
    decided_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True)  # when it was released or rejected
    received_at = models.DateTimeField(auto_now_add=True)

    objects = UpdateQuerySet.as_manager()

    class Meta:
        ordering = ["received_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["assignment"],
                condition=Q(verdict="ACCEPTED"),
                name="one_accepted_update_per_assignment",
            )
        ]

    def __str__(self) -> str:
        return f"{self.sha256[:12]} {self.verdict}"


class VersionQuerySet(models.QuerySet["ModelVersion"]):
    def of_federation(self) -> Self:
        return self.filter(envoy__isnull=True)

    def active(self) -> Self:
        return self.filter(state=ModelVersion.State.ACTIVE)

    def visible_to(self, user: User) -> Self:
        """The federation's versions, and the hospitals' own of those hospitals one may see."""
        return self.filter(Q(envoy__isnull=True) | Q(envoy__in=Envoy.objects.visible_to(user)))


class ModelVersion(models.Model):
    """An immutable set of parameters with all that is needed to use it."""

    class State(models.TextChoices):
        CANDIDATE = "CANDIDATE", "Candidate"
        APPROVED = "APPROVED", "Approved"
        ACTIVE = "ACTIVE", "Active"
        RETIRED = "RETIRED", "Retired"

    class Kind(models.TextChoices):
        GLOBAL = "GLOBAL", "The federation's"
        FINE_TUNED = "FINE_TUNED", "Fine-tuned at the hospital"  # its last training's result
        LOCAL = "LOCAL", "Trained at the hospital alone"

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="versions")
    envoy = models.ForeignKey(  # empty: the federation's; else this hospital's own
        Envoy, null=True, on_delete=models.PROTECT, related_name="versions"
    )
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.GLOBAL)
    number = models.PositiveIntegerField()
    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="versions")
    training_round = models.ForeignKey(
        TrainingRound, on_delete=models.PROTECT, related_name="versions"
    )
    storage_key = models.CharField(max_length=300)
    params_sha256 = models.CharField(max_length=64)  # of names, shapes and raw bytes
    object_sha256 = models.CharField(max_length=64)  # of the stored file
    manifest = models.JSONField()  # schema, scaling, network, classes, lineage
    metrics = models.JSONField(default=dict)
    state = models.CharField(max_length=16, choices=State.choices, default=State.CANDIDATE)
    approved_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    approved_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["study", "number"],
                condition=Q(envoy__isnull=True),
                name="one_global_version_per_number",
            ),
            models.UniqueConstraint(
                fields=["study", "envoy", "kind", "number"],
                condition=Q(envoy__isnull=False),
                name="one_envoy_version_per_number",
            ),
            models.UniqueConstraint(
                fields=["training_round"],
                condition=Q(envoy__isnull=True),
                name="one_global_version_per_round",
            ),
            models.UniqueConstraint(
                fields=["training_round", "envoy", "kind"],
                condition=Q(envoy__isnull=False),
                name="one_envoy_version_per_round",
            ),
            models.UniqueConstraint(
                fields=["study"],
                condition=Q(envoy__isnull=True, state="ACTIVE"),
                name="one_active_version_per_study",
            ),
            models.CheckConstraint(
                condition=Q(envoy__isnull=True, kind="GLOBAL")
                | Q(envoy__isnull=False) & ~Q(kind="GLOBAL"),
                name="global_version_of_no_envoy",
            ),
        ]

    def __str__(self) -> str:
        owner = f" of {self.envoy}" if self.envoy else ""
        alone = ", trained alone" if self.kind == self.Kind.LOCAL else ""
        return f"{self.study.name} v{self.number}{owner}{alone}"

    @property
    def kind_in_words(self) -> str:
        return self.study.words.instead(str(self.Kind(self.kind).label))


class ChoiceQuerySet(models.QuerySet["ModelChoice"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(envoy__in=Envoy.objects.visible_to(user))


class ModelChoice(models.Model):
    """Which model of a run suits a hospital, by its validation patients or by one of its doctors."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="choices")
    envoy = models.ForeignKey(Envoy, on_delete=models.CASCADE, related_name="choices")
    kind = models.CharField(max_length=16, choices=ModelVersion.Kind.choices)
    reason = models.TextField()  # in words, without a full stop
    # {"losses": {"global": …}, "lower_by": {"fine_tuned": {"estimate", "low", "high"}}}
    figures = models.JSONField(default=dict)
    made_at = models.DateTimeField(auto_now_add=True)
    overruled_to = models.CharField(max_length=16, choices=ModelVersion.Kind.choices, blank=True)
    overrule_reason = models.TextField(blank=True)
    overruled_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    overruled_at = models.DateTimeField(null=True)

    objects = ChoiceQuerySet.as_manager()

    class Meta:
        ordering = ["-made_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["run", "envoy"], name="one_choice_per_run_and_envoy")
        ]

    def __str__(self) -> str:
        return f"the choice of {self.envoy} in run {self.run_id}"

    @property
    def kind_in_use(self) -> str:
        return self.overruled_to or self.kind

    @property
    def model_in_use(self) -> str:
        return self.envoy.words.instead(str(ModelVersion.Kind(self.kind_in_use).label))

    @property
    def in_words(self) -> str:
        """Why this model, as it stands now; a sentence."""
        if not self.overruled_to:
            return f"{self.reason_in_words}."
        words = self.envoy.words
        return (
            f"{self.overrule_reason.rstrip('.')} (a {words.keeper} of the {words.place} decided)."
        )

    @property
    def reason_in_words(self) -> str:
        return self.envoy.words.instead(self.reason)


class Distribution(LeasedWork):
    """A version delivered to an envoy, and the checksum read back there."""

    version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="distributions"
    )
    envoy = models.ForeignKey(Envoy, on_delete=models.PROTECT, related_name="distributions")
    seen_sha256 = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"version {self.version_id} to envoy {self.envoy_id}: {self.status}"


class RunReport(LeasedWork):
    """The making of a run's report: baselines trained, hospital by hospital."""

    run = models.OneToOneField(TrainingRun, on_delete=models.CASCADE, related_name="report_work")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"report of run {self.run_id}"
