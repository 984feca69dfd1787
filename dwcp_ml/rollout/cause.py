"""Why a rollout waits, stalls or ends: an enum with fields, and the one place that words it.

``decide`` and the operator make a ``Cause`` where they decide. Code compares ``cause.reason``;
people read ``cause.sentence``, which is made here and nowhere else.
"""

from __future__ import annotations

import math
from typing import Final

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.reason import REASONS, Reason, Stall


class Cause(Record):
    """One reason with its figures.

    Parameters
    ----------
    arm
        ``stable`` or ``candidate``; the version of an arm where two versions are named.
    detail
        Words of another: an error of the API server, the sentence of a verdict, the user's reason.
    value, limit
        What was measured and what it is compared with; units as in the sentence.
    """

    reason: Reason
    test: str = ""
    arm: str = ""
    version: str = ""
    detail: str = ""
    percent: int | None = None
    value: float | None = None
    limit: float | None = None

    @property
    def sentence(self) -> str:
        """The cause in words, one sentence or two."""
        fields = dict(self)
        figures = {name: math.nan for name in _FIGURES if fields[name] is None}
        return REASONS[self.reason].sentence.format(**{**fields, **figures}).strip()

    @property
    def stall(self) -> Stall:
        """When a rollout that waits for it is stalled."""
        return REASONS[self.reason].stall


_FIGURES: Final = ("percent", "value", "limit")
