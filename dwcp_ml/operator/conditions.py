"""What is written into a ModelRollout's status for people: conditions and the words around them.

Two conditions beside those of every rollout, each only there once it was true:

Refused  it can't be carried out as it is: malformed, or nothing here can split its traffic
Held     something is in its way that passes, or that a person has to clear up
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from dwcp_ml.operator.api.convert import status_of
from dwcp_ml.operator.api.parts import Condition, shortened, with_condition
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.api.state import Memory, Sealer
from dwcp_ml.operator.state_store import is_troubled

REFUSED: Final = "Refused"
HELD: Final = "Held"

_TROUBLES: Final = (REFUSED, HELD)


def shown_before(status: Mapping[str, Any]) -> ModelRolloutStatus:
    """Return a status as it stands in an object; one that can't be read shows nothing.

    It is for people only, and whatever stands in it is never a reason not to go on.
    """
    try:
        return ModelRolloutStatus.model_validate(dict(status))
    except ValidationError:
        texts = {name: status.get(name) for name in ("memory", "seal")}
        return ModelRolloutStatus(**{key: str(one) for key, one in texts.items() if one})


def of_rollout(
    memory: Memory,
    sealer: Sealer,
    uid: str,
    before: ModelRolloutStatus,
    live_percent: int | None,
    shares: tuple[int, ...],
    now: float,
) -> dict[str, Any]:
    """Return the whole status of a rollout that goes its way.

    Parameters
    ----------
    before
        The status as it stands.
    live_percent
        The candidate's share, as the router tells it.
    now
        Epoch seconds.

    Raises
    ------
    DwcpError
        If there is more to remember than a status can hold.
    """
    rollout = memory.rollout
    troubled = is_troubled(rollout, live_percent)
    conditions = with_trouble(
        before.conditions, HELD, "Waiting" if troubled else "", rollout.reason, now,
        rollout.observed_generation,
    )  # fmt: skip
    status = status_of(rollout, live_percent, shares, memory.stable, conditions)
    text, seal = sealer.seal(memory, uid)
    return status.replace(memory=text, seal=seal).to_dict()


def of_trouble(
    before: ModelRolloutStatus, kind: str, reason: str, sentence: str, generation: int, now: float
) -> dict[str, Any]:
    """Return the status of a rollout that can't go on; what is remembered stays as it stands.

    Parameters
    ----------
    kind
        ``REFUSED`` or ``HELD``.
    reason
        One word.
    sentence
        Why, and what to do.
    generation
        Of the object.
    now
        Epoch seconds.
    """
    conditions = with_trouble(before.conditions, kind, reason, sentence, now, generation)
    return before.replace(
        observed_generation=generation, reason=shortened(sentence), conditions=conditions
    ).to_dict()


def has_trouble(status: ModelRolloutStatus) -> bool:
    """Return whether a status tells of trouble."""
    return any(one.type in _TROUBLES and one.status == "True" for one in status.conditions)


def with_trouble(
    conditions: tuple[Condition, ...],
    kind: str,
    reason: str,
    sentence: str,
    now: float,
    generation: int,
) -> tuple[Condition, ...]:
    """Return the conditions with this trouble and no other: what there was is turned off.

    Parameters
    ----------
    kind
        ``REFUSED`` or ``HELD``.
    reason
        One word; empty for no trouble at all.
    sentence
        Why, and what to do.
    now
        Epoch seconds.
    """
    at = datetime.fromtimestamp(now, UTC)
    for one in conditions:
        is_another = one.type != kind or not reason
        if one.type in _TROUBLES and is_another and one.status != "False":
            conditions = with_condition(
                conditions, one.type, False, "Over", "nothing is in its way.", at=at,
                generation=generation,
            )  # fmt: skip
    if not reason:
        return conditions
    return with_condition(conditions, kind, True, reason, sentence, at=at, generation=generation)
