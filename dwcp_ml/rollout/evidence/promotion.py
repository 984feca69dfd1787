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
       E = mean over θc = θs + share of the margin of the product of S_j

   With f_a as in ``error_rate``, linear in the true rate, the first-order condition at the minimum
   over a convex set is n_c f_c + n_s f_s <= n for all rates of the set: the mean of S_j is <= 1.

Both together need no split of alpha: a wrong pass needs both to be wrong.
"""

from __future__ import annotations

import math
from operator import add
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence import scalars
from dwcp_ml.rollout.evidence.counts import CountBlock, Counts
from dwcp_ml.rollout.evidence.error_rate import (
    Past,
    log_mean,
)
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, percent

TEST: Final = "error_rate"

CANDIDATE_SHARE_OF_ALPHA: Final = 0.9
PRIOR_SHAPE: Final = 0.5

MARGIN_SHARES: Final = (0.0, 0.25, 0.5)
"""The alternatives: the candidate is as good as the stable, or worse by a part of the margin."""


class PromotionEvidence(Record):
    """The evidence so far that the candidate is no worse by more than the margin.

    The margin is part of it: another margin begins another evidence.
    """

    margin: float = Field(gt=0, lt=1, description="excess probability of an error that may pass")
    log_products: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(MARGIN_SHARES),
        min_length=len(MARGIN_SHARES),
        max_length=len(MARGIN_SHARES),
        description="log of the product of S_j, for each alternative",
    )
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
        steps = block_log_ratios(block, rate, self.margin)
        return type(self)(
            margin=self.margin,
            log_products=tuple(map(add, self.log_products, steps)),
            past=self.past.with_block(block.stable),
            candidate=self.candidate + block.candidate,
            stable=self.stable + block.stable,
        )

    def verdict(
        self, alpha: float, test: str = TEST, what: str = "failed", minimum_requests: int = 0
    ) -> Verdict:
        """Return ``PASS`` once both conditions hold, else ``INSUFFICIENT_DATA``.

        Parameters
        ----------
        alpha
            Probability of passing a candidate that is worse by the margin or more.
        test
            Name of the test in the verdict.
        what
            What a bad request did, as a verb: ``failed``.
        minimum_requests
            Below so many requests of the candidate nothing passes.
        """
        needed = 1.0 / check_alpha(alpha)
        upper = _edge(self.candidate, CANDIDATE_SHARE_OF_ALPHA * alpha, upper=True)
        lower = _edge(self.stable, (1.0 - CANDIDATE_SHARE_OF_ALPHA) * alpha, upper=False)
        threshold = lower + self.margin
        log_e = log_mean(self.log_products)
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
    counts
        Requests and errors so far.
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
    return scalars.likelihood_edge(errors, answered, level, upper)


def log_marginal(errors: int, answered: int) -> float:
    """Return log of B(a + errors, a + answered) / B(a, a), a = ``PRIOR_SHAPE``."""
    return _log_beta(PRIOR_SHAPE + errors, PRIOR_SHAPE + answered) - _LOG_PRIOR


def block_log_ratios(block: CountBlock, rate_s: float, margin: float) -> list[float]:
    """Return log S_j for each alternative; 0 where the block can't tell."""
    candidate, stable = block.candidate, block.stable
    if not (candidate.requests and stable.requests and rate_s + margin < 1.0):
        return [0.0] * len(MARGIN_SHARES)
    return scalars.margin_log_ratios(
        (candidate.requests, candidate.errors),
        (stable.requests, stable.errors),
        rate_s,
        margin,
        [rate_s + share * margin for share in MARGIN_SHARES],
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


_LOG_PRIOR: Final = _log_beta(PRIOR_SHAPE, PRIOR_SHAPE)
