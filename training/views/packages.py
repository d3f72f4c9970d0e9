import json
from typing import Any

from django.contrib import messages
from django.db.models import Case, Value, When
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from envoys.access import may_use
from envoys.models import Envoy
from envoys.pages import UserRequest, errors_on, errors_shown, id_of, page_of
from training import services
from training.forms import PackageForm, RefuseForm
from training.models import MembershipQuerySet, StudyMembership
from training.plan_words import plan_in_words

Answer = StudyMembership.Answer


def visible_packages(request: UserRequest) -> MembershipQuerySet:
    packages = StudyMembership.objects.visible_to(request.user).with_answer()
    return packages.select_related("study", "envoy", "approved_by", "refused_by")


def visible_package(request: UserRequest, package_id: int) -> StudyMembership:
    return get_object_or_404(visible_packages(request), pk=package_id)


def package_list(request: UserRequest) -> HttpResponse:
    """Those that wait for an answer first, then the newest."""
    packages = visible_packages(request)
    counts = packages.num_by_answer()
    answer = request.GET.get("answer", "")
    envoy = request.GET.get("envoy", "")
    if answer in Answer.values:
        packages = packages.answered(answer)
    if (envoy_id := id_of(envoy)) is not None:
        packages = packages.filter(envoy=envoy_id)
    waiting_first = Case(When(answer=Answer.WAITING, then=Value(0)), default=Value(1))
    return render(
        request,
        "training/package_list.html",
        {
            "page": page_of(request, packages.order_by(waiting_first, "-packaged_at", "-pk")),
            "answers": [(value, label, counts.get(value, 0)) for value, label in Answer.choices],
            "answer": answer,
            "envoys": Envoy.objects.visible_to(request.user).standing(),
            "envoy": envoy,
            "num_packages": sum(counts.values()),
            "may_create": may_use(request.user, "training:package-create", "POST"),
        },
    )


def package_detail(request: UserRequest, package_id: int) -> HttpResponse:
    return package_page(request, visible_package(request, package_id), RefuseForm())


def package_page(
    request: UserRequest, package: StudyMembership, refuse_form: RefuseForm
) -> HttpResponse:
    may_answer = may_use(request.user, "training:package-approve", "POST")
    return render(
        request,
        "training/package_detail.html",
        {
            "package": package,
            "words": plan_in_words(package.plan),
            "plan_json": json.dumps(package.plan, indent=2, sort_keys=True, ensure_ascii=False),
            "answer": Answer,
            "may_answer": may_answer,
            "refuse_form": refuse_form,
            "may_start": may_use(request.user, "training:run-create", "POST"),
            "may_package": may_use(request.user, "training:package-create", "POST"),
        },
    )


def package_create(request: UserRequest) -> HttpResponse:
    # A study, to see what suits it, or a strategy, to see its parameters: nothing is checked yet.
    if step := request.POST.get("choose"):
        is_other_study = step == "study"
        asked_for = (
            {"study": request.POST.get("study")} if is_other_study else as_initial(request.POST)
        )
        form = PackageForm(initial=asked_for)
        part = request.htmx and step == "strategy"
        template = "training/_strategy.html" if part else "training/package_create.html"
        return render(request, template, {"form": form})
    asked_for = as_initial(request.GET) if "envoys" in request.GET else request.GET.dict()
    form = PackageForm(request.POST or None, initial=asked_for)
    if form.is_valid():
        with errors_on(form):
            chosen = form.cleaned_data
            plan = services.plan_for(
                chosen["study"],
                num_rounds=chosen["num_rounds"],
                strategy=chosen["strategy"],
                strategy_parameters=form.strategy_parameters(),
                local_training=form.local_training(),
            )
            packaged = services.package_envoys(
                chosen["study"], chosen["envoys"], plan, packaged_by=request.user
            )
            if packaged.memberships:
                names = ", ".join(str(membership.envoy) for membership in packaged.memberships)
                messages.success(request, f"Packaged for {names}. A doctor there answers it.")
            for problem in packaged.problems:
                messages.error(request, f"Not packaged: {problem}")
            return redirect("training:package-list")
    return render(request, "training/package_create.html", {"form": form})


def as_initial(sent: QueryDict) -> dict[str, Any]:
    return {**sent.dict(), "envoys": sent.getlist("envoys")}


@require_POST
def package_approve(request: UserRequest, package_id: int) -> HttpResponse:
    package = visible_package(request, package_id)
    if package.refused_at and not request.POST.get("refused_at"):
        messages.error(
            request,
            f"Not approved: {package.refused_by} has refused it since you opened the page. Read why;"
            " you can approve it after all.",
        )
        return redirect("training:package-detail", package.pk)
    with errors_shown(request):
        services.approve_package(
            package, approved_by=request.user, plan_hash=request.POST.get("plan_sha256", "")
        )
        messages.success(
            request,
            f"Approved. The {package.study.words.place} takes part in runs of this plan; you can revoke it.",
        )
    return redirect("training:package-detail", package.pk)


@require_POST
def package_refuse(request: UserRequest, package_id: int) -> HttpResponse:
    package = visible_package(request, package_id)
    form = RefuseForm(request.POST)
    if form.is_valid():
        with errors_shown(request):
            services.refuse_package(
                package, refused_by=request.user, reason=form.cleaned_data["reason"]
            )
            messages.success(request, "Refused. You can still approve it, should it turn out well.")
        return redirect("training:package-detail", package.pk)
    return package_page(request, package, form)


@require_POST
def package_revoke(request: UserRequest, package_id: int) -> HttpResponse:
    package = visible_package(request, package_id)
    with errors_shown(request):
        services.revoke_approval(package, revoked_by=request.user)
        messages.success(
            request, "Revoked from the next launch on. Approve it again whenever you like."
        )
    return redirect("training:package-detail", package.pk)
