"""A digest that was rolled back, tried again because the user gives a reason.

A retry is honoured once. It is identified by its digest and its reason, and the state remembers
which ones were used: the same field that is still in the spec after a second roll-back unblocks
nothing, another reason does. A retry that is there while its digest is not blocked is used up
without an effect, or the next roll-back would undo itself.
"""

from __future__ import annotations

from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Retry, RolloutSpec
from dwcp_ml.rollout.status import (
    MAX_RETRIES,
    Phase,
    RetryRecord,
    RolloutEvent,
    RolloutStatus,
    blocked_names,
    is_blocked,
    is_of_candidate,
)


def is_retry_due(spec: RolloutSpec, status: RolloutStatus) -> bool:
    """Return whether the candidate, which is blocked, is to be rolled out once more.

    Not while it is still being rolled back, nor while ``abort`` would roll it back again, nor where
    nobody knows which retries were used.
    """
    retry = _new_retry(spec, status) if status.knows_retries else None
    if retry is None or spec.abort or not is_blocked(spec, status):
        return False
    return not is_of_candidate(spec, status) or status.phase is Phase.ROLLED_BACK


def with_retry_started(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Return the status at the start of the retry that is due: unblocked, without evidence.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    retry = spec.retry
    if retry is None:
        return status
    detail = f"{retry.reason} (field manager {retry.manager})" if retry.manager else retry.reason
    cause = Cause(reason=Reason.RETRIED, version=spec.candidate.version, detail=detail)
    event = RolloutEvent(at=now, phase=Phase.PENDING, percent=0, cause=cause)
    return RolloutStatus(
        revision=spec.candidate,
        started_at=now,
        last_reconciled=now,
        cause=cause,
        events=(event,),
        blocked=tuple(each for each in status.blocked if each not in blocked_names(spec)),
        knows_retries=True,
        retries=_with_record(spec, status, retry, now, unblocked=True),
    )


def with_known_retries(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Return the status with the retry of the spec used up where nobody knows whether it was.

    A release without retries wrote the status last, and dropped what had been used. Of two releases
    that take turns, neither may unblock a candidate twice.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    if status.knows_retries:
        return status
    retry = _new_retry(spec, status)
    if retry is not None:
        used = _with_record(spec, status, retry, now, unblocked=False)
        status = status.replace(retries=used)
    return status.replace(knows_retries=True)


def with_retry_noted(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Return the status with a retry used up that came before there was anything to retry.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    retry = _new_retry(spec, status)
    if retry is None or is_blocked(spec, status):
        return status
    return status.replace(retries=_with_record(spec, status, retry, now, unblocked=False))


def _new_retry(spec: RolloutSpec, status: RolloutStatus) -> Retry | None:
    """Return the retry of this candidate that was not used before; ``None`` for none."""
    retry = spec.retry
    if retry is None or retry.digest != spec.candidate.digest:
        return None
    used = {(record.digest.partition("/")[0], record.reason) for record in status.retries}
    return None if (retry.digest, retry.reason) in used else retry


def _with_record(
    spec: RolloutSpec, status: RolloutStatus, retry: Retry, now: float, *, unblocked: bool
) -> tuple[RetryRecord, ...]:
    record = RetryRecord(
        digest=spec.candidate.identity,
        reason=retry.reason,
        manager=retry.manager,
        at=now,
        unblocked=unblocked,
    )
    return (*status.retries, record)[-MAX_RETRIES:]
