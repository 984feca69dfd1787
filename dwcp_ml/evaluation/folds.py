"""The folds of the cross-validation and the summary of their evaluations, without any training.

Folds contain training and validation examples only, never the test split.

    rolling_origin     train on the past, test on the next window of time; k windows
    leave_links_out    train on some links, test on the other links; k groups of links
    stratified         k parts with the same share of each class
    temporal           one fold: train on the first rows in time, test on the last ones
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.arrays import Floats
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed, UsageError, did_you_mean
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import ModelSpec

METHODS: Final[dict[str, tuple[str, ...]]] = {
    "bandwidth_predictor": ("rolling_origin", "leave_links_out"),
    "compression_selector": ("stratified", "rolling_origin"),
    "reliability_detector": ("rolling_origin",),
    "consensus_latency": ("rolling_origin",),
}
"""The methods of cross-validation of each model."""

TEMPORAL: Final = "temporal"
"""The method of the check of a model whose own split is not temporal."""


@dataclass(frozen=True)
class Fold:
    """One fold: its name, such as ``rolling_origin 2/5``, and the examples split for it."""

    name: str
    data: ModelData


def folds(data: ModelData, method: str, count: int, seed: int = 42) -> Iterator[Fold]:
    """Yield ``count`` folds of the training and validation examples of ``data``.

    There are at least 2, but ``temporal`` is one fold.

    ``seed`` is that of the assignment of links or rows to folds; rolling origin has no randomness.

    Raises
    ------
    UsageError
        If the method is none of the above, or ``count`` is under 2.
    TrainingFailed
        If a fold has nothing to train on or nothing to test on.
    """
    makers = {
        "rolling_origin": _rolling_origin,
        "leave_links_out": _leave_links_out,
        "stratified": _stratified,
        TEMPORAL: _temporal,
    }
    if method not in makers:
        allowed = did_you_mean(method, makers)
        raise UsageError(
            f"There is no cross-validation '{method}': {allowed}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=method,
        )
    if count < 2 and method != TEMPORAL:
        raise UsageError(
            f"Cross-validation needs at least 2 folds, not {count}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="folds",
        )
    for number, split in enumerate(makers[method](data, count, seed), start=1):
        name = f"{method} {number}/{count}"
        for part in ("train", "test"):
            if not len(getattr(split, part)):
                raise TrainingFailed(
                    f"Fold {name} of {data.spec.name} has no example to {part} on: "
                    "use fewer folds or more data.",
                    code=ErrorCode.TOO_FEW,
                    subject=name,
                )
        yield Fold(name, split)


def summary(
    spec: ModelSpec, evaluations: dict[str, Sequence[Evaluation]]
) -> dict[str, dict[str, Any]]:
    """Summarize the evaluations of the folds, for ``Evaluation.cross_validation``.

    ``evaluations`` maps each method to those of its folds. The result maps it to ``folds``,
    ``test_set_sizes``, ``failures`` (one sentence each), and for each target's metric its values,
    mean, standard deviation (n - 1), minimum and maximum; the same for the regret, if there is one.
    """
    return {method: _summarize(spec, tuple(each)) for method, each in evaluations.items()}


def _summarize(spec: ModelSpec, evaluations: tuple[Evaluation, ...]) -> dict[str, Any]:
    done = [each for each in evaluations if each.success]
    names = [target.metric for target in spec.form(evaluations[0].form).targets]
    names += ["regret"] if any("regret" in each.metrics for each in done) else []
    metrics = {}
    for name in names:
        values = [each.metrics.get(name) for each in done]
        known = np.array([value for value in values if value is not None], np.float64)
        metrics[name] = {
            "values": values,
            "mean": float(known.mean()) if len(known) else None,
            "standard_deviation": float(known.std(ddof=1)) if len(known) > 1 else None,
            "minimum": float(known.min()) if len(known) else None,
            "maximum": float(known.max()) if len(known) else None,
        }
    return {
        "folds": len(evaluations),
        "test_set_sizes": [each.test_set_size for each in evaluations],
        "failures": [each.reason or "No reason given." for each in evaluations if not each.success],
        "metrics": metrics,
    }


def _pool(data: ModelData) -> Examples:
    """Return the training and validation examples together, in the order of time."""
    left, right = data.train, data.validation
    gains = None
    if left.gains is not None and right.gains is not None:
        gains = np.concatenate([left.gains, right.gains])
    span = None
    if left.span is not None and right.span is not None:
        span = np.concatenate([left.span, right.span])
    joined = Examples(
        np.concatenate([left.inputs, right.inputs]),
        np.concatenate([left.truth, right.truth]),
        np.concatenate([left.timestamp, right.timestamp]),
        np.concatenate([left.series, right.series]),
        np.concatenate([left.event, right.event]),
        gains,
        span,
    )
    return joined.take(np.argsort(joined.timestamp, kind="stable"))


def _validation_share(data: ModelData) -> float:
    rows = data.rows
    return rows["validation"] / max(rows["train"] + rows["validation"], 1)


def _span(data: ModelData, pool: Examples) -> tuple[Floats, Floats]:
    """Return the first and last time of the values of each example, in epoch seconds.

    Where the examples don't hold it, it is the longest that it may be. The next throughput is one
    step after the window; the other labels are inside it.
    """
    if pool.span is not None:
        return pool.span[:, 0], pool.span[:, 1]
    steps = pool.inputs.shape[1] - 1 if data.spec.window > 1 else 0
    ahead = 1 if data.spec.name == "bandwidth_predictor" else 0
    step = data.max_step(pool.series)
    last = pool.timestamp.astype(np.float64)
    return last - steps * step, last + ahead * step


def _rolling_origin(data: ModelData, count: int, seed: int) -> Iterator[ModelData]:  # noqa: ARG001
    pool = _pool(data)
    first, last = _span(data, pool)
    if not len(pool):
        raise TrainingFailed(
            f"{data.spec.name} has no example for the cross-validation.", code=ErrorCode.NO_DATA
        )
    start, end = float(pool.timestamp.min()), float(pool.timestamp.max()) + 1
    share = _validation_share(data)

    def between(a: float, b: float) -> Examples:
        # A window across the border contains rows of both sides, so it is in neither.
        return pool.take(np.flatnonzero((first >= a) & (last < b)))

    cuts = np.linspace(start, end, count + 2)
    for cut, stop in itertools.pairwise(cuts[1:]):
        inner = cut - share * (cut - start)
        beyond = float(last.max()) + 1 if stop == end else stop
        yield replace(
            data,
            train=between(-np.inf, inner),
            validation=between(inner, cut),
            test=between(cut, beyond),
        )


def _leave_links_out(data: ModelData, count: int, seed: int) -> Iterator[ModelData]:
    pool = _pool(data)
    links = np.unique(pool.series)
    order = np.random.default_rng(seed).permutation(links)
    for number in range(count):
        excluded = order[number::count]
        yield replace(
            data,
            train=data.train.take(~np.isin(data.train.series, excluded)),
            validation=data.validation.take(~np.isin(data.validation.series, excluded)),
            test=pool.take(np.isin(pool.series, excluded)),
        )


def _stratified(data: ModelData, count: int, seed: int) -> Iterator[ModelData]:
    pool = _pool(data)
    generator = np.random.default_rng(seed)
    part = np.empty(len(pool), np.int64)
    place = np.empty(len(pool), np.float64)
    offset = 0
    for value in np.unique(pool.truth):
        rows = generator.permutation(np.flatnonzero(pool.truth == value))
        # Continuing after the last part of the previous class keeps the parts of equal size.
        part[rows] = (offset + np.arange(len(rows))) % count
        place[rows] = (np.arange(len(rows)) // count + 0.5) / max(len(rows) / count, 1.0)
        offset += len(rows)
    share = _validation_share(data)
    for number in range(count):
        rest = part != number
        validating = rest & (place < share)
        yield replace(
            data,
            train=pool.take(rest & ~validating),
            validation=pool.take(validating),
            test=pool.take(~rest),
        )


def _temporal(data: ModelData, count: int, seed: int) -> Iterator[ModelData]:  # noqa: ARG001
    """Yield one fold; validation and test have the shares that they have in the run."""
    pool, rows = _pool(data), data.rows
    shares = np.array([rows["validation"] + rows["test"], rows["test"]]) / sum(rows.values())
    if not len(pool):
        raise TrainingFailed(
            f"{data.spec.name} has no example for the temporal check.", code=ErrorCode.NO_DATA
        )
    # Cut at timestamps: the rows of one minute are never separated.
    part = np.searchsorted(
        np.quantile(pool.timestamp, 1.0 - shares, method="higher"), pool.timestamp, side="right"
    )
    train, validation, test = (pool.take(np.flatnonzero(part == number)) for number in range(3))
    yield replace(data, train=train, validation=validation, test=test)
