"""What calls about studies, packages, runs and versions take and answer."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from envoys.models import Envoy, User
from envoys.rest import IdField, UrlField
from envoys.serializers import EnvoyNameSerializer, TaskSerializer
from federated.plan import MAX_SEED, LocalTrainingConfig
from training.benefit import Benefit
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)
from training.progress import NOT_OPEN, RunProgress, progress_of
from training.shown import masked

MAY_SPEAK_OF_OTHERS = "Ask a data scientist why: the reason may speak of other hospitals."


def username() -> serializers.SlugRelatedField[User]:
    return serializers.SlugRelatedField(slug_field="username", read_only=True, allow_null=True)


def figure(what: str) -> serializers.FloatField:
    return serializers.FloatField(default=None, allow_null=True, help_text=what)


class RowField(serializers.PrimaryKeyRelatedField[Any]):
    """A row by its number, which is checked before the database is asked for it."""

    def __init__(self, **kwargs: Any) -> None:
        name = kwargs["queryset"].model._meta.verbose_name
        messages = {"does_not_exist": f"There is no {name} {{pk_value}}."}
        super().__init__(**kwargs | {"error_messages": messages | kwargs.get("error_messages", {})})

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(IdField().run_validation(data))


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses what it has no field for: a misspelt parameter must not be left out in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = ", ".join(self.fields)
            unknown = {
                str(name): [f"No parameter is called {str(name)[:40]!r}; there are {known}."]
                for name in data
                if name not in self.fields
            }
            if unknown:
                raise serializers.ValidationError(unknown)
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """As its parent, which takes true for 1."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


class EnvoysSerializer(serializers.Serializer[Any]):
    envoys = RowField(
        queryset=Envoy.objects.active(),
        many=True,
        required=False,
        allow_empty=False,
        help_text="the numbers of active envoys; all of them where not given",
        error_messages={
            "empty": "Choose at least one hospital.",
            "does_not_exist": "There is no active hospital {pk_value}.",
        },
    )

    def validate_envoys(self, envoys: list[Envoy]) -> list[Envoy]:
        return list(dict.fromkeys(envoys))  # named twice, it is still one hospital


class OfStudySerializer(serializers.Serializer[Any]):
    study = RowField(
        queryset=Study.objects.all(),
        required=False,
        help_text="the number of a study; the main one where not given",
    )


class StudySerializer(serializers.ModelSerializer[Study]):
    url = UrlField("api:study-detail")

    class Meta:
        model = Study
        fields = [
            "id",
            "url",
            "name",
            "title",
            "dataset",
            "target",
            "target_definition",
            "network",
            "schema_sha256",
            "min_examples",
            "min_contributors",
            "created_at",
        ]


class StudyCreateSerializer(StrictSerializer):
    target = serializers.CharField(max_length=40, help_text="as risk_tier or readmitted_30d")
    network = serializers.CharField(
        max_length=40, required=False, default="logistic_regression", help_text="or shallow_network"
    )


class LocalTrainingSerializer(StrictSerializer):
    local_epochs = serializers.IntegerField(required=False, max_value=1000)
    batch_size = serializers.IntegerField(required=False, max_value=100_000)
    learning_rate = NumberField(required=False)
    weight_decay = NumberField(required=False)

    def validate(self, attrs: dict[str, Any]) -> LocalTrainingConfig:
        return LocalTrainingConfig(**attrs)


class PackageSerializer(serializers.ModelSerializer[StudyMembership]):
    url = UrlField("api:package-detail")
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)
    answer = serializers.ChoiceField(choices=StudyMembership.Answer.choices, read_only=True)
    plan = serializers.DictField()

    class Meta:
        model = StudyMembership
        fields = [
            "id",
            "url",
            "study",
            "envoy",
            "envoy_name",
            "plan",
            "plan_sha256",
            "package_sha256",
            "packaged_at",
            "answer",
        ]


class PackageCreateSerializer(StrictSerializer, OfStudySerializer, EnvoysSerializer):
    strategy = serializers.CharField(max_length=40, required=False, default="fedavg")
    strategy_parameters = serializers.DictField(required=False, default=dict)
    num_rounds = serializers.IntegerField(required=False, default=10, min_value=1, max_value=1000)
    local_training = LocalTrainingSerializer(required=False)


class PackagedSerializer(serializers.Serializer[Any]):
    packages = PackageSerializer(many=True)
    problems = serializers.ListField(
        child=serializers.CharField(), help_text="which hospital's storage did not take it, and why"
    )


