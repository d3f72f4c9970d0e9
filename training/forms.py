from dataclasses import Field, asdict, fields
from typing import Any

from django import forms
from django.urls import reverse

from envoys.forms import RowsField, TablerForm
from envoys.models import Envoy
from envoys.pages import id_of
from federated.architectures import architectures
from federated.plan import MAX_SEED, LocalTrainingConfig
from federated.strategies import strategies, strategy_named
from federated.targets import targets
from training.last_plan import last_plan_of
from training.models import Study, TrainingRun
from training.plan_words import LOCAL_TRAINING, STRATEGIES, label_of

DEFAULTS = LocalTrainingConfig()
MOST_ROUNDS = 1000
PARAMETER = "parameter_"  # before the name of a strategy's own


class OverruleForm(TablerForm, forms.Form):
    kind = forms.ChoiceField(label="Use instead", widget=forms.RadioSelect)
    reason = forms.CharField(
        label="Why",
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Whoever looks at a patient's risk reads it.",
    )

    def __init__(self, *args: Any, kinds: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].choices = kinds  # type: ignore[attr-defined]


class StudyForm(TablerForm, forms.Form):
    target = forms.ChoiceField(
        label="What is predicted",
        widget=forms.RadioSelect,
        choices=lambda: [(each.name, f"{each.title}. {each.definition}") for each in targets()],
        initial="risk_tier",
    )
    network = forms.ChoiceField(
        label="By which network",
        widget=forms.RadioSelect,
        choices=lambda: [
            (each.name, f"{each.title}. {each.definition}") for each in architectures()
        ],
        initial="logistic_regression",
    )


class EnvoysForm(TablerForm, forms.Form):
    """Chooses among those who have rows of a study's kind, all of them at first."""

    envoys = RowsField(
        queryset=Envoy.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        label="Hospitals",
    )

    def __init__(self, *args: Any, study: Study | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer_envoys_of(study)

    def offer_envoys_of(self, study: Study | None) -> None:
        if study is not None:
            self.fields["envoys"].queryset = study.envoys  # type: ignore[attr-defined]
            self.fields["envoys"].initial = study.envoys
            self.fields["envoys"].label = study.words.places.capitalize()


class PackageForm(EnvoysForm):
    """A plan, at first the one that made the study's model; of the strategies' parameters only
    those of the chosen one.
    """

    study = forms.ModelChoiceField(queryset=Study.objects.all(), empty_label=None)
    num_rounds = forms.IntegerField(
        label="Rounds",
        min_value=1,
        max_value=MOST_ROUNDS,
        initial=10,
        help_text="How often every one of them trains and the updates are brought together",
    )
    strategy = forms.ChoiceField(
        choices=lambda: [(each.name, each.title) for each in strategies()], initial="fedavg"
    )
    local_epochs = forms.IntegerField(min_value=1, max_value=1000, initial=DEFAULTS.local_epochs)
    batch_size = forms.IntegerField(min_value=1, max_value=100_000, initial=DEFAULTS.batch_size)
    learning_rate = forms.FloatField(initial=DEFAULTS.learning_rate)
    weight_decay = forms.FloatField(initial=DEFAULTS.weight_decay)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, study=None, **kwargs)
        self.offer_envoys_of(self.chosen_study)
        if self.chosen_study is not None:
            self.initial = {**self.initial_of(self.chosen_study), **self.initial}
        self.fields["study"].widget.attrs.update(
            {
                "hx-post": reverse("training:package-create"),
                "hx-vals": '{"choose": "study"}',
                "hx-target": "closest form",
                "hx-select": "#package-form",
                "hx-swap": "outerHTML",
            }
        )
        for name, meaning in LOCAL_TRAINING.items():
            self.fields[name].help_text = meaning
        self.fields["strategy"].help_text = STRATEGIES[self.chosen_strategy]
        for one in fields(strategy_named(self.chosen_strategy).parameters):
            self.fields[f"{PARAMETER}{one.name}"] = parameter_field(one)
        self.fields["strategy"].widget.attrs.update(
            {
                "hx-post": reverse("training:package-create"),
                "hx-vals": '{"choose": "strategy"}',
                "hx-target": "#strategy-parameters",
                "hx-swap": "outerHTML",
            }
        )

    def initial_of(self, study: Study) -> dict[str, Any]:
        """What suits a study: its last plan, and who took part; nothing where there is none."""
        last = last_plan_of(study)
        if last is None:
            return {}
        plan = last.plan
        values = {
            "num_rounds": plan.num_rounds,
            "strategy": plan.strategy,
            **{name: getattr(plan.local_training, name) for name in LOCAL_TRAINING},
        }
        if self.initial.get("strategy", plan.strategy) == plan.strategy:
            for name, value in asdict(plan.strategy_parameters).items():
                values[f"{PARAMETER}{name}"] = value
        return values | ({"envoys": last.envoys} if last.envoys else {})

    @property
    def chosen_study(self) -> Study | None:
        """The first one where nothing was sent, or what is no study: that is refused as a choice."""
        sent = self.data.get("study") if self.is_bound else self.initial.get("study")
        chosen = id_of(str(sent))
        found = Study.objects.filter(pk=chosen).first() if chosen is not None else None
        return found or Study.objects.first()

    @property
    def chosen_strategy(self) -> str:
        """The first one where what was sent is no strategy: that is refused as a choice."""
        chosen = self.data.get("strategy") if self.is_bound else self.initial.get("strategy")
        return chosen if chosen in STRATEGIES else "fedavg"

    def local_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in LOCAL_TRAINING]

    def strategy_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(PARAMETER)]

    def strategy_parameters(self) -> dict[str, Any]:
        return {
            name.removeprefix(PARAMETER): value
            for name, value in self.cleaned_data.items()
            if name.startswith(PARAMETER)
        }

    def local_training(self) -> LocalTrainingConfig:
        """Raises InvalidPlanError."""
        return LocalTrainingConfig(**{name: self.cleaned_data[name] for name in LOCAL_TRAINING})


