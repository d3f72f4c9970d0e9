"""Which model a hospital uses: what its validation patients chose, unless a doctor overrules it."""

from django.db import transaction
from django.db.models import Exists, Q, Subquery
from django.utils import timezone

from envoys import audit
from envoys.models import Envoy, User
from federated.plain_text import check_plain
from training.errors import ConflictError, NotAllowedError, NotReadyError, TrainingError
from training.models import Distribution, ModelChoice, ModelVersion, Study

Kind = ModelVersion.Kind


def choice_in_use(study: Study, envoy: Envoy) -> ModelChoice | None:
    """The choice among the models of the run whose global model was delivered there last.

    Of another run's it would compare models that nobody there uses. Before anything was delivered
    it is the newest; None where that run has no report yet.
    """
    delivered = Distribution.objects.filter(
        version__study=study, envoy=envoy, status=Distribution.Status.COMPLETE
    ).order_by("-delivered_at", "-pk")
    of_delivered = Q(run=Subquery(delivered.values("version__run")[:1]))
    return ModelChoice.objects.filter(
        of_delivered | ~Exists(delivered), run__study=study, envoy=envoy
    ).first()


def chosen_version(choice: ModelChoice) -> ModelVersion | None:
    """The hospital's own version that a choice names; None where that is the global model."""
    if choice.kind_in_use == Kind.GLOBAL:
        return None
    versions = ModelVersion.objects.select_related("run")  # whose report says how good it is
    return versions.filter(
        run_id=choice.run_id, envoy_id=choice.envoy_id, kind=choice.kind_in_use
    ).first()


def overrule_choice(
    choice: ModelChoice, *, kind: str, reason: str, overruled_by: User
) -> ModelChoice:
    """Have a hospital use another model of the run; the next run's report chooses anew.

    Args:
        kind: a `ModelVersion.Kind`.
        reason: in words, for whoever looks at a risk.
    Raises:
        NotAllowedError: the person is no doctor of this hospital.
        ConflictError: that is the model in use already.
        NotReadyError: the hospital has no such model of this run.
        TrainingError: no reason is given.
    """
    _check_own_doctor(choice, overruled_by)
    if not reason.strip():
        raise TrainingError("say why: whoever looks at a risk reads it")
    check_plain(reason, "the reason", has_lines=True)
    if kind == choice.kind_in_use:
        raise ConflictError(f"{Kind(kind).label} is the model in use already: nothing was changed")
    if kind == choice.kind:
        raise ConflictError(
            f"{Kind(kind).label} is what the validation patients chose: take the overruling back"
        )
    own = ModelVersion.objects.filter(run_id=choice.run_id, envoy_id=choice.envoy_id, kind=kind)
    if kind != Kind.GLOBAL and not own.exists():
        raise NotReadyError(f"{choice.envoy} has no such model of this run: {Kind(kind).label}")
    return _save(
        choice,
        "overruled model choice",
        overruled_by,
        overruled_to=kind,
        overrule_reason=reason.strip(),
        overruled_by=overruled_by,
        overruled_at=timezone.now(),
    )


def take_back_overruling(choice: ModelChoice, *, taken_back_by: User) -> ModelChoice:
    """Have the hospital use again what its validation patients chose.

    Raises:
        NotAllowedError: the person is no doctor of this hospital.
        ConflictError: nobody has overruled it.
    """
    _check_own_doctor(choice, taken_back_by)
    if not choice.overruled_to:
        raise ConflictError("nobody has overruled this choice: there is nothing to take back")
    return _save(
        choice,
        "took back overruling",
        taken_back_by,
        overruled_to="",
        overrule_reason="",
        overruled_by=None,
        overruled_at=None,
    )


def _check_own_doctor(choice: ModelChoice, user: User) -> None:
    if not user.is_doctor or user.envoy_id != choice.envoy_id:
        raise NotAllowedError(f"only a doctor of {choice.envoy} decides which model is used there")


def _save(choice: ModelChoice, action: str, user: User, **values: object) -> ModelChoice:
    """Change a choice that still stands as it was read."""
    with transaction.atomic():
        as_read = ModelChoice.objects.filter(pk=choice.pk, overruled_to=choice.overruled_to)
        if not as_read.update(**values):
            raise ConflictError("somebody else has just changed this choice: look at it again")
        audit.record(user, action, choice)
    choice.refresh_from_db()
    return choice