class ApprovalSerializer(serializers.ModelSerializer[StudyMembership]):
    """A hospital's answer to a package; it has the package's number."""

    url = UrlField("api:approval-detail")
    answer = serializers.ChoiceField(choices=StudyMembership.Answer.choices, read_only=True)
    approved_by = username()
    refused_by = username()

    class Meta:
        model = StudyMembership
        fields = [
            "id",
            "url",
            "study",
            "envoy",
            "plan_sha256",
            "answer",
            "approved_by",
            "approved_at",
            "revoked_at",
            "refused_by",
            "refused_at",
            "refusal_reason",
        ]


class ApproveSerializer(serializers.Serializer[Any]):
    package = serializers.IntegerField(help_text="the number of the package that was read")
    plan_sha256 = serializers.CharField(
        max_length=64, help_text="the hash of the plan that was read: another is not approved"
    )


class RefuseSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=2000)


def reason_for(row: Any, user: Any) -> str:
    """Why a run or round ended; to a doctor a failure may speak of other hospitals."""
    is_told = user.role != User.Role.DOCTOR or row.status != row.Status.FAILED
    return row.reason if is_told else MAY_SPEAK_OF_OTHERS


class RoundSerializer(serializers.ModelSerializer[TrainingRound]):
    url = UrlField("api:round-detail")
    reason = serializers.SerializerMethodField()
    num_due = serializers.IntegerField(read_only=True, help_text="how many envoys were asked")
    num_in = serializers.IntegerField(read_only=True, help_text="how many have answered")
    num_expected = serializers.IntegerField(
        read_only=True, help_text="hospitals that the run was started with"
    )
    num_counted = serializers.SerializerMethodField()
    missing = serializers.SerializerMethodField()

    class Meta:
        model = TrainingRound
        fields = [
            "id",
            "url",
            "run",
            "number",
            "status",
            "reason",
            "num_due",
            "num_in",
            "num_expected",
            "num_counted",
            "missing",
            "opened_at",
            "deadline_at",
            "closed_at",
            "aggregated_at",
        ]

    def get_reason(self, training_round: TrainingRound) -> str:
        return reason_for(training_round, self.context["request"].user)

    def get_num_counted(self, training_round: TrainingRound) -> int:
        """Updates that count; with fewer than expected an aggregated round is partial."""
        return len(_counted(training_round))

    def get_missing(self, training_round: TrainingRound) -> list[str]:
        """Names of the hospitals that the run was started with and whose updates do not count."""
        counted = _counted(training_round)
        expected = training_round.run.expected_participants  # type: ignore[attr-defined]
        return sorted(each.envoy.name for each in expected if each.envoy_id not in counted)


def _counted(training_round: TrainingRound) -> set[int]:
    counted = training_round.counted_assignments  # type: ignore[attr-defined]  # see `api.runs`
    return {assignment.envoy_id for assignment in counted}


class RunSerializer(serializers.ModelSerializer[TrainingRun]):
    url = UrlField("api:run-detail")
    reason = serializers.SerializerMethodField()
    started_by = username()
    num_rounds_done = serializers.IntegerField(read_only=True)
    num_hospitals = serializers.IntegerField(read_only=True, help_text="that take part")
    is_partial = serializers.BooleanField(
        read_only=True, help_text="whether a round counted fewer than the run was started with"
    )
    last_round_let_go = serializers.IntegerField(
        read_only=True,
        help_text="of rounds 1 to this one, updates and parameters are not kept; 0: all are",
    )

    class Meta:
        model = TrainingRun
        fields = [
            "id",
            "url",
            "study",
            "mode",
            "strategy",
            "num_rounds",
            "num_rounds_done",
            "num_hospitals",
            "seed",
            "quorum",
            "deadline_seconds",
            "on_miss",
            "is_partial",
            "status",
            "reason",
            "plan_sha256",
            "final_sha256",
            "started_by",
            "started_at",
            "training_at",
            "finished_at",
            "checked_at",
            "last_round_let_go",
        ]

    def get_reason(self, run: TrainingRun) -> str:
        return reason_for(run, self.context["request"].user)


class RunCellSerializer(serializers.Serializer[Any]):
    round = serializers.IntegerField()
    status = serializers.CharField()
    words = serializers.CharField()


class RunHospitalSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    is_mandatory = serializers.BooleanField(help_text="no round counts without it")
    sits_out = serializers.BooleanField()
    sits_out_because = serializers.CharField(help_text="of one's own hospital only for a doctor")
    rounds = RunCellSerializer(many=True)


class RunCurveSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    validation_auroc = serializers.ListField(child=serializers.FloatField(allow_null=True))


class RunCurvesSerializer(serializers.Serializer[Any]):
    after_rounds = serializers.ListField(child=serializers.IntegerField())
    validation_loss = serializers.ListField(child=serializers.FloatField(allow_null=True))
    train_loss = serializers.ListField(child=serializers.FloatField(allow_null=True))
    hospitals = RunCurveSerializer(many=True)


class RunDetailSerializer(RunSerializer):
    """A run with what its page shows: rounds, hospitals, curves and, once made, the report."""

    plan = serializers.DictField()
    rounds = RoundSerializer(many=True, read_only=True)
    hospitals = serializers.SerializerMethodField()
    curves = serializers.SerializerMethodField()
    report = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = [*RunSerializer.Meta.fields, "plan", "rounds", "hospitals", "curves", "report"]

    _progress: RunProgress | None = None

    def progress(self, run: TrainingRun) -> RunProgress:
        if self._progress is None:
            self._progress = progress_of(run, self.context["request"].user)
        return self._progress

    def get_reason(self, run: TrainingRun) -> str:
        return self.progress(run).reason

    @extend_schema_field(RunHospitalSerializer(many=True))
    def get_hospitals(self, run: TrainingRun) -> list[dict[str, Any]]:
        return [
            {
                "name": hospital.name,
                "is_mandatory": hospital.is_mandatory,
                "sits_out": hospital.sits_out,
                "sits_out_because": hospital.sits_out_because,
                "rounds": [
                    {"round": number, "status": cell.status, "words": cell.words}
                    for number, cell in enumerate(hospital.cells)
                    if cell.status != NOT_OPEN
                ],
            }
            for hospital in self.progress(run).hospitals
        ]

    @extend_schema_field(RunCurvesSerializer)
    def get_curves(self, run: TrainingRun) -> dict[str, Any]:
        return self.progress(run).curves.as_json()

    def get_report(self, run: TrainingRun) -> dict[str, Any] | None:
        progress = self.progress(run)
        if progress.pooled_row is None:
            return None
        details = progress.report_details
        return {
            "hospitals": [asdict(row) for row in progress.report_rows],
            "all_together": asdict(progress.pooled_row),
            "details": asdict(details) if details else None,
        }


class ModelFiguresSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    auroc = serializers.FloatField(allow_null=True)
    auprc = serializers.FloatField(allow_null=True)
    accuracy = serializers.FloatField(allow_null=True)
    brier = serializers.FloatField(allow_null=True)
    interval = serializers.DictField(
        child=serializers.FloatField(), allow_null=True, help_text="of the AUROC, 95 %"
    )
    auprc_interval = serializers.DictField(child=serializers.FloatField(), allow_null=True)
    accuracy_interval = serializers.DictField(child=serializers.FloatField(), allow_null=True)
    brier_interval = serializers.DictField(child=serializers.FloatField(), allow_null=True)


class GainSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    num_examples = serializers.CharField(help_text="trained on; a dash where it is hidden")
    num_patients = serializers.CharField(help_text="tested on; in words where it is under 10")
    models = ModelFiguresSerializer(many=True)
    calibration = serializers.ListField(
        child=serializers.DictField(),
        help_text="of the global model, by class: slope and intercept with their intervals",
    )
    confusion = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField()),
        allow_null=True,
        help_text="of the global model, patients by class and likeliest class; null where hidden",
    )
    macro_f1 = serializers.FloatField(allow_null=True)
    macro_f1_interval = serializers.DictField(child=serializers.FloatField(), allow_null=True)
    sentence = serializers.CharField(help_text="global against local, in words")
    fine_tuned_sentence = serializers.CharField(help_text="fine-tuned against global, in words")
    model_choice = serializers.IntegerField(
        source="choice.pk", default=None, allow_null=True, help_text="which model suits it"
    )


class BenefitSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="run.pk")
    hospitals = GainSerializer(many=True, help_text="of a doctor the own one")
    all_together = GainSerializer()
    from_histograms = serializers.SerializerMethodField()
    calibration = serializers.SerializerMethodField()
    confusion = serializers.SerializerMethodField()
    subgroups = serializers.SerializerMethodField()

    def get_from_histograms(self, benefit: Benefit) -> dict[str, Any]:
        """AUROC and AUPRC over all hospitals: value, low and high possible, 95 % interval.

        Of the global model, of each model in `by_model`, and of global minus local in `difference`.
        """
        return (benefit.run.report or {}).get("from_histograms", {})

    def get_calibration(self, benefit: Benefit) -> list[dict[str, Any]]:
        """Of the global model on all test patients: slope, intercept and curve of each class."""
        return (benefit.run.report or {}).get("calibration", [])

    def get_confusion(self, benefit: Benefit) -> dict[str, Any] | None:
        """Patients by what happened and what was likeliest; null where a count is hidden."""
        return (benefit.run.report or {}).get("confusion")

    def get_subgroups(self, benefit: Benefit) -> dict[str, Any]:
        """Figures by age and sex, with their intervals; null where they are hidden."""
        return (benefit.run.report or {}).get("subgroups", {})


class RunCreateSerializer(StrictSerializer, OfStudySerializer, EnvoysSerializer):
    plan_sha256 = serializers.CharField(
        max_length=64,
        required=False,
        help_text="of the packages to run; of the study's newest where not given",
    )
    seed = serializers.IntegerField(required=False, default=0, min_value=0, max_value=MAX_SEED)
    quorum = serializers.IntegerField(
        required=False, min_value=1, max_value=10_000, allow_null=True, default=None
    )
    deadline_seconds = serializers.IntegerField(
        required=False, default=3600, min_value=1, max_value=30 * 24 * 3600, help_text="of a round"
    )
    mandatory = RowField(
        queryset=Envoy.objects.active(),
        many=True,
        required=False,
        default=list,
        help_text="the numbers of envoys without which no round counts",
    )
    on_miss = serializers.ChoiceField(
        choices=TrainingRun.OnMiss.choices,
        required=False,
        default=TrainingRun.OnMiss.GO_ON,
        help_text="what a round does where somebody is missing",
    )


class AssignmentSerializer(serializers.ModelSerializer[RoundAssignment]):
    url = UrlField("api:assignment-detail")
    run = serializers.IntegerField(source="training_round.run_id", read_only=True)
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)

    class Meta:
        model = RoundAssignment
        fields = [
            "id",
            "url",
            "run",
            "training_round",
            "envoy",
            "envoy_name",
            "status",
            "reason",
            "attempt",
            "submitted_at",
        ]


class ScreeningSerializer(serializers.Serializer[Any]):
    """How an update stood to the others of its round; null where it was not compared."""

    norm_ratio = figure("its length, by the upper quartile of the others' lengths")
    control_ratio = figure("the same of its control variate")
    others_cosine = figure("with the sum of the others' directions")
    others_median = figure("the others' median of that")
    own_cosine = figure("with the hospital's own last update that counted")
    own_median = figure("the others' median of that")


class UpdateSerializer(serializers.ModelSerializer[ReceivedUpdate]):
    url = UrlField("api:update-detail")
    run = serializers.IntegerField(source="assignment.training_round.run_id", read_only=True)
    training_round = serializers.IntegerField(source="assignment.training_round_id", read_only=True)
    round_number = serializers.IntegerField(
        source="assignment.training_round.number", read_only=True
    )
    envoy = serializers.IntegerField(source="assignment.envoy_id", read_only=True)
    envoy_name = serializers.CharField(source="assignment.envoy.name", read_only=True)
    screening = ScreeningSerializer(read_only=True)
    decided_by = username()

    class Meta:
        model = ReceivedUpdate
        fields = [
            "id",
            "url",
            "run",
            "training_round",
            "round_number",
            "envoy",
            "envoy_name",
            "sha256",
            "verdict",
            "reason",
            "screening",
            "decided_by",
            "decided_at",
            "received_at",
        ]


class AggregateSerializer(OfStudySerializer):
    envoys = RowField(queryset=Envoy.objects.all(), many=True)


class AggregatedSerializer(serializers.Serializer[Any]):
    url = UrlField("api:round-detail", source="round", help_text="the round to watch")
    round = serializers.IntegerField()
    model_version = serializers.IntegerField(help_text="the number that the new version gets")


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    url = UrlField("api:model-version-detail")
    approved_by = username()
    round = serializers.IntegerField(source="training_round.number", read_only=True)
    metrics = serializers.SerializerMethodField()

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "url",
            "study",
            "envoy",
            "kind",
            "number",
            "state",
            "run",
            "round",
            "storage_key",
            "params_sha256",
            "object_sha256",
            "metrics",
            "approved_by",
            "approved_at",
            "created_at",
        ]

    def get_metrics(self, version: ModelVersion) -> dict[str, Any]:
        """Of a hospital's own model on its validation patients; a count under 10 is null."""
        user = self.context["request"].user
        is_own = user.is_doctor and version.envoy_id == user.envoy_id
        return version.metrics if is_own else masked(version.metrics)


