"""What came true, as callers report it: the loss of each prediction, counted by model version.

A caller learns the outcome a minute after the prediction, and its report reaches any replica, so
each replica counts for every version, and whoever compares versions adds the replicas up. The
servers keep no prediction: a report carries the version and the prediction with the outcome.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from dwcp_ml.contract.bundle import VERSION_PATTERN, TensorRecord
from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.prediction_log.loss import losses
from dwcp_ml.serving.rejections import BadInput, ModelNotFound, TooLarge, shorten
from dwcp_ml.serving.request import Body
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.sketches import FINE_BUCKETS, Sketch, compared_output, edges_between
from dwcp_ml.serving.v1 import parsed

MAX_OUTCOMES: Final = 1000
"""Of one report."""

MAX_BYTES: Final = 256 << 10
"""Of one report."""

MAX_VERSIONS: Final = 8
"""Of a model for which losses are counted; the one that was reported longest ago goes."""

MAX_IDS: Final = 100_000
"""Ids of outcomes that are remembered, of all models: a report that is sent again counts once."""

MAX_LOSS: Final = 100.0
"""A larger one counts as this: a single report can't hide what all others say in their sum."""

_MAX_NAME: Final = 128

_KEYS: Final = {"id", "version", "prediction", "outcome"}


class Counted(NamedTuple):
    """What became of the outcomes of one report.

    Parameters
    ----------
    counted, duplicates
        Outcomes that are counted now, and those that were before.
    undefined
        Outcomes without a loss: throughputs below 1 Mbit/s.
    """

    counted: int
    duplicates: int
    undefined: int


