"""What beat has done for all apps, safe to deliver twice."""

from celery import shared_task


@shared_task
def seal_audit_task() -> None:
    from envoys import audit_chain

    audit_chain.seal_events()


@shared_task
def forget_ended_logins_task() -> None:
    from envoys import forgetting, lockout, logins

    logins.forget_ended_logins()
    lockout.forget_old_attempts()
    forgetting.forget_old_answers()
