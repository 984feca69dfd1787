"""Does the candidate fail more often than the stable? The 2×2 block e-process.

Turner, Ly and Grünwald, Generic E-variables for exact sequential k-sample tests that allow for
optional stopping (J. Stat. Plan. Inference 230, 2024; arXiv 2106.02693), for two Bernoulli streams
and blocks of any size. Block j holds n_c requests of the candidate with e_c errors, and n_s, e_s of
the stable::

    S_j = θc^e_c (1-θc)^(n_c-e_c) θs^e_s (1-θs)^(n_s-e_s) / [θ0^(e_c+e_s) (1-θ0)^(n-e_c-e_s)]
    θ0 = (n_c θc + n_s θs) / n,   n = n_c + n_s
    logit θc = logit θs + δ,      θs from the stable's past blocks only
    E = mean over the grid of δ > 0 of the product of S_j

Why it is valid: let both arms fail with the same probability p. An observation of arm a multiplies
S_j by a factor whose mean is f_a = p θa/θ0 + (1-p)(1-θa)/(1-θ0), and n_c f_c + n_s f_s = n by the
choice of θ0. So the mean of S_j is f_c^n_c f_s^n_s <= 1, because a geometric mean is not above an
arithmetic one. p may change from block to block, and inside a block as long as both arms meet the
same mean of it. E is a supermartingale with mean <= 1; by Ville's inequality it ever reaches
1/alpha with probability <= alpha, however often it is looked at.

Two blocks that are merged into one are one valid block, if what merged them did not look at the
errors. A block in which one arm has no requests says nothing about a difference: S_j = 1, and the
stable's counts still teach θs.

*With a margin* m > 0 the null is "worse by the margin at most", p_c <= p_s + m in the mean of a
block, so that a difference which harms nobody takes nothing back. The alternatives start at its
edge, logit θc = logit(θs + m) + δ, and the denominator is the likelihood of the closest pair of
the null (Turner and Grünwald, Exact anytime-valid confidence intervals for contingency tables and
beyond, arXiv 2203.09785: the linear null)::

    (θc°, θs°) minimises n_c KL(θc, θc°) + n_s KL(θs, θs°) over θc° <= θs° + m

f_a is linear in the true rate, and the first-order condition at a minimum over a convex set is
n_c f_c + n_s f_s <= n for every pair of that set. So the mean of S_j is <= 1 again; at m = 0 the
closest pair is θ0, θ0.
"""

from __future__ import annotations

import math
from operator import add
from typing import Final, Self

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence import scalars
from dwcp_ml.rollout.evidence.counts import CountBlock, Counts
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, figure, percent

TEST: Final = "error_rate"

DELTAS: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.5)
"""Log odds ratios that are looked for: 1.6, 2.7, 4.5, 7.4, 20 and 90 times the odds."""

_ODDS_RATIOS: Final = [math.exp(delta) for delta in DELTAS]

PRIOR_ERRORS: Final = 0.5
PRIOR_REQUESTS: Final = 500.0
"""θs of the first block, when the stable has no past yet, is 0.1 %."""

MEMORY_REQUESTS: Final = 200_000.0
"""θs forgets: the past never weighs more than so many requests, so that it follows the day."""


class Past(Record):
    """What the stable's earlier blocks say of its rate; fades beyond ``MEMORY_REQUESTS``."""

    requests: FiniteFloat = Field(default=0.0, ge=0)
    errors: FiniteFloat = Field(default=0.0, ge=0)

    def rate(
        self, prior_errors: float = PRIOR_ERRORS, prior_requests: float = PRIOR_REQUESTS
    ) -> float:
        """Return θs, strictly between 0 and 1."""
        return (self.errors + prior_errors) / (self.requests + prior_requests)

    def with_block(self, stable: Counts) -> Past:
        """Return the past after one more block."""
        requests = self.requests + stable.requests
        fade = min(1.0, MEMORY_REQUESTS / requests) if requests else 1.0
        return Past(requests=requests * fade, errors=(self.errors + stable.errors) * fade)


