"""Paired block bootstrap: the confidence interval of a metric or of an improvement.

The errors of rows that are close in time are correlated, so single rows are not resampled: the test
split is cut into blocks of time that contain every link, and whole blocks are drawn with
replacement. A ``Statistic`` computes a metric for many draws at once: it stores sums (or, for the
area under the precision-recall curve, cumulative counts) per block, and a draw is a vector of the
number of times that each block occurs. Two thousand draws are then one matrix product.

Sources: Künsch, Annals of Statistics 17 (1989), 1217-1241 (block bootstrap); Schmeiser, Operations
Research 30 (1982), 556-568 (few, long batches: 10 to 30); Hesterberg, The American Statistician 69
(2015), 371-386, section 4.4 (percentiles expanded for a small number of units).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.examples import ModelData

MAX_BLOCKS: Final = 30
"""Maximum number of blocks of equal duration that the test split is cut into."""

MIN_BLOCKS: Final = 10
"""Minimum number of blocks that the test split is cut into, however short they are."""

MIN_BLOCKS_FOR_INTERVAL: Final = 5
"""With fewer blocks no confidence interval is computed."""

RESAMPLES: Final = 2000

MARGIN: Final = 0.001
"""Margin of equivalence with a strong reference, on a metric of 0 to 1: a tenth of a percentage
point. Close to 1 the difference of two metrics hardly varies between draws, so that one which
nobody would act on is significant."""

Statistic = Callable[[Floats], Floats]
"""Weights of the blocks, float64 (draws, blocks) -> metric of each draw, float64 (draws,)."""


@dataclass(frozen=True)
class Blocks:
    """The block of time of each example of the test split.

    ``index`` is int64 (n,): the block of each example, 0 to ``count`` - 1; no block is empty.
    """

    index: Ints
    count: int

    @property
    def enough(self) -> bool:
        """True if there are enough blocks for a confidence interval."""
        return self.count >= MIN_BLOCKS_FOR_INTERVAL

    def sums(self, values: Array) -> Floats:
        """Return the sum of ``values``, shape (n,), in each block, shape (blocks,)."""
        summed = np.bincount(self.index, weights=values, minlength=self.count)
        return summed.astype(np.float64)

    def draws(self, resamples: int = RESAMPLES, seed: int = 42) -> Floats:
        """Return the count of each block in each draw, float64 (resamples, blocks)."""
        generator = np.random.default_rng(seed)
        share = np.full(self.count, 1.0 / self.count)
        return generator.multinomial(self.count, share, size=resamples).astype(np.float64)


def time_blocks(timestamp: Array, count: int = MAX_BLOCKS) -> Blocks:
    """Cut the span of ``timestamp``, epoch seconds (n,), into equal blocks, without empty blocks.

    There are at most ``count``, and never more than distinct times.
    """
    if not len(timestamp):
        return Blocks(np.zeros(0, np.int64), 0)
    elapsed = np.asarray(timestamp, np.float64) - float(np.min(timestamp))
    count = min(count, len(np.unique(timestamp)))
    # The last timestamp is in the last block, not in a block of its own.
    raw = np.minimum((elapsed / (float(elapsed.max()) or 1.0) * count).astype(np.int64), count - 1)
    present, index = np.unique(raw, return_inverse=True)
    return Blocks(index.astype(np.int64), len(present))


def blocks_for(data: ModelData) -> Blocks:
    """Cut the test split into blocks that are almost independent of each other.

    A block lasts at least three windows of each series or two median incidents, whichever is
    longer, unless there would be fewer than ``MIN_BLOCKS`` blocks.
    """
    test = data.test
    steps = test.inputs.shape[1] if data.spec.window > 1 else 1
    event = test.event[test.event >= 0]
    moments = test.timestamp[test.event >= 0]
    durations = [float(np.ptp(moments[event == each])) for each in np.unique(event)]
    step = float(data.step(test.series).max(initial=data.cadence_seconds))
    duration = max(3.0 * steps * step, 2.0 * float(np.median(durations or [0.0])))
    span = float(np.ptp(test.timestamp)) if len(test) else 0.0
    return time_blocks(test.timestamp, int(np.clip(span // duration, MIN_BLOCKS, MAX_BLOCKS)))


def ratio(numerator: Array, denominator: Array, blocks: Blocks) -> Statistic:
    """Return the statistic sum(numerator) / sum(denominator); both of shape (n,)."""
    top, bottom = blocks.sums(numerator), blocks.sums(denominator)

    def statistic(weights: Floats) -> Floats:
        return _divide(weights @ top, weights @ bottom)

    return statistic


def mean(values: Array, blocks: Blocks, rows: Mask | None = None) -> Statistic:
    """Return the statistic mean(values), over ``rows`` only if they are given."""
    chosen = np.ones(len(values)) if rows is None else rows.astype(np.float64)
    return ratio(np.where(chosen > 0, values, 0.0), chosen, blocks)


def correlation(truth: Array, prediction: Array, blocks: Blocks) -> Statistic:
    """Return Pearson's correlation of truth and prediction, both of shape (n,), as a statistic."""
    sums = _moments(truth, prediction, blocks)

    def statistic(weights: Floats) -> Floats:
        return _pearson(np.tensordot(weights, sums, axes=([1], [1])))

    return statistic


