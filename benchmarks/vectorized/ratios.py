"""Log likelihood ratios of one block, for every rate and every alternative of its two tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.vectorized.newton import projected
from benchmarks.vectorized.rows import Floats
from dwcp_ml.rollout.analysis import REJECTIONS, Evidence, RateEvidence, update_evidence
from dwcp_ml.rollout.counters import ArmBlock
from dwcp_ml.rollout.evidence.error_rate import _ODDS_RATIOS
from dwcp_ml.rollout.evidence.promotion import MARGIN_SHARES, LatencyPart
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import Analysis


@dataclass(frozen=True)
class Alternatives:
    """What the e-processes of the four rates look for, as the scalar evidence starts.

    Parameters
    ----------
    harm_margins, margins
        Of harm and of promotion, by rate.
    log_needed
        log(1 / alpha) of harm, by rate.
    promotion_alpha
        Of all rates.
    """

    harm_margins: tuple[float, ...]
    margins: tuple[float, ...]
    log_needed: tuple[float, ...]
    promotion_alpha: float

    @classmethod
    def of(cls, settings: Analysis) -> Alternatives:
        """Return those of an analysis with ``error_rate`` and ``latency``."""
        nothing, before = ArmBlock(), Observation(live_percent=0)
        start = update_evidence(settings, Evidence(), nothing, nothing, before)
        parts: list[RateEvidence | LatencyPart] = []
        if start.error_rate is not None and start.rejection_rate is not None:
            parts += [start.error_rate, start.rejection_rate]
        if start.latency is not None:
            parts += [start.latency.slow, start.latency.tail]
        tests = "error_rate", REJECTIONS, "latency", "latency_tail"
        return cls(
            tuple(part.harm.margin for part in parts),
            tuple(part.promotion.margin for part in parts),
            tuple(math.log(1.0 / settings.alpha_of(test)) for test in tests),
            settings.promotion_alpha,
        )


class Ratios:
    """The alternatives of all tests that have a margin, as columns of one array.

    Parameters
    ----------
    alternatives
        Of the four rates.
    """

    def __init__(self, alternatives: Alternatives) -> None:
        harm, promotion = alternatives.harm_margins, alternatives.margins
        self._strict = [rate for rate, margin in enumerate(harm) if not margin]
        self._lenient = [rate for rate, margin in enumerate(harm) if margin]
        of_harm = [rate for rate in self._lenient for _ in _ODDS_RATIOS]
        of_promotion = [rate for rate in range(len(promotion)) for _ in MARGIN_SHARES]
        self._rates = of_harm + of_promotion
        margins = [harm[rate] for rate in of_harm] + [promotion[rate] for rate in of_promotion]
        self._margins, self._harm = np.asarray(margins), len(of_harm)
        self._odds = np.tile(_ODDS_RATIOS, len(self._lenient))
        self._shares = np.tile(MARGIN_SHARES, len(promotion))

    def of(self, counts: list[Floats], rates: Floats) -> tuple[Floats, Floats]:
        """Return log S_j, 0 where θs plus the margin is not below 1.

        Parameters
        ----------
        counts
            Requests and bad ones of the candidate, then of the stable, neither arm without
            requests; each of shape (n_rows, n_rates).
        rates
            θs, shape (n_rows, n_rates).

        Returns
        -------
        tuple of numpy.ndarray
            Of harm, shape (n_rows, n_rates, n_deltas), and of promotion, shape (n_rows, n_rates,
            n_shares).
        """
        rows, strict = len(rates), self._strict
        found = self._with_margin([each[:, self._rates] for each in counts], rates[:, self._rates])
        harm = np.empty((*rates.shape, len(_ODDS_RATIOS)))
        harm[:, self._lenient] = found[:, : self._harm].reshape(rows, -1, len(_ODDS_RATIOS))
        harm[:, strict] = _without_margin([each[:, strict] for each in counts], rates[:, strict])
        return harm, found[:, self._harm :].reshape(rows, -1, len(MARGIN_SHARES))

    def _with_margin(self, counts: list[Floats], rates: Floats) -> Floats:
        """Return ``error_rate.margin_log_ratios`` of all columns, (n_rows, n_columns)."""
        n_c, e_c, n_s, e_s = counts
        margins, split = np.broadcast_to(self._margins, rates.shape), self._harm
        is_below_one = rates + margins < 1.0
        rates = np.where(is_below_one, rates, 0.5 * (1.0 - margins))
        edges = (rates + margins)[:, :split]
        worse = self._odds * edges / (1.0 - edges + self._odds * edges)
        good = rates[:, split:] + self._shares * margins[:, split:]
        rates_c = np.concatenate([worse, good], axis=1)
        null_s = projected(rates_c, rates, n_c, n_s, margins)
        null_c = null_s + margins
        ratios = e_c * np.log(rates_c / null_c)
        ratios += (n_c - e_c) * np.log1p((null_c - rates_c) / (1.0 - null_c))
        ratios += e_s * np.log(rates / null_s)
        ratios += (n_s - e_s) * np.log1p((null_s - rates) / (1.0 - null_s))
        return np.where(is_below_one, ratios, 0.0)


def _without_margin(counts: list[Floats], rates: Floats) -> Floats:
    """Return ``error_rate.log_ratios`` without a margin, shape (n_rows, n_rates, n_deltas)."""
    n_c, e_c, n_s, e_s = (each[..., None] for each in counts)
    rate_s, odds = rates[..., None], np.asarray(_ODDS_RATIOS) * rates[..., None]
    rate_c = odds / (1.0 - rate_s + odds)
    null = (n_c * rate_c + n_s * rate_s) / (n_c + n_s)
    ratios: Floats = e_c * np.log(rate_c / null)
    ratios += (n_c - e_c) * np.log1p((null - rate_c) / (1.0 - null))
    ratios += e_s * np.log(rate_s / null)
    ratios += (n_s - e_s) * np.log1p((null - rate_s) / (1.0 - null))
    return ratios
