"""Asking who runs the federation to train again, and their answer."""

from django.db import transaction
from django.utils import timezone

from envoys import audit
from envoys.models import User
from federated.plain_text import check_plain
from publichealth.models import DriftCheck, RetrainingProposal
from training.errors import NotReadyError

Answer = RetrainingProposal.Answer


def propose_retraining(check: DriftCheck, *, reason: str, proposed_by: User) -> RetrainingProposal:
    """Ask for a training of the study whose model a check has held a node's readings against.

    Raises:
        NotReadyError: the check is not complete, or such a proposal waits for an answer already.
    """
    if check.status != DriftCheck.Status.COMPLETE:
        raise NotReadyError("This check is not complete: propose a training from one that is")
    check_plain(reason, "the reason", has_lines=True)
    study = check.version.study
    waiting = RetrainingProposal.objects.filter(study=study, answer=Answer.WAITING)
    if waiting.exists():
        raise NotReadyError(f"A proposal to train {study} again waits for an answer already")
    with transaction.atomic():
        proposal = RetrainingProposal.objects.create(
            study=study, drift_check=check, reason=reason, proposed_by=proposed_by
        )
        audit.record(proposed_by, "proposed retraining", proposal)
    return proposal


def accept_proposal(proposal: RetrainingProposal, *, accepted_by: User) -> None:
    """Say that a training will follow; it is packaged and started as any other.

    Raises:
        NotReadyError: it has been answered or withdrawn.
    """
    _answer(proposal, Answer.ACCEPTED, accepted_by, "accepted retraining proposal")


def decline_proposal(proposal: RetrainingProposal, *, declined_by: User) -> None:
    """Raises NotReadyError: it has been answered or withdrawn."""
    _answer(proposal, Answer.DECLINED, declined_by, "declined retraining proposal")


def withdraw_proposal(proposal: RetrainingProposal, *, withdrawn_by: User) -> None:
    """Raises NotReadyError: it is somebody else's, or has been answered or withdrawn."""
    if proposal.proposed_by != withdrawn_by:
        raise NotReadyError("Only who has made a proposal can withdraw it")
    _answer(proposal, Answer.WITHDRAWN, withdrawn_by, "withdrew retraining proposal")


def _answer(proposal: RetrainingProposal, answer: str, user: User, action: str) -> None:
    waiting = RetrainingProposal.objects.filter(pk=proposal.pk, answer=Answer.WAITING)
    with transaction.atomic():
        if not waiting.update(answer=answer, answered_by=user, answered_at=timezone.now()):
            proposal.refresh_from_db()
            raise NotReadyError(
                f"This proposal is no longer waiting: {proposal.get_answer_display().lower()}"
            )
        audit.record(user, action, proposal)
    proposal.refresh_from_db()
