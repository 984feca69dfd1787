"""Are the candidate's predictions distributed as the stable's? An e-process, without pairs.

Both arms answer requests that are drawn from the same traffic at the same time, so their
predictions have the same distribution where the models agree. A candidate that answers a constant,
zero for everything that it can't compute, or in another unit, shows it within minutes, and no
label and no pairing of requests is needed: the servers' histograms are enough.

At three quantiles of the stable's earlier predictions, the edge x of a bucket, two rates are
compared with the test of ``error_rate`` and a margin: P(prediction <= x) and P(prediction > x).
The margin is the difference of the two distribution functions that is meant: a model that was
trained again differs. The mean of the six e-processes is one. x is known before the block, so it
may follow the hour of the day.

One prediction of each request counts, its first: the instances of one request go to the same arm,
so they are no independent observations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.buckets import BucketPast, at_or_below, complement
from dwcp_ml.rollout.evidence.error_rate import (
    CountBlock,
    Counts,
    ShareEvidence,
    log_mean,
)
from dwcp_ml.rollout.evidence.pods import PodCounts
from dwcp_ml.rollout.observation import BucketCounts
from dwcp_ml.rollout.verdict import (
    Outcome,
    Verdict,
    check_alpha,
    evidence_of,
    figure,
    percent,
    unavailable,
)

TEST: Final = "prediction_distribution"

QUANTILES: Final = (0.1, 0.5, 0.9)
"""Of the stable's earlier predictions: where the distribution functions are compared."""


class QuantileEvidence(Record):
    """The two e-processes at one quantile of the stable's predictions."""

    edge: FiniteFloat | None = Field(
        default=None, description="of the next block; null without one below which they vary"
    )
    below: ShareEvidence = Field(description="more predictions at or below the edge")
    above: ShareEvidence = Field(description="more predictions above it")

    def update(self, candidate: Mapping[str, int], stable: Mapping[str, int], share: float) -> Self:
        """Return it with one more block.

        Parameters
        ----------
        candidate, stable
            Upper bound of a bucket -> predictions in it.
        share
            The stable's earlier share at or below the edge, strictly between 0 and 1.
        """
        if self.edge is None:
            return self
        arms = [at_or_below(counts, self.edge) for counts in (candidate, stable)]
        below = CountBlock(candidate=arms[0], stable=arms[1])
        above = CountBlock(candidate=complement(arms[0]), stable=complement(arms[1]))
        return self.replace(
            below=self.below.plus(below, share), above=self.above.plus(above, 1.0 - share)
        )


