"""Is the candidate surely no worse than the stable by more than a margin? Evidence to go up.

Two things must be shown, and both at every look until then:

1. *Bounds.* The upper bound of the candidate's probability of an error lies below the lower bound
   of the stable's plus the margin. A bound is the edge of a beta-binomial mixture confidence
   sequence (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon, Ann. Stat. 49, 2021, arXiv
   1810.08240, the two-sided beta-binomial mixture): with e errors in n requests, p is outside once

       B(a + e, b + n - e) / B(a, b) / [p^e (1-p)^(n-e)] >= 1/alpha,      a = b = 1/2

   The left side is a martingale of mean 1 when p is true, so the true p is ever outside with
   probability <= alpha. The candidate's bound spends 90 % of alpha and the stable's 10 %, because
   the stable has most of the requests early on. Without any error and with a margin of 1 % it
   takes 691 requests of the candidate at alpha = 0.05 (a fixed-sample bound, looked at once: 299).
2. *Block by block.* The bounds pool all requests, and the candidate's share grows with the steps:
   a bad hour of both arms early on would make the stable look bad and the candidate good. So the
   e-process against "worse by the margin or more" in blocks must have reached 1/alpha, too
   (Turner and Grünwald, Exact anytime-valid confidence intervals for contingency tables and beyond,
   arXiv 2203.09785: the linear null). For block j and an alternative (θc, θs)::

       S_j = likelihood of (θc, θs) / likelihood of (θc°, θs°),
       (θc°, θs°) minimises n_c KL(θc, θc°) + n_s KL(θs, θs°) over θc° >= θs° + margin
       E = mean over θc = θs + share of the margin of C_j + R_j, as in ``error_rate``, not capped

   With f_a as in ``error_rate``, linear in the true rate, the first-order condition at the minimum
   over a convex set is n_c f_c + n_s f_s <= n for all rates of the set: the mean of S_j is <= 1.

Both together need no split of alpha: a wrong pass needs both to be wrong.

*Latency.* Is the candidate slow more often than the stable, by more than a margin? From histograms.

For each block τ is the edge of the bucket that held the 99th percentile of the stable's previous
block: the smallest edge that at least 99 % of it did not pass, or the last edge if none did. Then
the tests of ``error_rate`` and ``promotion`` run on P(latency > τ), both with the same margin: the
excess share of slow answers that harms nobody. Without one, whatever made the candidate slower by
a hair (a colder cache, a core shared with another program) would be proved in time and rolled back.
Any τ that is known before the block keeps the tests valid: an arm that is no slower exceeds every τ
no more often than the other. A block before there is a τ only teaches one.

The far tail is judged apart: 2 % of responses that take seconds are within a margin of 3 % above
τ. So the same two tests run on P(latency > τ'), τ' the smallest edge of at least ``TAIL_FACTOR`` τ,
with a third of the margin.

θs, the stable's share above τ, comes from all of its past blocks, not only the previous one; they
are kept as a histogram that fades, so that a τ that moves has a past, too.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import add, le, lt
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import (
    MEMORY_REQUESTS,
    CountBlock,
    Counts,
    ErrorRateEvidence,
    Past,
    invested,
    likelihood_edge,
    log_total,
    margin_log_ratios,
    rate_verdict,
)
from dwcp_ml.rollout.observation import Histogram
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, percent

CANDIDATE_SHARE_OF_ALPHA: Final = 0.9
PRIOR_SHAPE: Final = 0.5

MARGIN_SHARES: Final = (0.0, 0.25, 0.5)
"""The alternatives: the candidate is as good as the stable, or worse by a part of the margin."""


class PromotionEvidence(Record):
    """The evidence so far that the candidate is no worse by more than the margin.

    The margin is part of it: another margin begins another evidence.
    """

    margin: float = Field(gt=0, lt=1, description="excess probability of an error that may pass")
    log_capitals: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(MARGIN_SHARES),
        min_length=len(MARGIN_SHARES),
        max_length=len(MARGIN_SHARES),
        description="log of C_j, for each alternative; of no meaning before the first block",
    )
    blocks: int = Field(default=0, ge=0, description="blocks in which both arms had requests")
    past: Past = Past()
    candidate: Counts = Counts()
    stable: Counts = Counts()

    def update(self, block: CountBlock, stable_rate: float | None = None) -> Self:
        """Return the evidence with the counts since the last update.

        Parameters
        ----------
        block
            Counts of both arms. An empty one changes nothing.
        stable_rate
            θs if something better than the past counts tells it; known before the block.
        """
        if block.empty:
            return self
        rate = self.past.rate() if stable_rate is None else stable_rate
        capitals, blocks = self.log_capitals, self.blocks
        if block.candidate.requests and block.stable.requests:
            steps = promotion_log_ratios(block, rate, self.margin)
            capitals, blocks = invested(capitals, blocks, steps), blocks + 1
        return type(self)(
            margin=self.margin,
            log_capitals=capitals,
            blocks=blocks,
            past=self.past.with_block(block.stable),
            candidate=self.candidate + block.candidate,
            stable=self.stable + block.stable,
        )

    def verdict(
        self,
        alpha: float,
        test: str = "error_rate",
        what: str = "failed",
        minimum_requests: int = 0,
    ) -> Verdict:
        """Return ``PASS`` once both conditions hold, else ``INSUFFICIENT_DATA``.

        Parameters
        ----------
        alpha
            Probability of passing a candidate that is worse by the margin or more.
        what
            What a bad request did, as a verb: ``failed``.
        """
        needed = 1.0 / check_alpha(alpha)
        upper = _edge(self.candidate, CANDIDATE_SHARE_OF_ALPHA * alpha, upper=True)
        lower = _edge(self.stable, (1.0 - CANDIDATE_SHARE_OF_ALPHA) * alpha, upper=False)
        threshold = lower + self.margin
        log_e = log_total(self.log_capitals, self.blocks)
        bounded = upper < threshold and self.stable.requests > 0
        enough = self.candidate.requests >= minimum_requests
        passed = bounded and enough and log_e >= math.log(needed)
        outcome: Outcome = Outcome.PASS if passed else Outcome.INSUFFICIENT_DATA
        said = (
            f"Of {self.candidate.requests:,} requests of the candidate "
            f"{percent(self.candidate.rate)} {what}; its upper bound is {percent(upper)}; "
        )
        if passed:
            said += f"below {percent(threshold)} is allowed."
        elif not enough:
            said += f"{minimum_requests:,} requests are needed before anything passes."
        elif not bounded:
            said += f"it must be below {percent(threshold)} to pass."
        else:
            said += "the same is not yet shown within equal windows of time."
        return Verdict(
            test=test,
            outcome=outcome,
            value=self.candidate.rate if self.candidate.requests else None,
            bound=upper,
            threshold=threshold,
            evidence=evidence_of(log_e),
            needed=needed,
            samples=self.candidate.requests,
            sentence=said,
        )


def bounds(counts: Counts, alpha: float) -> tuple[float, float]:
    """Return a confidence interval of a probability that holds at every look.

    Parameters
    ----------
    alpha
        Probability that the interval ever leaves the truth out.

    Returns
    -------
    tuple of float
        Lower and upper bound; (0, 1) without requests.
    """
    return _edge(counts, alpha, upper=False), _edge(counts, alpha, upper=True)


def _edge(counts: Counts, alpha: float, upper: bool) -> float:
    errors, answered = counts.errors, counts.requests - counts.errors
    level = log_marginal(errors, answered) + math.log(check_alpha(alpha))
    if not counts.requests:
        return 1.0 if upper else 0.0
    return likelihood_edge(errors, answered, level, upper)


def log_marginal(errors: int, answered: int) -> float:
    """Return log of B(a + errors, a + answered) / B(a, a), a = ``PRIOR_SHAPE``."""
    return _log_beta(PRIOR_SHAPE + errors, PRIOR_SHAPE + answered) - _LOG_PRIOR


def promotion_log_ratios(block: CountBlock, rate_s: float, margin: float) -> list[float]:
    """Return log S_j for each alternative; 0 where the block can't tell."""
    candidate, stable = block.candidate, block.stable
    if not (candidate.requests and stable.requests and rate_s + margin < 1.0):
        return [0.0] * len(MARGIN_SHARES)
    return margin_log_ratios(
        (candidate.requests, candidate.errors),
        (stable.requests, stable.errors),
        rate_s,
        margin,
        [rate_s + share * margin for share in MARGIN_SHARES],
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


_LOG_PRIOR: Final = _log_beta(PRIOR_SHAPE, PRIOR_SHAPE)

QUANTILE: Final = 0.99
TAIL_FACTOR: Final = 4.0
TAIL_SHARE_OF_MARGIN: Final = 1.0 / 3.0
PRIOR_SLOW_REQUESTS: Final = 50.0
"""Weight, in requests, of the initial θs of 1 %, the share above a 99th percentile."""


class LatencyPart(Record):
    """The two tests on the share of responses above one threshold."""

    tau: FiniteFloat | None = Field(default=None, description="what is slow now, seconds")
    harm: ErrorRateEvidence
    promotion: PromotionEvidence

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet; ``margin`` as in ``LatencyEvidence.start``."""
        harm = ErrorRateEvidence(margin=margin)
        return cls(harm=harm, promotion=PromotionEvidence(margin=margin))

    def update(
        self,
        edges: tuple[float, ...],
        past: tuple[float, ...],
        arms: tuple[Histogram | None, Histogram | None],
        only_harm: bool,
    ) -> Self:
        """Return it with one more block.

        Parameters
        ----------
        edges, past
            Of the stable's past, as in ``LatencyEvidence``.
        only_harm
            Whether the block counts against the candidate only.
        """
        if self.tau is None:
            return self
        place = edges.index(self.tau)
        candidate, stable = (_above(histogram, place) for histogram in arms)
        block = CountBlock(candidate=candidate, stable=stable)
        rate = past_share(past, place)
        promotion = self.promotion if only_harm else self.promotion.update(block, rate)
        return self.replace(harm=self.harm.plus(block, rate), promotion=promotion)

    def counts_above(self, edges: tuple[float, ...], histogram: Histogram) -> Counts:
        """Return the responses of a block, and those above the threshold; none without one."""
        return Counts() if self.tau is None else _above(histogram, edges.index(self.tau))

    def allowed(self, edges: tuple[float, ...], past: tuple[float, ...], alpha: float) -> float:
        """Return an upper bound of the stable's share above the threshold, plus the margin."""
        place = len(edges) - 1 if self.tau is None else edges.index(self.tau)
        requests = int(past[-1])
        counts = Counts(requests=requests, errors=min(math.ceil(past[-1] - past[place]), requests))
        return bounds(counts, alpha)[1] + self.promotion.margin

    @property
    def what(self) -> str:
        """What a slow response did, as a verb."""
        return "were slow" if self.tau is None else f"took longer than {1000 * self.tau:.3g} ms"


class LatencyEvidence(Record):
    """The evidence so far that the candidate is slow too often, and that it is not."""

    edges: tuple[FiniteFloat, ...] = Field(
        default=(), description="upper bounds of the buckets, seconds, without +Inf"
    )
    past: tuple[FiniteFloat, ...] = Field(
        default=(), description="cumulative counts of the stable's past, fading"
    )
    slow: LatencyPart = Field(description="above the stable's 99th percentile")
    tail: LatencyPart = Field(description="far above it")

    @classmethod
    def start(cls, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        margin
            Excess share of slow answers that is no harm and may pass, in (0, 1).
        """
        tail = LatencyPart.start(TAIL_SHARE_OF_MARGIN * margin)
        return cls(slow=LatencyPart.start(margin), tail=tail)

    def update(
        self, candidate: Histogram | None, stable: Histogram | None, *, only_harm: bool = False
    ) -> Self:
        """Return the evidence with the latencies since the last update.

        Parameters
        ----------
        candidate, stable
            Cumulative counts of this block; None is an arm without requests.
        only_harm
            The block counts against the candidate, and not for it.

        Raises
        ------
        DwcpError
            If the histograms are malformed, or their buckets are not those of before.
        """
        given = [histogram for histogram in (candidate, stable) if histogram is not None]
        for histogram in given:
            check_histogram(histogram)
            if histogram.edges != (self.edges or given[0].edges):
                raise DwcpError(
                    "latency can't be compared: its buckets are not those of the other arm or of "
                    "before; start the rollout again with equal buckets."
                )
        if not any(histogram.counts[-1] for histogram in given):
            return self
        edges = self.edges or given[0].edges
        arms = candidate, stable
        known = self.replace(
            edges=edges,
            slow=self.slow.update(edges, self.past, arms, only_harm),
            tail=self.tail.update(edges, self.past, arms, only_harm),
        )
        return known._with_stable(stable) if stable is not None and stable.counts[-1] else known

    def harm_verdict(self, alpha: float, tail_alpha: float) -> Verdict:
        """Return ``fail`` once it is shown to be slow more often by the margin; never a pass."""
        slow = rate_verdict("latency", self.slow.what, self.slow.harm, alpha)
        tail = rate_verdict("latency", self.tail.what, self.tail.harm, tail_alpha)
        return tail if tail.outcome is Outcome.FAIL else slow

    def promotion_verdict(self, alpha: float, minimum_requests: int = 0) -> Verdict:
        """Return ``pass`` once the candidate is shown not to be slow more often by the margin."""
        slow, tail = (
            part.promotion.verdict(alpha, "latency", part.what, minimum_requests)
            for part in (self.slow, self.tail)
        )
        return tail if slow.outcome is Outcome.PASS and tail.outcome is not Outcome.PASS else slow

    def _with_stable(self, stable: Histogram) -> Self:
        past = tuple(map(add, self.past or (0.0,) * len(stable.counts), stable.counts))
        if past[-1] > MEMORY_REQUESTS:
            fade = MEMORY_REQUESTS / past[-1]
            past = tuple(count * fade for count in past)
        tau = slow_edge(stable, QUANTILE)
        far = next((edge for edge in self.edges if edge >= TAIL_FACTOR * tau), self.edges[-1])
        return self.replace(
            past=past, slow=self.slow.replace(tau=tau), tail=self.tail.replace(tau=far)
        )


def past_share(past: tuple[float, ...], place: int) -> float:
    """Return θs, the share of the stable's past above the edge at ``place``, in (0, 1)."""
    total = past[-1]
    prior = PRIOR_SLOW_REQUESTS * (1.0 - QUANTILE)
    return (total - past[place] + prior) / (total + PRIOR_SLOW_REQUESTS)


def slow_edge(histogram: Histogram, quantile: float) -> float:
    """Return the smallest edge with at least this share up to it, or the last edge.

    Parameters
    ----------
    histogram
        With at least one value.
    quantile
        Share, in (0, 1).
    """
    total = histogram.counts[-1]
    for edge, count in zip(histogram.edges, histogram.counts, strict=False):
        if count >= quantile * total:
            return edge
    return histogram.edges[-1]


def check_histogram(histogram: Histogram) -> None:
    """Refuse a histogram that is none.

    Raises
    ------
    DwcpError
        If its edges do not ascend, or its counts are not cumulative, or their number is wrong.
    """
    edges, counts = histogram.edges, histogram.counts
    if not edges or len(counts) != len(edges) + 1:
        raise DwcpError(
            f"a histogram has {len(edges)} edges and {len(counts)} counts; it needs at least one "
            "edge, and one count more than edges."
        )
    if not _ascend(edges):
        raise DwcpError("the edges of a histogram must be finite and ascend.")
    if counts[0] < 0 or not all(map(le, counts, counts[1:])):
        raise DwcpError("the counts of a histogram must be cumulative: they never descend.")


@lru_cache(maxsize=64)
def _ascend(edges: tuple[float, ...]) -> bool:
    # The same edges come with every block.
    return all(map(math.isfinite, edges)) and all(map(lt, edges, edges[1:]))


def _above(histogram: Histogram | None, place: int) -> Counts:
    if histogram is None:
        return Counts()
    total = histogram.counts[-1]
    return Counts(requests=total, errors=total - histogram.counts[place])
