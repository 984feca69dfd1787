"""What a rollout remembers, as text that only the operator can have written.

Kept as one string, not as an object: the API server writes an object's numbers and keys in its own
way, so that a seal over its bytes would not hold; the schema would be long, and bound to every
detail of the tests; and a string's length can be bounded. It is plain JSON: ``kubectl get mr NAME
-o jsonpath={.status.memory}`` shows it.

The seal binds the text to one object. What it can't stop is an older text of the same object put
back with its own seal; so nobody but the operator should have the right to write
``modelrollouts/status``.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from pydantic import Field, ValidationError

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.records import Record
from dwcp_ml.operator.api.rollout_status import LONGEST_MEMORY
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import RolloutStatus

SHORTEST_KEY: Final = 32

_PREFIX: Final = "hmac-sha256:"
_PURPOSE: Final = b"dwcp-ml ModelRollout memory 1"


class NotBelieved(DwcpError):
    """The memory in a status was not written by this operator for this object."""


class Memory(Record):
    """Everything that the operator knows of one rollout's past."""

    rollout: RolloutStatus = RolloutStatus()
    stable: Revision | None = Field(
        default=None, description="what was live when the candidate came; null for nothing"
    )


class Sealer:
    """Writes memories down, and reads back only what it wrote.

    Parameters
    ----------
    *keys
        Secrets of at least 32 bytes. The first seals; each of them is believed, so that a key can
        be replaced while rollouts are under way.

    Raises
    ------
    UsageError
        If there is no key, or one is too short.
    """

    def __init__(self, *keys: bytes) -> None:
        if not keys or min(len(key) for key in keys) < SHORTEST_KEY:
            raise UsageError(f"the operator's key must have at least {SHORTEST_KEY} bytes.")
        self._keys = keys

    def seal(self, memory: Memory, uid: str) -> tuple[str, str]:
        """Return the memory as text, and its seal.

        Parameters
        ----------
        uid
            ``metadata.uid`` of the object it is for.

        Raises
        ------
        DwcpError
            If the text is longer than a status may hold.
        """
        text = memory.model_dump_json()
        if len(text) > LONGEST_MEMORY:
            replicas = len(memory.rollout.stable_counters.replicas)
            replicas += len(memory.rollout.candidate_counters.replicas)
            raise DwcpError(
                f"what the rollout remembers has {len(text):,} characters, more than "
                f"{LONGEST_MEMORY:,}: {replicas} replicas are too many."
            )
        return text, _PREFIX + _mac(self._keys[0], uid, text)

    def open(self, text: str, seal: str, uid: str) -> Memory | None:
        """Return the memory that a status holds; ``None`` if it holds none.

        Without a memory a rollout begins anew, so the caller must learn from the InferenceService
        what is live: an emptied status is not the word that nothing is.

        Raises
        ------
        NotBelieved
            If the seal is not that of this text, object and key, or the text is of another
            release's making.
        """
        if not text and not seal:
            return None
        given = seal.removeprefix(_PREFIX).encode()
        if not any(hmac.compare_digest(given, _mac(k, uid, text).encode()) for k in self._keys):
            raise NotBelieved(
                "the status was not written by this operator: it was edited, or the key was "
                "replaced; remove status.memory and status.seal to begin the rollout anew."
            )
        try:
            return Memory.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise NotBelieved(
                f"the status was written by another release: '{where}' is not known here; "
                "remove status.memory and status.seal to begin the rollout anew."
            ) from error


def _mac(key: bytes, uid: str, text: str) -> str:
    message = b"\0".join((_PURPOSE, uid.encode(), text.encode()))
    return hmac.new(key, message, hashlib.sha256).hexdigest()