class ErrorRateEvidence(Record):
    """The evidence so far that the candidate fails more often; by more than a margin, if any."""

    margin: float = Field(default=0.0, ge=0, lt=1, description="excess rate that is no harm")
    log_products: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(DELTAS),
        min_length=len(DELTAS),
        max_length=len(DELTAS),
        description="log of the product of S_j, for each δ",
    )
    past: Past = Past()
    candidate: Counts = Counts()
    stable: Counts = Counts()

    def update(self, block: CountBlock) -> Self:
        """Return the evidence with the counts since the last update.

        A block that is empty changes nothing.
        """
        if block.empty:
            return self
        return self.plus(block, self.past.rate(), self.past.with_block(block.stable))

    def plus(self, block: CountBlock, stable_rate: float, past: Past | None = None) -> Self:
        """Return the evidence with one more block, for a θs that is known before it.

        Parameters
        ----------
        block
            Counts of both arms.
        stable_rate
            θs, strictly between 0 and 1.
        past
            What the stable's blocks say after this one; None if θs is not learnt here.
        """
        steps = block_log_ratios(block, stable_rate, self.margin)
        return type(self)(
            margin=self.margin,
            log_products=tuple(map(add, self.log_products, steps)),
            past=self.past if past is None else past,
            candidate=self.candidate + block.candidate,
            stable=self.stable + block.stable,
        )

    @property
    def log_e(self) -> float:
        """The logarithm of E."""
        return log_mean(self.log_products)

    def verdict(self, alpha: float) -> Verdict:
        """Return ``FAIL`` once E >= 1/alpha, else ``INSUFFICIENT_DATA``; never a pass.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend over the whole rollout.
        """
        return rate_verdict(TEST, "failed", self, alpha)


def rate_verdict(test: str, what: str, evidence: ErrorRateEvidence, alpha: float) -> Verdict:
    """Return what an e-process on two rates shows; ``what`` names the bad thing, ``failed``."""
    needed = 1.0 / check_alpha(alpha)
    log_e = evidence.log_e
    failed = log_e >= math.log(needed)
    candidate, stable = evidence.candidate, evidence.stable
    if not candidate.requests:
        said = "The candidate has answered no request yet"
    elif not stable.requests:
        said = "The stable has answered no request to compare with"
    else:
        said = (
            f"Candidate {percent(candidate.rate)} of {candidate.requests:,} requests {what}, "
            f"stable {percent(stable.rate)} of {stable.requests:,}"
        )
        if evidence.margin:
            said += f", a margin of {percent(evidence.margin)}"
    e_value = evidence_of(log_e)
    action = "rolled back at" if failed else "would be rolled back at"
    return Verdict(
        test=test,
        outcome=Outcome.FAIL if failed else Outcome.INSUFFICIENT_DATA,
        value=candidate.rate if candidate.requests else None,
        threshold=min(stable.rate + evidence.margin, 1.0) if stable.requests else None,
        evidence=e_value,
        needed=needed,
        samples=candidate.requests,
        sentence=f"{said}: e-value {figure(e_value)}, {action} {figure(needed)}.",
    )


def block_log_ratios(block: CountBlock, stable_rate: float, margin: float) -> list[float]:
    """Return log S_j of one block for each δ; 0 where an arm has no requests."""
    candidate, stable = block.candidate, block.stable
    return scalars.log_ratios(
        (candidate.requests, candidate.errors),
        (stable.requests, stable.errors),
        stable_rate,
        _ODDS_RATIOS,
        margin,
    )


def log_mean(logs: tuple[float, ...]) -> float:
    """Return log of the mean of exp(logs) without overflow."""
    top = max(logs)
    return top + math.log(math.fsum([math.exp(value - top) for value in logs]) / len(logs))
