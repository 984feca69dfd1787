"""Does the candidate fail more often than the stable? The 2×2 block e-process.

Turner, Ly and Grünwald, Generic E-variables for exact sequential k-sample tests that allow for
optional stopping (J. Stat. Plan. Inference 230, 2024; arXiv 2106.02693), for two Bernoulli streams
and blocks of any size. Block j holds n_c requests of the candidate with e_c errors, and n_s, e_s of
the stable::

    S_j = θc^e_c (1-θc)^(n_c-e_c) θs^e_s (1-θs)^(n_s-e_s) / [θ0^(e_c+e_s) (1-θ0)^(n-e_c-e_s)]
    θ0 = (n_c θc + n_s θs) / n,   n = n_c + n_s
    logit θc = logit θs + δ,      θs from the stable's past blocks only
    F_j = min(S_j, 3)
    E_j = mean over the grid of δ > 0 of C_j + R_j,  C_j = (C_(j-1) + R_(j-1) - R_j) F_j,  C_0 = 0

Why it is valid: let both arms fail with the same probability p. An observation of arm a multiplies
S_j by a factor whose mean is f_a = p θa/θ0 + (1-p)(1-θa)/(1-θ0), and n_c f_c + n_s f_s = n by the
choice of θ0. So the mean of S_j is f_c^n_c f_s^n_s <= 1, because a geometric mean is not above an
arithmetic one. p may change from block to block, and inside a block as long as both arms meet the
same mean of it. E is a supermartingale with mean <= 1; by Ville's inequality it ever reaches
1/alpha with probability <= alpha, however often it is looked at.

*No single block decides.* The failures of one block may have one cause: a cold pod, retries of one
request, a burst. A factor is therefore capped at ``MAX_FACTOR``; its mean stays at most 1, and a
candidate that fails everything is found in the fifth block.

*Evidence does not sleep on its past.* After hours in which the candidate was as good as the
stable, a single product would have to make up for all of them. R_j is a reserve, which starts at 1
and falls with the number of blocks: what it loses is invested in the product that starts with the
next block, so E mixes over the time at which harm begins (Shin, Ramdas and Rinaldo, E-detectors: a
nonparametric framework for sequential change detection, 2023). The weights sum to 1, so E is a
supermartingale.

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
from collections.abc import Iterable, Sequence
from math import log, log1p
from typing import ClassVar, Final, Self

from pydantic import Field, FiniteFloat, model_validator

from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.verdict import Outcome, Verdict, check_alpha, evidence_of, figure, percent

WINDOW_REQUESTS: Final = 1000


class Counts(Record):
    """Requests of one arm, and how many of them failed (or were slow)."""

    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _errors_are_requests(self) -> Self:
        if self.errors > self.requests:
            raise ValueError(f"{self.errors} errors are more than {self.requests} requests")
        return self

    def __add__(self, other: Counts) -> Counts:
        return Counts(requests=self.requests + other.requests, errors=self.errors + other.errors)

    @property
    def rate(self) -> float:
        """Errors a request; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0


class CountBlock(Record):
    """Both arms over the same time: differences of counters, resets taken out."""

    candidate: Counts = Counts()
    stable: Counts = Counts()

    @property
    def empty(self) -> bool:
        """True when nothing was counted in either arm."""
        return not (self.candidate.requests or self.stable.requests)


class WorstWindow(Record):
    """The highest error rate of an arm over windows of at least ``WINDOW_REQUESTS``."""

    open: Counts = Field(default=Counts(), description="the window that is not full yet")
    rate: float = Field(default=0.0, ge=0, le=1, description="errors a request in the worst one")

    def update(self, counts: Counts) -> Self:
        """Return it with the counts since the last update."""
        if not counts.requests:
            return self
        total = self.open + counts
        if total.requests < WINDOW_REQUESTS:
            return type(self)(open=total, rate=self.rate)
        return type(self)(rate=max(self.rate, total.rate))


TEST: Final = "error_rate"

DELTAS: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.5)
"""Log odds ratios that are looked for: 1.6, 2.7, 4.5, 7.4, 20 and 90 times the odds."""

SHARE_DELTAS: Final = (0.1, 0.2, 0.35, 0.6, 1.0, 2.0)
"""The same of ``ShareEvidence``: 1.1 to 7.4 times the odds."""

_ODDS_RATIOS: Final = [math.exp(delta) for delta in DELTAS]

MAX_FACTOR: Final = 3.0
LOG_MAX_FACTOR: Final = log(MAX_FACTOR)

FIRST_SHARE: Final = 0.5
"""What is invested in the product that starts with the first block."""

RESERVE_BLOCKS: Final = 30.0
"""Blocks within which the reserve is invested fastest; after that about as 1 / (j log² j)."""

PRIOR_ERRORS: Final = 0.5
PRIOR_REQUESTS: Final = 500.0
"""θs of the first block, when the stable has no past yet, is 0.1 %."""

MEMORY_REQUESTS: Final = 200_000.0
"""Maximum weight of the past in θs, in requests, so that it follows the time of day."""


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


