"""What a person is told about an object, whoever tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dwcp_ml.operator.settings import Key


@dataclass(frozen=True)
class Happening:
    """Something that a person wants to be told about an object.

    Parameters
    ----------
    key, uid, kind
        Of the object.
    warning
        Whether it is trouble.
    reason
        One word.
    text
        One sentence.
    """

    key: Key
    uid: str
    kind: str
    warning: bool
    reason: str
    text: str


class Teller(Protocol):
    """Tells people."""

    def __call__(self, happening: Happening) -> None:
        """Tell; never fails."""
        ...


def nobody(happening: Happening) -> None:
    """Tell nobody."""
