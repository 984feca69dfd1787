"""Histograms of inputs and predictions, from which drift is computed.

A request only copies its newest observation and its scalar predictions into a buffer; the buffer
is counted into the histograms when it is full and when Prometheus scrapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from dwcp_ml.contract.bundle import TensorRecord
from dwcp_ml.contract.columns import column_of_feature
from dwcp_ml.contract.models import COMPARED_OUTPUTS
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows

BUFFER_ROWS: Final = 1024

_PERCENT: Final = (0.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99, 100.0)


FINE_BUCKETS: Final = 24
"""Buckets a decade where two versions are compared: a factor of 1.1 each."""


def edges_between(
    low: float | None, high: float | None, whole: bool, buckets: int = 3
) -> tuple[float, ...]:
    """Return the upper bounds of a histogram's buckets for a quantity of this range.

    Whole numbers with a range of at most 32 get a bucket each; a percentage has its finest buckets
    near 100; a share starts at 1e-5; everything else has twelve decades.

    Parameters
    ----------
    buckets
        Buckets a decade.
    """
    if whole and low is not None and high is not None and high - low <= 32:
        return tuple(float(value) for value in range(int(low), int(high) + 1))
    if high == 100.0:
        return _PERCENT
    first, last = (-5, 0) if high == 1.0 else (-3, 9)
    steps = (step / buckets for step in range(buckets * first, buckets * last + 1))
    return (0.0, *(round(10.0**step, 3 + math.ceil(-step)) for step in steps))


class Sketch:
    """A histogram of one number.

    Parameters
    ----------
    edges
        Upper bounds of the buckets, ascending; one more bucket counts what is above.
    """

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = np.array(edges)
        self.counts = np.zeros(len(edges) + 1, np.int64)
        self.total = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of shape (n,)."""
        # As float32, 0.1 is slightly above 0.1, so the edges are compared as float32, too.
        places = np.searchsorted(self.edges.astype(np.float32), values, side="left")
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.total += float(values.sum(dtype=np.float64))

    def cumulative(self) -> list[tuple[str, float]]:
        """Return Prometheus's buckets: upper bound as text, count up to it."""
        bounds = [f"{edge:g}" for edge in self.edges] + ["+Inf"]
        sums = np.cumsum(self.counts).tolist()
        return [(bound, float(count)) for bound, count in zip(bounds, sums, strict=True)]


def compared_output(model: ServedModel) -> TensorRecord | None:
    """Return the scalar output by which versions of a model are compared; None without one."""
    names = COMPARED_OUTPUTS.get(model.name, ())  # a manifest may have any name
    return next((each for each in model.outputs if each.name in names and not each.shape), None)