def reserve(blocks: int) -> float:
    """Return R_j, the share of the capital that is not invested after ``blocks`` blocks."""
    if not blocks:
        return 1.0
    return (1.0 - FIRST_SHARE) / (1.0 + log1p((blocks - 1) / RESERVE_BLOCKS))


class ErrorRateEvidence(Record):
    """The evidence so far that the candidate fails more often; by more than a margin, if any."""

    odds_ratios: ClassVar[list[float]] = _ODDS_RATIOS

    margin: float = Field(default=0.0, ge=0, lt=1, description="excess rate that is no harm")
    log_capitals: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(DELTAS),
        min_length=len(DELTAS),
        max_length=len(DELTAS),
        description="log of C_j, for each δ; of no meaning before the first block",
    )
    blocks: int = Field(default=0, ge=0, description="blocks in which both arms had requests")
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
        stable_rate
            θs, strictly between 0 and 1.
        past
            What the stable's blocks say after this one; None if θs is not learnt here.
        """
        capitals, blocks = self.log_capitals, self.blocks
        if block.candidate.requests and block.stable.requests:
            steps = block_log_ratios(block, stable_rate, self.margin, self.odds_ratios)
            capitals = invested(capitals, blocks, steps, LOG_MAX_FACTOR)
            blocks += 1
        return type(self)(
            margin=self.margin,
            log_capitals=capitals,
            blocks=blocks,
            past=self.past if past is None else past,
            candidate=self.candidate + block.candidate,
            stable=self.stable + block.stable,
        )

    @property
    def log_e(self) -> float:
        """The logarithm of E."""
        return log_total(self.log_capitals, self.blocks)

    def verdict(self, alpha: float) -> Verdict:
        """Return ``FAIL`` once E >= 1/alpha, else ``INSUFFICIENT_DATA``; never a pass.

        Parameters
        ----------
        alpha
            Probability of a false alarm that this test may spend over the whole rollout.
        """
        return rate_verdict(TEST, "failed", self, alpha)


class ShareEvidence(ErrorRateEvidence):
    """The same of a share that is no small one: what lies above a quantile, for instance.

    Where a tenth or half of the values are counted, a shift that matters changes the odds little.
    """

    odds_ratios: ClassVar[list[float]] = [math.exp(delta) for delta in SHARE_DELTAS]


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


def block_log_ratios(
    block: CountBlock, stable_rate: float, margin: float, odds_ratios: list[float] = _ODDS_RATIOS
) -> list[float]:
    """Return log S_j of one block for each δ; 0 where an arm has no requests."""
    candidate, stable = block.candidate, block.stable
    return log_ratios(
        (candidate.requests, candidate.errors),
        (stable.requests, stable.errors),
        stable_rate,
        odds_ratios,
        margin,
    )


def invested(
    log_capitals: tuple[float, ...],
    blocks: int,
    log_ratios: Sequence[float],
    log_max_factor: float = math.inf,
) -> tuple[float, ...]:
    """Return log C_j of each δ after one more block.

    Parameters
    ----------
    log_capitals, blocks
        Before the block.
    """
    new = log(reserve(blocks) - reserve(blocks + 1))
    steps = [min(ratio, log_max_factor) for ratio in log_ratios]
    if not blocks:
        return tuple(new + step for step in steps)
    return tuple(
        log_sum(capital, new) + step for capital, step in zip(log_capitals, steps, strict=True)
    )


def log_total(log_capitals: tuple[float, ...], blocks: int) -> float:
    """Return log E: the mean of the capitals and the reserve."""
    if not blocks:
        return 0.0
    return log_sum(log_mean(log_capitals), log(reserve(blocks)))


def log_sum(one: float, other: float) -> float:
    """Return log(exp(one) + exp(other)) without overflow."""
    high, low = max(one, other), min(one, other)
    return high + log1p(math.exp(low - high))


def log_mean(logs: tuple[float, ...]) -> float:
    """Return log of the mean of exp(logs) without overflow."""
    top = max(logs)
    return top + math.log(math.fsum([math.exp(value - top) for value in logs]) / len(logs))


_STEPS: Final = 100
_CLOSE: Final = 1e-10
"""A Newton step of this relative size leaves an error of about its square."""

_ROUNDED: Final = 4e-16


def log_ratios(
    candidate: tuple[int, int],
    stable: tuple[int, int],
    rate_s: float,
    odds_ratios: list[float],
    margin: float = 0.0,
) -> list[float]:
    """Return log S_j of ``error_rate`` for each odds ratio; 0 where the block can't tell.

    Parameters
    ----------
    rate_s
        θs, strictly between 0 and 1, known before the block.
    margin
        Excess probability that is no harm.
    """
    (n_c, e_c), (n_s, e_s) = candidate, stable
    edge = rate_s + margin
    if not (n_c and n_s and edge < 1.0):
        return [0.0] * len(odds_ratios)
    if margin:
        rates_c = (ratio * edge / (1.0 - edge + ratio * edge) for ratio in odds_ratios)
        return margin_log_ratios(candidate, stable, rate_s, margin, rates_c)
    found = []
    for ratio in odds_ratios:
        odds = ratio * rate_s
        rate_c = odds / (1.0 - rate_s + odds)
        rate_0 = (n_c * rate_c + n_s * rate_s) / (n_c + n_s)
        rest = 1.0 - rate_0
        found.append(
            (e_c * log(rate_c / rate_0) + (n_c - e_c) * log1p((rate_0 - rate_c) / rest))
            + (e_s * log(rate_s / rate_0) + (n_s - e_s) * log1p((rate_0 - rate_s) / rest))
        )
    return found


def margin_log_ratios(
    candidate: tuple[int, int],
    stable: tuple[int, int],
    rate_s: float,
    margin: float,
    rates_c: Iterable[float],
) -> list[float]:
    """Return log S_j against the null whose edge is θc = θs + margin, for each alternative.

    Parameters
    ----------
    candidate, stable
        Requests and errors of the block, neither without requests.
    rate_s
        θs, strictly between 0 and 1, known before the block, with θs + margin < 1.
    rates_c
        The alternatives' θc: below the edge against "worse by the margin or more" (``promotion``),
        above it against "worse by the margin at most" (``error_rate`` with a margin).
    """
    (n_c, e_c), (n_s, e_s) = candidate, stable
    found = []
    for rate_c in rates_c:
        null_s = projected(rate_c, rate_s, n_c, n_s, margin)
        null_c = null_s + margin
        in_c = e_c * log(rate_c / null_c) + (n_c - e_c) * log1p((null_c - rate_c) / (1.0 - null_c))
        in_s = e_s * log(rate_s / null_s) + (n_s - e_s) * log1p((null_s - rate_s) / (1.0 - null_s))
        found.append(in_c + in_s)
    return found


def projected(
    rate_c: float, rate_s: float, weight_c: float, weight_s: float, margin: float
) -> float:
    """Return θs° on the edge θc° = θs° + margin, the closest to (θc, θs) in divergence.

    It is the one root between θs and θc - margin of the derivative of the divergence; times both
    variances that is a cubic. Newton's steps find it, inside a bracket that halves where a step
    would leave it.
    """
    above = rate_c > rate_s + margin
    low, high = (rate_s, rate_c - margin) if above else (0.0, rate_s)
    pull_c = weight_c / ((rate_s + margin) * (1.0 - rate_s - margin))
    pull_s = weight_s / (rate_s * (1.0 - rate_s))
    root = rate_s - pull_c * (rate_s + margin - rate_c) / (pull_c + pull_s)
    if not low < root < high:
        root = 0.5 * (low + high)
    for _ in range(_STEPS):
        excess_c, excess_s = root + margin - rate_c, root - rate_s
        spread_c = (root + margin) * (1.0 - root - margin)
        spread_s = root * (1.0 - root)
        value = weight_c * excess_c * spread_s + weight_s * excess_s * spread_c
        if value < 0.0:
            low = root
        else:
            high = root
        slope = weight_c * (spread_s + excess_c * (1.0 - 2.0 * root))
        slope += weight_s * (spread_c + excess_s * (1.0 - 2.0 * (root + margin)))
        step = root - value / slope if slope > 0.0 else -1.0
        if not low <= step <= high:
            step = 0.5 * (low + high)
        if abs(step - root) <= _CLOSE * root:
            return step
        root = step
    return root


def likelihood_edge(errors: int, answered: int, level: float, upper: bool) -> float:
    """Return where errors log p + answered log(1-p) falls to a level below its maximum.

    Newton's steps in log p: there the function is concave, so every step but the first comes from
    outside and stays there, and the edge that is returned is rounded outwards.

    Parameters
    ----------
    errors, answered
        Counts, not both 0.
    level
        Below the maximum over p.
    upper
        The edge above errors / (errors + answered), or the one below.
    """
    if not errors:
        return min(1.0, -math.expm1(level / answered) * (1.0 + _ROUNDED)) if upper else 0.0
    if not answered:
        return 1.0 if upper else math.exp(level / errors) * (1.0 - _ROUNDED)
    requests = errors + answered
    few = errors < answered
    centre = math.log(errors / requests) if few else math.log1p(-answered / requests)
    highest = errors * centre + answered * math.log(-math.expm1(centre))
    width = math.sqrt(2.0 * max(highest - level, 0.0) * answered / (float(errors) * requests))
    place = centre + width if upper else centre - width
    for _ in range(_STEPS):
        if place >= 0.0:
            place = 0.5 * centre
        rest = math.expm1(place)
        value = errors * place + answered * math.log(-rest) - level
        slope = errors + answered * (1.0 + rest) / rest
        step = place - value / slope if slope else place
        if abs(step - place) <= _CLOSE * abs(place):
            place = step
            break
        if step >= 0.0:
            step = 0.5 * place
        place = step
    away = _ROUNDED * (1.0 - place)
    return min(1.0, math.exp(place + (away if upper else -away)))
