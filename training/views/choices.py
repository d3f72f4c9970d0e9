from django.contrib import messages
from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from envoys.access import may_use
from envoys.pages import UserRequest, errors_shown, id_of, page_of
from training import services
from training.choice_words import choice_in_words
from training.forms import OverruleForm
from training.models import ModelChoice, ModelVersion


def visible_choice(request: UserRequest, choice_id: int) -> ModelChoice:
    choices = ModelChoice.objects.visible_to(request.user)
    return get_object_or_404(
        choices.select_related("run__study", "envoy", "overruled_by"), pk=choice_id
    )


def model_choice_list(request: UserRequest) -> HttpResponse:
    choices = ModelChoice.objects.visible_to(request.user).select_related("run__study", "envoy")
    envoy_id = id_of(request.GET.get("envoy", ""))
    if envoy_id is not None:
        choices = choices.filter(envoy=envoy_id)
    return render(request, "training/model_choice_list.html", {"page": page_of(request, choices)})


def model_choice_detail(request: UserRequest, choice_id: int) -> HttpResponse:
    choice = visible_choice(request, choice_id)
    return choice_page(request, choice, OverruleForm(kinds=other_kinds(choice)))


def choice_page(request: UserRequest, choice: ModelChoice, form: OverruleForm) -> HttpResponse:
    its_own = Q(envoy__isnull=True) | Q(envoy=choice.envoy)
    versions = ModelVersion.objects.filter(its_own, run=choice.run).defer("manifest")
    return render(
        request,
        "training/model_choice_detail.html",
        {
            "choice": choice,
            "words": choice_in_words(choice, versions),
            "form": form,
            "may_overrule": may_use(request.user, "training:model-choice-overrule", "POST"),
        },
    )


def other_kinds(choice: ModelChoice) -> list[tuple[str, str]]:
    """What a doctor could have used instead: other models that there are."""
    own = ModelVersion.objects.filter(run=choice.run, envoy=choice.envoy)
    kinds = {ModelVersion.Kind.GLOBAL.value, *own.values_list("kind", flat=True)}
    return [
        (kind, label)
        for kind, label in ModelVersion.Kind.choices
        if kind in kinds - {choice.kind, choice.kind_in_use}
    ]


@require_POST
def model_choice_overrule(request: UserRequest, choice_id: int) -> HttpResponse:
    choice = visible_choice(request, choice_id)
    form = OverruleForm(request.POST, kinds=other_kinds(choice))
    if not form.is_valid():
        return choice_page(request, choice, form)
    with errors_shown(request):
        services.overrule_choice(choice, **form.cleaned_data, overruled_by=request.user)
        messages.success(request, f"{choice.envoy} uses it from now on. You can take this back.")
    return redirect("training:model-choice-detail", choice.pk)


@require_POST
def model_choice_take_back(request: UserRequest, choice_id: int) -> HttpResponse:
    choice = visible_choice(request, choice_id)
    with errors_shown(request):
        services.take_back_overruling(choice, taken_back_by=request.user)
        messages.success(
            request,
            f"Taken back: what the validation {choice.envoy.words.people} chose is in use again.",
        )
    return redirect("training:model-choice-detail", choice.pk)