def parameter_field(one: Field[Any]) -> forms.Field:
    """What a form asks for a strategy's parameter; its range is the strategy's to check."""
    words: dict[str, Any] = {"label": label_of(one.name), "help_text": one.metadata["meaning"]}
    field: forms.Field
    if one.type is bool:
        field = forms.BooleanField(**words, required=False, initial=one.default)
    elif one.type is float:
        field = forms.FloatField(**words, initial=one.default)
    else:
        field = forms.IntegerField(**words, initial=one.default, required=one.type is int)
    css = "form-check-input" if one.type is bool else "form-control"
    field.widget.attrs["class"] = css  # it is not there yet when the others get theirs
    return field


class RefuseForm(TablerForm, forms.Form):
    reason = forms.CharField(
        label="Why",
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="The data scientists read it. Nothing about a patient belongs here.",
    )


class RunForm(EnvoysForm):
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        initial=0,
        help_text="The same seed, plan and data give the same model again",
    )
    quorum = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=10_000,
        help_text="A round counts with so many updates; empty: as many as a release needs",
    )
    deadline_minutes = forms.IntegerField(
        label="Deadline of a round, in minutes", min_value=1, max_value=60 * 24 * 30, initial=60
    )
    mandatory = RowsField(
        queryset=Envoy.objects.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    on_miss = forms.ChoiceField(
        label="If somebody is missing when a round is over",
        choices=TrainingRun.OnMiss.choices,
        widget=forms.RadioSelect,
        initial=TrainingRun.OnMiss.GO_ON,
        required=False,
    )

    def offer_envoys_of(self, study: Study | None) -> None:
        super().offer_envoys_of(study)
        if study is not None:
            self.fields["mandatory"].queryset = study.envoys  # type: ignore[attr-defined]

    def clean_on_miss(self) -> str:
        return self.cleaned_data["on_miss"] or TrainingRun.OnMiss.GO_ON
