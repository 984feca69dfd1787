"""Does the candidate do worse, alone with all traffic, than the stable did before? An e-detector.

With all traffic at the candidate there is nothing to compare with at the same time. What remains is
a bound on the probability of a bad response that the stable kept, fixed when the last of its
requests came. With e bad ones among the n responses of block j::

    S_j = (p1 / p0)^e ((1 - p1) / (1 - p0))^(n - e),   logit p1 = logit p0 + δ
    M_j = (M_(j-1) + 1) min(S_j, 4),   M_0 = 0,   D_j = mean of M_j over the grid of δ

Where the true probability is at most p0, the mean of S_j is at most 1, so D_j - j is a
supermartingale, and the mean number of blocks until D first reaches c is at least c (Shin, Ramdas
and Rinaldo, E-detectors: a nonparametric framework for sequential change detection, 2023, Theorem
2.4; the Shiryaev-Roberts form). In a watch of w blocks a false alarm has a probability of at most
w / c. M starts anew with each block, so harm that begins after a day is found as soon as harm that
is there from the start.
"""

from __future__ import annotations

import math
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import (
    DELTAS,
    Counts,
    log_mean,
    log_sum,
)
from dwcp_ml.rollout.verdict import Outcome, Verdict, evidence_of, percent

LOG_MAX_FACTOR: Final = math.log(4.0)
"""More than in ``error_rate``: a bound that the stable kept in its worst window covers retries."""

_SUSPICIOUS: Final = 4.0
_SUSPICIOUS_BLOCK: Final = 2.0
"""D_j / j, and the mean factor of the newest block, from which on the watch does not end yet; the
mean of both is at most 1."""

_MAX_BOUND: Final = 0.99


class WatchEvidence(Record):
    """The evidence so far that the probability of a bad response lies above a bound."""

    bound: float = Field(gt=0, le=_MAX_BOUND, description="p0")
    log_detectors: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(DELTAS),
        min_length=len(DELTAS),
        max_length=len(DELTAS),
        description="log of M_j, for each δ; of no meaning before the first block",
    )
    blocks: int = Field(default=0, ge=0)
    newest: float = Field(default=0.0, ge=0, description="mean of min(S_j, 4) of the newest block")
    counts: Counts = Field(default=Counts(), description="of the candidate, with all traffic")

    @classmethod
    def start(cls, bound: float) -> Self:
        """Return no evidence yet against "at most ``bound``", a probability."""
        return cls(bound=min(max(bound, 1e-9), _MAX_BOUND))

    def update(self, counts: Counts) -> Self:
        """Return the evidence with the counts since the last update."""
        if not counts.requests:
            return self
        odds = self.bound / (1.0 - self.bound)
        detectors, factors = [], []
        for delta, before in zip(DELTAS, self.log_detectors, strict=True):
            alternative = odds * math.exp(delta)
            rate = alternative / (1.0 + alternative)
            ratio = counts.errors * math.log(rate / self.bound)
            answered = counts.requests - counts.errors
            ratio += answered * math.log1p((self.bound - rate) / (1.0 - self.bound))
            start = log_sum(before, 0.0) if self.blocks else 0.0
            factors.append(min(ratio, LOG_MAX_FACTOR))
            detectors.append(start + factors[-1])
        return self.replace(
            log_detectors=tuple(detectors),
            blocks=self.blocks + 1,
            newest=math.exp(log_mean(tuple(factors))),
            counts=self.counts + counts,
        )

    def verdict(self, test: str, what: str, needed: float) -> Verdict:
        """Return ``FAIL`` once D reaches c, ``PASS`` while nothing points there.

        Parameters
        ----------
        what
            What a bad response did, as a verb: ``failed``.
        needed
            c; see ``RolloutSpec.watch_run_length``.
        """
        value = evidence_of(log_mean(self.log_detectors)) if self.blocks else 0.0
        suspicious = self.newest >= _SUSPICIOUS_BLOCK or value >= _SUSPICIOUS * max(self.blocks, 1)
        passing = Outcome.INSUFFICIENT_DATA if suspicious else Outcome.PASS
        return Verdict(
            test=test,
            outcome=Outcome.FAIL if value >= needed else passing,
            value=self.counts.rate,
            threshold=self.bound,
            evidence=value,
            needed=needed,
            samples=self.counts.requests,
            sentence=f"With all traffic {percent(self.counts.rate)} of {self.counts.requests:,} "
            f"requests {what}; {percent(self.bound)} is what the stable and the margin allow.",
        )