class ModelVersionDetailSerializer(ModelVersionSerializer):
    manifest = serializers.SerializerMethodField()

    class Meta(ModelVersionSerializer.Meta):
        fields = [*ModelVersionSerializer.Meta.fields, "manifest"]

    def get_manifest(self, version: ModelVersion) -> dict[str, Any]:
        """Schema, scaling and lineage. A count under 10 is null; of another hospital's update a
        doctor sees whose it is, as on the pages, and no more."""
        manifest = dict(version.manifest)
        user = self.context["request"].user
        lineage = manifest.get("lineage", {})
        if "updates" in lineage:
            updates = [_update_shown(update, user) for update in lineage["updates"]]
            manifest["lineage"] = {**lineage, "updates": updates}
        return manifest


def _update_shown(update: dict[str, Any], user: User) -> dict[str, Any]:
    if not user.is_doctor:
        return masked(update)
    is_own = user.envoy is not None and update["envoy"] == user.envoy.slug
    return update if is_own else {"envoy": update["envoy"]}


class ModelChoiceSerializer(serializers.ModelSerializer[ModelChoice]):
    url = UrlField("api:model-choice-detail")
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)
    kind_in_use = serializers.ChoiceField(choices=ModelVersion.Kind.choices, read_only=True)
    overruled_by = username()

    class Meta:
        model = ModelChoice
        fields = [
            "id",
            "url",
            "run",
            "envoy",
            "envoy_name",
            "kind",
            "kind_in_use",
            "reason",
            "figures",
            "made_at",
            "overruled_to",
            "overrule_reason",
            "overruled_by",
            "overruled_at",
        ]


class OverruleSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=ModelVersion.Kind.choices, help_text="the model to use")
    reason = serializers.CharField(max_length=2000)


class DistributionSerializer(serializers.ModelSerializer[Distribution]):
    url = UrlField("api:distribution-detail")
    model_version = serializers.PrimaryKeyRelatedField[ModelVersion](
        source="version", read_only=True
    )
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)

    class Meta:
        model = Distribution
        fields = [
            "id",
            "url",
            "model_version",
            "envoy",
            "envoy_name",
            "status",
            "reason",
            "seen_sha256",
            "created_at",
            "delivered_at",
        ]


class DistributeSerializer(EnvoysSerializer):
    model_version = RowField(queryset=ModelVersion.objects.of_federation())


class DistributedSerializer(serializers.Serializer[Any]):
    url = serializers.CharField(help_text="the list to watch")
    distributions = DistributionSerializer(many=True)


class EnvoyLineSerializer(serializers.Serializer[Any]):
    envoy = EnvoyNameSerializer()
    num_labelled_patients = serializers.IntegerField(
        allow_null=True, help_text="null: not counted yet, or hidden, as too small"
    )
    approval = serializers.CharField(help_text="of its newest packages, in words")
    newest_update_at = serializers.DateTimeField(allow_null=True)


class StudyModelSerializer(serializers.Serializer[Any]):
    study = serializers.CharField(source="study.name")
    model_version = serializers.IntegerField(
        source="version.pk", allow_null=True, default=None, help_text="the active one"
    )
    number = serializers.IntegerField(source="version.number", allow_null=True, default=None)
    since = serializers.DateTimeField(allow_null=True)


class FederationSummarySerializer(serializers.Serializer[Any]):
    envoys = EnvoyLineSerializer(many=True)
    num_active_envoys = serializers.IntegerField()
    num_labelled_patients = serializers.IntegerField(
        allow_null=True, help_text="null: not counted yet, or hidden, as too small"
    )
    active_runs = RunSerializer(many=True)
    models = StudyModelSerializer(many=True)
    num_approvals_waiting = serializers.IntegerField()
    failed = TaskSerializer(many=True, help_text="only for who runs the federation")
    lost = serializers.ListField(
        child=serializers.CharField(), help_text="what a check has found wrong, in words; likewise"
    )


class PublishedLaunchSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    run = serializers.IntegerField()
    assignment = serializers.IntegerField()


class PublishedVersionSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    model_version = serializers.IntegerField()


class PublishedDistributionSerializer(PublishedVersionSerializer):
    envoys = serializers.ListField(child=serializers.CharField(), help_text="names of receivers")