class PredictionEvidence(Record):
    """The evidence so far that the two arms' predictions are distributed differently."""

    margin: float = Field(gt=0, lt=1)
    buckets: str = Field(default="", description="what tells one set of buckets from another")
    past: BucketPast = BucketPast()
    quantiles: tuple[QuantileEvidence, ...] = Field(
        min_length=len(QUANTILES), max_length=len(QUANTILES)
    )
    pods: PodCounts = Field(
        default=PodCounts(), description="predictions at or below the stable's median, by pod"
    )
    fault: str = Field(default="", description="why the newest block could not be compared")

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        margin
            Difference of the two distribution functions that is meant, in (0, 1).
        """
        process = ShareEvidence(margin=margin)
        part = QuantileEvidence(below=process, above=process)
        return cls(margin=margin, quantiles=(part,) * len(QUANTILES))

    def update(
        self,
        candidate: BucketCounts | None,
        stable: BucketCounts | None,
        pods: tuple[Mapping[str, BucketCounts], Mapping[str, BucketCounts]] | None = None,
    ) -> Self:
        """Return the evidence with the predictions since the last update.

        Parameters
        ----------
        candidate, stable
            None for an arm that reports none.
        pods
            The same by pod, of the stable and of the candidate; None where a part of the arms is
            missing.
        """
        if stable is None or not stable.buckets:
            return self.replace(fault="")
        if candidate is None or candidate.buckets != stable.buckets:
            return self.replace(fault=_NOT_REPORTED if candidate is None else _OTHER_BUCKETS)
        if self.buckets != stable.buckets:
            # The buckets of another server release: nothing of before can be compared.
            return (
                type(self)
                .start(self.margin)
                .replace(buckets=stable.buckets)
                ._with_past(stable.counts)
            )
        quantiles = tuple(
            part.update(
                candidate.counts, stable.counts, self.past.share(part.edge or 0.0, quantile)
            )
            for part, quantile in zip(self.quantiles, QUANTILES, strict=True)
        )
        new = self.replace(quantiles=quantiles, fault="")
        if pods is not None:
            new = new.replace(pods=self.pods.update(*map(self._by_pod, pods)))
        return new._with_past(stable.counts)

    @property
    def log_e(self) -> float:
        """The logarithm of E."""
        return log_mean(
            tuple(process.log_e for part in self.quantiles for process in (part.below, part.above))
        )

    @property
    def odd_pod(self) -> str:
        """The pod that explains a difference of the arms; empty if the bundle has to."""
        above = PodCounts(
            **{
                arm: {pod: complement(counts) for pod, counts in getattr(self.pods, arm).items()}
                for arm in ("stable", "candidate")
            }
        )
        # The one direction in which all pods of the candidate differ accuses the bundle.
        return self.pods.odd_pod and above.odd_pod

    def verdict(self, alpha: float) -> Verdict:
        """Return ``FAIL`` once E >= 1/alpha, else ``INSUFFICIENT_DATA``; never a pass.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend over the whole rollout.
        """
        needed = 1.0 / check_alpha(alpha)
        log_e = self.log_e
        failed = log_e >= math.log(needed)
        if self.fault and not failed:
            return unavailable(TEST, self.fault)
        processes = [
            (process, quantile, side)
            for part, quantile in zip(self.quantiles, QUANTILES, strict=True)
            for process, side in ((part.below, "at or below"), (part.above, "above"))
        ]
        shown, quantile, side = max(processes, key=lambda each: each[0].log_e)
        candidate, stable = shown.candidate, shown.stable
        if not (candidate.requests and stable.requests):
            said = "There are no predictions of both arms to compare yet"
        else:
            said = (
                f"Of {candidate.requests:,} predictions of the candidate "
                f"{percent(candidate.rate)} lie {side} the stable's {percent(quantile)} quantile, "
                f"of the stable's {percent(stable.rate)}, a margin of {percent(self.margin)}"
            )
        e_value = evidence_of(log_e)
        action = "rolled back at" if failed else "would be rolled back at"
        return Verdict(
            test=TEST,
            outcome=Outcome.FAIL if failed else Outcome.INSUFFICIENT_DATA,
            value=candidate.rate - stable.rate if candidate.requests else None,
            threshold=self.margin,
            evidence=e_value,
            needed=needed,
            samples=candidate.requests,
            sentence=f"{said}: e-value {figure(e_value)}, {action} {figure(needed)}.",
        )

    def _with_past(self, stable: Mapping[str, int]) -> Self:
        """Return it with a block of the stable's, and the edges of the next block."""
        past = self.past.with_block(stable)
        quantiles = tuple(
            part.replace(edge=past.edge(quantile))
            for part, quantile in zip(self.quantiles, QUANTILES, strict=True)
        )
        return self.replace(past=past, quantiles=quantiles)

    def _by_pod(self, pods: Mapping[str, BucketCounts]) -> dict[str, Counts]:
        median = self.quantiles[QUANTILES.index(0.5)].edge
        if median is None:
            return {}
        return {pod: at_or_below(counts.counts, median) for pod, counts in pods.items()}


_NOT_REPORTED: Final = (
    "The candidate's servers do not report how their predictions are distributed; the stable's do."
)
_OTHER_BUCKETS: Final = "The servers of the two arms count predictions in different buckets."
