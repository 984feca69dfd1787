"""Does the mean of observations in [0, 1] lie above or below a bound? Tests by betting.

Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (J. R. Stat. Soc. B
86(1), 2024; arXiv 2010.09686). Two things are kept, both from running sums only:

*The tests.* A gambler who doubts "mean <= m" bets a share λ of the capital on each observation, one
who doubts "mean >= m" bets against it (their capital process)::

    K_up(λ) = product of 1 + λ (x - m),   λ in [0, 1/m)
    K_down(λ) = product of 1 - λ (x - m), λ in [0, 1/(1-m))
    K = mean of K(λ) over a grid of constant λ     (their "grid Kelly" bets, on a geometric grid)

Under the doubted hypothesis K is a supermartingale that starts at 1, so it ever reaches 1/alpha
with probability <= alpha. The mean may differ between observations, as long as each, given the
past, is on the same side of m. Constant bets make K independent of order and of blocks.

*The interval*, which is shown and decides nothing where the tests do: their predictable plug-in
empirical Bernstein confidence sequence (Theorem 2)::

    Σ λ_i x_i / Σ λ_i  ±  [log(2/alpha) + Σ v_i ψ(λ_i)] / Σ λ_i
    v_i = 4 (x_i - μ_(i-1))²,  ψ(λ) = (-log(1-λ) - λ) / 4
    λ_i = min(1/2, sqrt(2 log(2/0.05) / (σ²_(i-1) i log(1+i))))
    μ_i = (1/2 + Σ x) / (i+1),  σ²_i = (1/4 + Σ (x_k - μ_k)²) / (i+1)

λ_i is tuned for alpha = 0.05 and valid for every alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.evidence.error_rate import log_mean
from dwcp_ml.rollout.verdict import check_alpha

BETS: Final = (0.9, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015, 0.008)
"""λ as shares of the largest bet that can't lose everything."""

DESIGN_ALPHA: Final = 0.05
LARGEST_LAMBDA: Final = 0.5

# A block of a million observations takes a few megabytes and not a few hundred.
_AT_ONCE: Final = 65_536

Floats = NDArray[np.float64]


class MeanInterval(Record):
    """Running sums of the empirical Bernstein confidence sequence of a mean in [0, 1]."""

    count: int = Field(default=0, ge=0)
    total: FiniteFloat = Field(default=0.0, ge=0, description="Σ x")
    deviations: FiniteFloat = Field(default=0.0, ge=0, description="Σ (x_k - μ_k)²")
    bets: FiniteFloat = Field(default=0.0, ge=0, description="Σ λ")
    bet_total: FiniteFloat = Field(default=0.0, ge=0, description="Σ λ x")
    penalty: FiniteFloat = Field(default=0.0, ge=0, description="Σ v ψ(λ)")

    @property
    def mean(self) -> float | None:
        """The mean so far; None without observations."""
        return self.total / self.count if self.count else None

    def update(self, observations: Floats) -> Self:
        """Return the sums with more observations, shape (n,), in [0, 1], in their order."""
        if not len(observations):
            return self
        place = self.count + np.arange(1, len(observations) + 1, dtype=np.float64)
        centre = (0.5 + self.total + np.cumsum(observations)) / (place + 1)
        deviations = self.deviations + np.cumsum((observations - centre) ** 2)
        variance = (0.25 + deviations) / (place + 1)
        # What is bet on an observation is known before it.
        first = (0.5 + self.total) / (self.count + 1)
        centre_before = np.concatenate(([first], centre[:-1]))
        first = (0.25 + self.deviations) / (self.count + 1)
        variance_before = np.concatenate(([first], variance[:-1]))
        share = np.sqrt(
            2 * math.log(2 / DESIGN_ALPHA) / (variance_before * place * np.log1p(place))
        )
        share = np.minimum(share, LARGEST_LAMBDA)
        surprise = 4 * (observations - centre_before) ** 2
        penalty = surprise * (-np.log1p(-share) - share) / 4
        return self.replace(
            count=self.count + len(observations),
            total=self.total + float(observations.sum()),
            deviations=float(deviations[-1]),
            bets=self.bets + float(share.sum()),
            bet_total=self.bet_total + float((share * observations).sum()),
            penalty=self.penalty + float(penalty.sum()),
        )

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return an interval of the mean that holds at every look with probability 1 - alpha."""
        level = math.log(2.0 / check_alpha(alpha))
        if not self.count:
            return 0.0, 1.0
        centre = self.bet_total / self.bets
        radius = (level + self.penalty) / self.bets
        return max(centre - radius, 0.0), min(centre + radius, 1.0)


class BettingEvidence(Record):
    """The evidence so far that a mean lies above, and below, a bound.

    The bound is part of it: another bound begins another evidence.
    """

    bound: float = Field(gt=0, lt=1)
    log_above: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(BETS),
        min_length=len(BETS),
        max_length=len(BETS),
        description="log capital against 'mean <= bound', for each bet",
    )
    log_below: tuple[FiniteFloat, ...] = Field(
        default=(0.0,) * len(BETS),
        min_length=len(BETS),
        max_length=len(BETS),
        description="log capital against 'mean >= bound', for each bet",
    )
    sums: MeanInterval = MeanInterval()

    def update(self, observations: Sequence[float]) -> Self:
        """Return the evidence with more observations, in [0, 1]; none change nothing.

        Raises
        ------
        DwcpError
            If an observation is outside [0, 1] or not a number.
        """
        values = bounded(observations)
        if not len(values):
            return self
        above, below = np.zeros(len(BETS)), np.zeros(len(BETS))
        for start in range(0, len(values), _AT_ONCE):
            more, less = log_capital(values[start : start + _AT_ONCE], self.bound)
            above, below = above + more, below + less
        return self.replace(
            log_above=tuple((np.array(self.log_above) + above).tolist()),
            log_below=tuple((np.array(self.log_below) + below).tolist()),
            sums=self.sums.update(values),
        )

    @property
    def log_capital_above(self) -> float:
        """Log capital of the gambler who doubts that the mean is at most the bound."""
        return log_mean(self.log_above)

    @property
    def log_capital_below(self) -> float:
        """Log capital of the gambler who doubts that the mean is at least the bound."""
        return log_mean(self.log_below)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return an interval of the mean that holds at every look with probability 1 - alpha."""
        return self.sums.interval(alpha)


def log_capital(values: Floats, bound: float) -> tuple[Floats, Floats]:
    """Return log K_up and log K_down of observations for each bet.

    Parameters
    ----------
    values
        Shape (..., n), in [0, 1].
    bound
        m, in (0, 1).

    Returns
    -------
    tuple of ndarray
        Shape (..., len(BETS)) each.
    """
    shares = np.array(BETS)
    excess = values[..., None] - bound
    above: Floats = np.log1p(shares * (excess / bound)).sum(axis=-2)
    below: Floats = np.log1p(shares * (-excess / (1.0 - bound))).sum(axis=-2)
    return above, below


def bounded(observations: Sequence[float]) -> Floats:
    """Return observations as an array of shape (n,).

    Raises
    ------
    DwcpError
        If one is outside [0, 1] or not a number.
    """
    values = np.asarray(observations, dtype=np.float64).reshape(-1)
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise DwcpError("an observation must be a number from 0 to 1.")
    return values