class _Losses:
    """The losses of one version."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.sketch = Sketch(edges)
        self.squares = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        self.sketch.add(values.astype(np.float32))
        self.squares += float(values @ values)


class _ModelOutcomes:
    """The losses of one model, by version."""

    def __init__(self, version: str, output: TensorRecord) -> None:
        self.output = output
        relative = output.dtype == "float32"
        self._edges = edges_between(0.0, 1.0, False, FINE_BUCKETS) if relative else (0.0,)
        self.versions: dict[str, _Losses] = {version: _Losses(self._edges)}
        self._own = version

    def of(self, version: str) -> _Losses:
        """Return the losses of a version, as the newest."""
        found = self.versions.pop(version, None)
        if found is None:
            found = _Losses(self._edges)
            if len(self.versions) >= MAX_VERSIONS:
                oldest = next(name for name in self.versions if name != self._own)
                del self.versions[oldest]
        self.versions[version] = found
        return found


class Outcomes(Collector):
    """The reported outcomes of all models, as a Prometheus collector."""

    def __init__(self, models: Iterable[ServedModel], registry: CollectorRegistry) -> None:
        self._models: dict[str, _ModelOutcomes] = {}
        for model in models:
            output = compared_output(model)
            if output is not None:
                self._models[model.name] = _ModelOutcomes(model.version, output)
        # Not a dict: to find its first key it passes over all that were deleted before.
        self._ids: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        registry.register(self)

    def add(self, model: ServedModel, body: Body) -> Counted:
        """Count the outcomes of one report in JSON; of a wrong one nothing.

        Parameters
        ----------
        body
            ``{"outcomes": [{"id": ..., "version": ..., "prediction": ..., "outcome": ...}, ...]}``;
            the ids are optional.

        Raises
        ------
        BadInput
            If it is not that, or a value is none that the model can predict; the message names it.
        TooLarge
            If it holds more than ``MAX_OUTCOMES``.
        """
        return self.count(model, _items(body))

    def count(self, model: ServedModel, items: Sequence[Any]) -> Counted:
        """Count the outcomes of one report; of a wrong one nothing.

        Parameters
        ----------
        items
            As ``outcomes`` in ``add``.

        Raises
        ------
        BadInput, TooLarge
            As ``add``.
        """
        of_model = self._models.get(model.name)
        if of_model is None:
            raise BadInput(
                f"{model.name} {model.version} has no prediction that can be compared.",
                code=ErrorCode.UNSUPPORTED,
            )
        _check_length(items)
        known = [_checked(item, place, of_model.output) for place, item in enumerate(items)]
        new: dict[str, list[tuple[float, float]]] = {}
        duplicates = 0
        for identity, version, prediction, outcome in known:
            if identity and not self._is_new((model.name, version, identity)):
                duplicates += 1
                continue
            new.setdefault(version, []).append((prediction, outcome))
        counted = undefined = 0
        for version, pairs in new.items():
            values = np.array(pairs, np.float64)
            loss = losses(model.name, values[:, 0], values[:, 1])
            defined = np.minimum(loss[~np.isnan(loss)], MAX_LOSS)
            of_model.of(version).add(defined)
            counted += len(defined)
            undefined += len(loss) - len(defined)
        return Counted(counted, duplicates, undefined)

    def _is_new(self, key: tuple[str, str, str]) -> bool:
        if key in self._ids:
            return False
        self._ids[key] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        return True

    def collect(self) -> Iterator[Metric]:
        """Yield ``dwcp_reported_loss`` and its sum of squares."""
        loss = HistogramMetricFamily(
            "dwcp_reported_loss",
            "Losses of predictions whose outcome callers have reported to this replica: the "
            "absolute relative error of a throughput, 100 at most; else 0 for right, 1 for wrong.",
            labels=["model", "version"],
        )
        squares = CounterMetricFamily(
            "dwcp_reported_loss_squares",
            "Sum of the squares of these losses.",
            labels=["model", "version"],
        )
        for name, of_model in self._models.items():
            for version, counts in of_model.versions.items():
                sketch = counts.sketch
                loss.add_metric([name, version], sketch.cumulative(), sketch.total)
                squares.add_metric([name, version], counts.squares)
        yield loss
        yield squares


def not_counted() -> ModelNotFound:
    """Return the rejection of a report to a server that counts none."""
    return ModelNotFound("This server counts no outcomes: it was started with --no-feedback.")


def too_long() -> TooLarge:
    """Return the rejection of a report with too many bytes."""
    return TooLarge(
        f"A report may have at most {MAX_BYTES} bytes: send it in parts.",
        code=ErrorCode.TOO_LARGE,
        subject="body",
    )


def _items(body: Body) -> list[Any]:
    """Return the outcomes of a report as they were sent.

    Raises
    ------
    BadInput, TooLarge
        If it is no report, or has too many bytes.
    """
    if len(body) > MAX_BYTES:
        raise too_long()
    report = parsed(body)
    items = report.get("outcomes")
    if report.keys() != {"outcomes"} or not isinstance(items, list):
        raise BadInput(
            "Send an object whose only key is 'outcomes', a list that is not empty.",
            code=ErrorCode.WRONG_TYPE,
            subject="outcomes",
        )
    return items


def _check_length(items: Sequence[Any]) -> None:
    """Raise ``BadInput`` for a report without outcomes, ``TooLarge`` for one with too many."""
    if not items:
        raise BadInput(
            "A report needs at least one outcome.", code=ErrorCode.TOO_FEW, subject="outcomes"
        )
    if len(items) > MAX_OUTCOMES:
        raise TooLarge(
            f"A report may hold at most {MAX_OUTCOMES} outcomes: send it in parts.",
            code=ErrorCode.TOO_LARGE,
            subject="outcomes",
        )


def _checked(item: Any, place: int, output: TensorRecord) -> tuple[str, str, float, float]:
    """Return id, version, prediction and outcome.

    Raises
    ------
    BadInput
        If one of them is missing or none that there can be.
    """
    if not isinstance(item, dict) or not item.keys() <= _KEYS:
        raise _wrong(place, "must be an object with id, version, prediction and outcome")
    identity, version = item.get("id", ""), item.get("version")
    if not isinstance(identity, str) or len(identity) > _MAX_NAME:
        raise _wrong(place, f"has an id that is not a text of at most {_MAX_NAME} characters")
    if not isinstance(version, str) or VERSION_PATTERN.fullmatch(version) is None:
        raise _wrong(place, f"has the version '{shorten(version)}', which no model has")
    values = [_number(item.get(name), place, name, output) for name in ("prediction", "outcome")]
    return identity, version, values[0], values[1]


def _number(value: Any, place: int, name: str, output: TensorRecord) -> float:
    if output.dtype == "bool" and value not in (True, False):
        raise _wrong(place, f"has the {name} '{shorten(value)}', which is not true or false")
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise _wrong(place, f"has the {name} '{shorten(value)}', which is not a number")
    number = float(value)
    low = -math.inf if output.minimum is None else output.minimum
    high = math.inf if output.maximum is None else output.maximum
    whole = output.dtype != "int64" or number.is_integer()
    if not (low <= number <= high and whole):
        raise _wrong(place, f"has the {name} {number:g}, which {output.name} can't be")
    return number


def _wrong(place: int, what: str) -> BadInput:
    return BadInput(
        f"Outcome {place} {what}.", code=ErrorCode.OUT_OF_RANGE, subject=f"outcomes[{place}]"
    )