class ModelSketches:
    """The sketches of one model: its features and its scalar outputs."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.features = {
            name: Sketch(_feature_edges(name)) for name in model.manifest.feature_order
        }
        self.outputs = {
            tensor.name: Sketch(_output_edges(tensor))
            for tensor in model.outputs
            if not tensor.shape
        }
        self.training = {
            one.feature: Sketch(one.edges)
            for one in model.manifest.training_distribution
            if one.feature in self.features
        }
        self.compared = compared_output(model)
        self.first = Sketch(
            () if self.compared is None else _output_edges(self.compared, FINE_BUCKETS)
        )
        self._firsts: list[NDArray[np.float32]] = []
        self._waiting = 0
        self._width = len(self.features)
        columns = self._width + len(self.outputs)
        self._buffer = np.empty((BUFFER_ROWS, columns), np.float32)
        self._filled = 0

    def add(self, rows: Rows, outputs: Outputs, firsts: list[int]) -> None:
        """Add the newest observation of each row, and its prediction.

        Parameters
        ----------
        firsts
            The first row of each request, ascending.
        """
        if self.compared is not None:
            values = outputs[self.compared.name]
            self._firsts.append(values if len(firsts) == len(values) else values[firsts])
            self._waiting += len(firsts)
            if self._waiting >= BUFFER_ROWS:
                self._flush_firsts()
        newest = rows.reshape(len(rows), -1)[:, -self._width :]
        start = 0
        while start < len(newest):
            count = min(BUFFER_ROWS - self._filled, len(newest) - start)
            part = self._buffer[self._filled : self._filled + count]
            part[:, : self._width] = newest[start : start + count]
            for column, name in enumerate(self.outputs, self._width):
                part[:, column] = outputs[name][start : start + count]
            self._filled += count
            start += count
            if self._filled == BUFFER_ROWS:
                self.flush()

    def flush(self) -> None:
        """Count the buffer into the histograms."""
        filled = self._buffer[: self._filled]
        for column, sketch in enumerate([*self.features.values(), *self.outputs.values()]):
            sketch.add(filled[:, column])
        for column, name in enumerate(self.features):
            if name in self.training:
                self.training[name].add(filled[:, column])
        self._filled = 0
        self._flush_firsts()

    def _flush_firsts(self) -> None:
        if self._waiting:
            self.first.add(np.concatenate(self._firsts).astype(np.float32))
        self._firsts.clear()
        self._waiting = 0


class Sketches(Collector):
    """The sketches of all models, as a Prometheus collector."""

    def __init__(self, models: Iterable[ServedModel], registry: CollectorRegistry) -> None:
        self._models = {model.name: ModelSketches(model) for model in models}
        registry.register(self)

    def add(self, model: ServedModel, rows: Rows, outputs: Outputs, firsts: list[int]) -> None:
        """Add the rows of a batch and their predictions; ``firsts`` as in ``ModelSketches``."""
        self._models[model.name].add(rows, outputs, firsts)

    def collect(self) -> Iterator[Metric]:
        """Yield the histograms, and the counts between quantiles of the training data."""
        features = HistogramMetricFamily(
            "dwcp_feature",
            "The newest observation of each instance, in the units of the data contract.",
            labels=["model", "version", "feature"],
        )
        predictions = HistogramMetricFamily(
            "dwcp_prediction",
            "The predictions, in the units of the bundle's manifest.",
            labels=["model", "version", "output"],
        )
        first = HistogramMetricFamily(
            "dwcp_request_prediction",
            "The prediction for the first instance of each request, in the units of the bundle's "
            "manifest: what a rollout compares between two versions.",
            labels=["model", "version", "output"],
        )
        for name, sketches in self._models.items():
            sketches.flush()
            version = sketches.model.version
            for family, histograms in (
                (features, sketches.features),
                (predictions, sketches.outputs),
            ):
                for label, sketch in histograms.items():
                    family.add_metric([name, version, label], sketch.cumulative(), sketch.total)
            if (compared := sketches.compared) is not None:
                labels = [name, version, compared.name]
                first.add_metric(labels, sketches.first.cumulative(), sketches.first.total)
        yield features
        yield predictions
        yield first
        yield from self._beside_training()

    def _beside_training(self) -> Iterator[Metric]:
        labels = ["model", "version", "feature", "bucket"]
        live = CounterMetricFamily(
            "dwcp_feature_values",
            "The newest observation of each instance, by the training data's deciles: bucket 0 "
            "is the lowest.",
            labels=labels,
        )
        training = GaugeMetricFamily(
            "dwcp_feature_training_share",
            "Share of the training examples in the buckets of dwcp_feature_values.",
            labels=labels,
        )
        for name, sketches in self._models.items():
            manifest = sketches.model.manifest
            for each in manifest.training_distribution:
                if each.feature not in sketches.training:
                    continue
                counts = sketches.training[each.feature].counts.tolist()
                for bucket, (count, share) in enumerate(zip(counts, each.shares, strict=True)):
                    series = [name, manifest.version, each.feature, str(bucket)]
                    live.add_metric(series, float(count))
                    training.add_metric(series, share)
        yield live
        yield training


def _feature_edges(feature: str) -> tuple[float, ...]:
    column = column_of_feature(feature)
    if column.codes:
        codes = [code for _, code in column.codes]
        return edges_between(min(codes), max(codes), whole=True)
    return edges_between(column.minimum, column.maximum, whole=False)


def _output_edges(tensor: TensorRecord, buckets: int = 3) -> tuple[float, ...]:
    if tensor.dtype == "bool":
        return (0.0, 1.0)
    whole = tensor.dtype == "int64"
    return edges_between(tensor.minimum, tensor.maximum, whole, buckets)
