"""The state of a rollout as one string in ``status.state``.

It is a string and not an object because a structural schema would bind the CRD to every detail of
the sequential tests, and because the length of a string can be bounded. It is plain JSON: ``kubectl
get mr NAME -o jsonpath={.status.state}`` prints it. Who may write it is a matter of RBAC: no role
for users includes ``modelrollouts/status``.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, ValidationError

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.operator.api.rollout_status import MAX_STATE
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import RolloutStatus

STATE_VERSION: Final = 1


class InvalidState(DwcpError):
    """``status.state`` can't be read: it was edited, or written by another release."""


class StateTooLarge(DwcpError):
    """The state does not fit into a status."""


class RolloutState(Record):
    """Everything that the operator knows of one rollout's past."""

    version: Literal[1] = STATE_VERSION
    rollout: RolloutStatus = RolloutStatus()
    stable: Revision | None = Field(
        default=None, description="what was live when the candidate came; null for nothing"
    )


def write_state(state: RolloutState) -> str:
    """Return the state as text.

    Raises
    ------
    StateTooLarge
        If the text is longer than a status may hold.
    """
    text = state.model_dump_json()
    if len(text) > MAX_STATE:
        replicas = len(state.rollout.stable_counters.replicas)
        replicas += len(state.rollout.candidate_counters.replicas)
        raise StateTooLarge(
            f"{len(text):,} characters, {MAX_STATE:,} are the limit; it holds {replicas} replicas."
        )
    return text


def read_state(text: str) -> RolloutState | None:
    """Return the state that a status holds; ``None`` if it holds none.

    Without a state a rollout starts over, and what is live is read from the InferenceService: an
    empty status is not proof that the rollout never started.

    Raises
    ------
    InvalidState
        If the text is not a state of this release.
    """
    if not text:
        return None
    try:
        return RolloutState.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InvalidState(f"'{field}' is not valid ({first['msg']}).") from error
