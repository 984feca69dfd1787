"""The status of a ModelRollout, built in one place: conditions, phase, reason and message.

The conditions are those of kstatus, beside ``Promoted``:

Ready        the candidate has all traffic, or there is nothing to do
Reconciling  the rollout is under way
Stalled      it can't go on, or ended without promotion; the reason says why
Promoted     the candidate is what is live
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from dwcp_ml.operator.api.parts import Condition, shortened, with_condition
from dwcp_ml.operator.api.rollout_status import (
    MAX_VERDICTS,
    ModelRolloutStatus,
    RetryStatus,
    RevisionStatus,
    VerdictStatus,
)
from dwcp_ml.operator.state_store import RolloutState, write_state
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import Phase, RetryRecord, RolloutStatus
from dwcp_ml.rollout.verdict import evidence_summary

READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
PROMOTED: Final = "Promoted"

_AT_ALL_TRAFFIC: Final = frozenset({Phase.WATCHING, Phase.PROMOTING, Phase.PROMOTED})


def read_status(status: Mapping[str, Any]) -> ModelRolloutStatus:
    """Return the status of an object; one that can't be read keeps its state only.

    Whatever else stands in it is for users, and never a reason not to go on.
    """
    try:
        return ModelRolloutStatus.model_validate(dict(status))
    except ValidationError:
        state = status.get("state")
        return ModelRolloutStatus(state=state if isinstance(state, str) else "")


def is_stalled(status: ModelRolloutStatus) -> bool:
    """Return whether a status says that its rollout is stalled."""
    return any(each.type == STALLED and each.status == "True" for each in status.conditions)


def status_of_rollout(
    state: RolloutState,
    before: ModelRolloutStatus,
    live_percent: int | None,
    shares: tuple[int, ...],
    now: float,
    *,
    stalled: bool,
) -> ModelRolloutStatus:
    """Return the whole status of a rollout.

    Parameters
    ----------
    before
        The status as it stands: each condition keeps its time until it changes.
    live_percent
        The candidate's weight as the router reports it; ``None`` if unknown.
    shares
        The weights of the steps, percent.
    now
        Epoch seconds.
    stalled
        Whether it has waited beyond the limit of its cause.
    """
    rollout = state.rollout
    at_or_below = [share for share in shares if share <= rollout.target_percent]
    return ModelRolloutStatus(
        observed_generation=rollout.observed_generation,
        phase=rollout.phase,
        reason=rollout.cause.reason,
        message=shortened(rollout.cause.sentence),
        step=f"{len(at_or_below)}/{len(shares)}",
        live_percent=live_percent,
        target_percent=rollout.target_percent,
        passed_percent=rollout.passed_percent,
        candidate=_revision(rollout.revision),
        stable=_revision(state.stable),
        started_at=_time(rollout.started_at) if rollout.revision is not None else None,
        since=_time(rollout.events[-1].at) if rollout.events else None,
        exposed_requests=rollout.exposed_requests,
        evidence=shortened(evidence_summary(rollout.verdicts)),
        verdicts=tuple(
            VerdictStatus(**{**dict(verdict), "sentence": shortened(verdict.sentence)})
            for verdict in rollout.verdicts[:MAX_VERDICTS]
        ),
        blocked_digests=tuple(_with_algorithm(each) for each in rollout.blocked),
        retries=tuple(_retry(record) for record in rollout.retries if record.unblocked) or None,
        conditions=_conditions(rollout, before.conditions, now, stalled=stalled),
        state=write_state(state),
    )


def status_of_obstacle(
    cause: Cause, before: ModelRolloutStatus, generation: int, now: float
) -> ModelRolloutStatus:
    """Return the status of a rollout that can't go on; its state stays as it is stored.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    conditions = kstatus(
        before.conditions, cause.reason, cause.sentence, generation, now, stalled=True
    )
    if cause.reason is Reason.PROMOTION_REVERTED:
        conditions = with_condition(
            conditions, PROMOTED, False, cause.reason, cause.sentence,
            at=_time(now), generation=generation,
        )  # fmt: skip
    return before.replace(
        observed_generation=generation,
        reason=cause.reason,
        message=shortened(cause.sentence),
        conditions=conditions,
    )


def kstatus(
    before: Iterable[Condition],
    reason: str,
    message: str,
    generation: int,
    now: float,
    *,
    ready: bool = False,
    stalled: bool = False,
) -> tuple[Condition, ...]:
    """Return the conditions with the three of kstatus set.

    What is neither ready nor stalled is reconciling.

    Parameters
    ----------
    generation
        Of the object that they are about.
    now
        Epoch seconds.
    """
    values = {READY: ready, RECONCILING: not (ready or stalled), STALLED: stalled}
    conditions = tuple(before)
    for type_, value in values.items():
        conditions = with_condition(
            conditions, type_, value, reason, message, at=_time(now), generation=generation
        )
    return conditions


def _conditions(
    rollout: RolloutStatus, before: Iterable[Condition], now: float, *, stalled: bool
) -> tuple[Condition, ...]:
    cause = cause_of_phase(rollout.phase, rollout.cause)
    reason, message = cause.reason, cause.sentence
    at_all_traffic = rollout.phase in _AT_ALL_TRAFFIC
    stalled = stalled or rollout.phase is Phase.ROLLED_BACK
    generation = rollout.observed_generation
    conditions = kstatus(
        before, reason, message, generation, now,
        ready=at_all_traffic and not stalled, stalled=stalled,
    )  # fmt: skip
    return with_condition(
        conditions, PROMOTED, at_all_traffic, reason, message, at=_time(now), generation=generation
    )


def cause_of_phase(phase: Phase, cause: Cause) -> Cause:
    """Return the cause for conditions and Events: at the end it says which end it was."""
    if phase is Phase.ROLLED_BACK and cause.reason is not Reason.ABORTED:
        return Cause(reason=Reason.ROLLED_BACK, detail=cause.sentence)
    return cause


def _revision(revision: Revision | None) -> RevisionStatus | None:
    if revision is None:
        return None
    return RevisionStatus(
        version=revision.version,
        digest=_with_algorithm(revision.digest),
        storage_uri=revision.uri,
        runtime=revision.runtime or None,
    )


def _retry(record: RetryRecord) -> RetryStatus:
    return RetryStatus(
        digest=_with_algorithm(record.digest),
        reason=record.reason,
        manager=record.manager,
        at=_time(record.at),
    )


def _with_algorithm(digest: str) -> str:
    """Return a digest as resources write it, with the name of its algorithm."""
    return digest if digest.startswith("sha256:") else f"sha256:{digest}"


def _time(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)