def median_correlation(truth: Array, prediction: Array, series: Array, blocks: Blocks) -> Statistic:
    """Return the median over the series of the correlation within each, as a statistic.

    A series whose ground truth or prediction is constant has no correlation and is excluded.
    """
    names, member = np.unique(series, return_inverse=True)
    # One row of moments a series: (moments, blocks, series).
    sums = np.zeros((6, blocks.count, len(names)))
    for position in range(len(names)):
        rows = np.flatnonzero(member == position)
        within = Blocks(blocks.index[rows], blocks.count)
        sums[:, :, position] = _moments(truth[rows], prediction[rows], within)

    def statistic(weights: Floats) -> Floats:
        values = _pearson(np.tensordot(weights, sums, axes=([1], [1])))
        return _nanmedian(values)

    return statistic


def pr_auc(truth: Array, score: Array, blocks: Blocks) -> Statistic:
    """Return the area under the precision-recall curve (average precision) as a statistic.

    AP = sum over the distinct scores of (recall step) x (precision), as in scikit-learn. Recall
    only steps at scores of positives, so cumulative counts at those scores are enough. Truth and
    score have shape (n,); a higher score is more anomalous, and equal scores are one step.
    """
    positive = np.asarray(truth, bool)
    falling = -np.asarray(score, np.float64)
    steps = np.unique(falling[positive])
    # The first step at which an example is flagged; those below the lowest positive never are.
    step = np.searchsorted(steps, falling, side="left")
    counted = step < len(steps)

    def counts(rows: Mask) -> Floats:
        cell = step[rows] * blocks.count + blocks.index[rows]
        flat = np.bincount(cell, minlength=len(steps) * blocks.count)
        return flat.reshape(len(steps), blocks.count).astype(np.float64)

    positives = counts(positive)
    hits, flagged = np.cumsum(positives, axis=0), np.cumsum(counts(counted), axis=0)

    # Products of this size are computed by one thread; more would slow down parallel trainings.
    portion = int(np.clip(262_144 // max(positives.size, 1), 16, 250))

    def statistic(weights: Floats) -> Floats:
        areas = np.empty(len(weights))
        for start in range(0, len(weights), portion):
            part = weights[start : start + portion]
            gained = part @ positives.T
            precision = _divide(part @ hits.T, part @ flagged.T)
            area = np.nansum(gained * precision, axis=1)
            areas[start : start + portion] = _divide(area, gained.sum(axis=1))
        return areas

    return statistic


def point(statistic: Statistic, blocks: Blocks) -> float:
    """Return the metric on the test split itself, with each block once."""
    return float(statistic(np.ones((1, blocks.count)))[0])


def standard_error(statistic: Statistic, blocks: Blocks, resamples: int = RESAMPLES) -> float:
    """Return the bootstrap standard error of a metric; 0 if it never varies.

    The factor sqrt(B / (B - 1)) corrects the bias of the plug-in variance of B blocks.
    """
    if not blocks.enough:
        return float("nan")
    values = statistic(blocks.draws(resamples))
    values = values[np.isfinite(values)]
    if len(values) < resamples // 2:
        return float("nan")
    return float(values.std() * np.sqrt(blocks.count / (blocks.count - 1)))


@dataclass(frozen=True)
class Interval:
    """A value on the test split, and its two-sided 95 % interval over ``resamples`` draws."""

    value: float
    lower: float
    upper: float
    resamples: int


def sampled(statistic: Statistic, blocks: Blocks, resamples: int = RESAMPLES) -> Floats:
    """Return a metric on the test split and on each draw, float64 (1 + resamples,).

    The draws are the same for every statistic, so the difference of two such arrays is paired.
    """
    return statistic(np.vstack([np.ones((1, blocks.count)), blocks.draws(resamples)]))


def interval(values: Floats, blocks: Blocks) -> Interval | None:
    """Return the interval of a metric, or of the difference of two, from their ``sampled`` values.

    None if there are too few blocks, or if most draws have no value (no positives).
    """
    observed, drawn = float(values[0]), values[1:]
    finite = drawn[np.isfinite(drawn)]
    if not blocks.enough or not np.isfinite(observed) or len(finite) < len(drawn) // 2:
        return None
    tail = expanded_tail(blocks.count)
    lower, upper = np.quantile(finite, [tail, 1.0 - tail])
    return Interval(observed, float(lower), float(upper), len(finite))


def expanded_tail(count: int, confidence: float = 0.95) -> float:
    """Return the percentile whose two-sided interval has ``confidence`` with ``count`` blocks.

    The percentile interval of few blocks is too narrow, so it is expanded:
    alpha' = Phi(-sqrt(B / (B - 1)) t(alpha / 2, B - 1)),
    with Student's t from its expansion in 1 / degrees of freedom (Abramowitz and Stegun 26.7.5).

    >>> round(expanded_tail(30), 4)
    0.0188
    """
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    freedom = count - 1
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return NormalDist().cdf(-t * float(np.sqrt(count / freedom)))


def _moments(truth: Array, prediction: Array, blocks: Blocks) -> Floats:
    """Return n, sums of x, y, xx, yy, xy in each block, (6, blocks), of centred values."""
    x = np.asarray(truth, np.float64) - np.mean(truth)
    y = np.asarray(prediction, np.float64) - np.mean(prediction)
    return np.stack([blocks.sums(v) for v in (np.ones_like(x), x, y, x * x, y * y, x * y)])


def _pearson(sums: Floats) -> Floats:
    """Return the correlation from (draws, 6, ...) moments; NaN if one side is constant."""
    n, x, y, xx, yy, xy = (sums[:, i] for i in range(6))
    left, right = n * xx - x * x, n * yy - y * y
    tiny = 1e-12
    varies = (left > tiny * n * xx) & (right > tiny * n * yy)
    return _divide(n * xy - x * y, np.where(varies, np.sqrt(np.maximum(left * right, 0.0)), 0.0))


def _nanmedian(values: Floats) -> Floats:
    """Return the median over the last axis, without NaN; NaN if no value is left."""
    ordered = np.sort(values, axis=1)
    count = np.sum(np.isfinite(values), axis=1)
    rows = np.arange(len(values))
    low = ordered[rows, np.maximum((count - 1) // 2, 0)]
    high = ordered[rows, np.minimum(count // 2, values.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2.0, np.nan)


def _divide(top: Floats, bottom: Floats) -> Floats:
    """Return top / bottom, NaN where the bottom is 0."""
    out = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out
