"""The server's Prometheus metrics; the rollout decides on some of them.

Codes are those of HTTP on every protocol, so that one query covers all: gRPC's INVALID_ARGUMENT
counts as 400, NOT_FOUND as 404, RESOURCE_EXHAUSTED as 413, UNAVAILABLE as 503, INTERNAL as 500.
A request whose client left before it had the response counts as 499.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.serving.served_model import ServedModel

if TYPE_CHECKING:
    from dwcp_ml.prediction_log.log import PredictionLog

SECONDS_BUCKETS: Final = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006,
    0.008, 0.01, 0.0125, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Upper bounds of the latency histogram, seconds: finest around 10 ms, the limit of the p99."""

_BOUNDS: Final = [*(str(bound) for bound in SECONDS_BUCKETS), "+Inf"]

UNKNOWN: Final = "unknown"
"""The labels of requests for a model that is not served: one series, whatever clients send."""


_BUFFERED: Final = 4096

_Series = tuple[str, str]  # model, version


class _Latencies:
    """Seconds of the requests for one model; they are put into buckets many at a time."""

    def __init__(self) -> None:
        self.buffer: list[float] = []
        self._counts = np.zeros(len(SECONDS_BUCKETS) + 1, np.int64)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self.buffer.append(seconds)
        if len(self.buffer) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        places = np.searchsorted(SECONDS_BUCKETS, self.buffer, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += math.fsum(self.buffer)
        self.buffer.clear()

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return Prometheus's buckets, upper bound as text and count up to it, and the sum."""
        self._flush()
        counts = np.cumsum(self._counts).tolist()
        return list(zip(_BOUNDS, map(float, counts), strict=True)), self._sum


class ServerMetrics(Collector):
    """Counters and histograms of one server, in a registry of its own.

    They are counted in dictionaries and arrays and become Prometheus's when it scrapes: a counter
    of its client library takes as long as the model.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._models: list[ServedModel] = []
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._mirrored: Counter[tuple[str, str, int]] = Counter()
        self._seconds: defaultdict[_Series, _Latencies] = defaultdict(_Latencies)
        self.registry.register(self)

    def serve(self, models: Iterable[ServedModel]) -> None:
        """Create the series of the models, with counters at zero.

        A series that first appears with its first error would hide that error from a rate.
        """
        for model in models:
            self._models.append(model)
            for code in (200, 400, CLIENT_CLOSED_REQUEST, 500, 503):
                self._requests[model.name, model.version, code] = 0
                self._mirrored[model.name, model.version, code] = 0
            self._seconds[model.name, model.version] = _Latencies()

    def watch_log(self, log: PredictionLog) -> None:
        """Expose how many records the prediction log has written and dropped."""
        for what in ("written", "dropped"):
            text = f"Records that the prediction log has {what}."
            gauge = Gauge(f"dwcp_prediction_log_{what}", text, registry=self.registry)
            gauge.set_function(partial(getattr, log, what))

    def count(
        self, model: ServedModel | None, code: int, seconds: float, mirrored: bool = False
    ) -> None:
        """Count one request by the code of its response, ``seconds`` after its last byte.

        A mirrored copy, whose response the router discards, is counted apart, by its code only.
        """
        name, version = (model.name, model.version) if model else (UNKNOWN, UNKNOWN)
        if mirrored:
            self._mirrored[name, version, code] += 1
            return
        self._requests[name, version, code] += 1
        self._seconds[name, version].add(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield what is counted here."""
        for metric, text, counts in (
            (
                "dwcp_requests",
                "Inference requests, by the status code of the response; 499: the client left "
                "first.",
                self._requests,
            ),
            (
                "dwcp_mirrored_requests",
                "Mirrored copies of inference requests (X-DWCP-Mirrored), by status code.",
                self._mirrored,
            ),
        ):
            family = CounterMetricFamily(metric, text, labels=["model", "version", "code"])
            for (name, version, code), count in counts.items():
                family.add_metric([name, version, str(code)], count)
            yield family
        seconds = HistogramMetricFamily(
            "dwcp_request_seconds",
            "Seconds from the last byte of the request to the response.",
            labels=["model", "version"],
        )
        for (name, version), latencies in self._seconds.items():
            seconds.add_metric([name, version], *latencies.cumulative())
        yield seconds
        info = GaugeMetricFamily(
            "dwcp_model_info",
            "1 for each model that is served; digest is the SHA-256 of its manifest, contract that "
            "of its inputs and outputs.",
            labels=["model", "version", "digest", "contract"],
        )
        for model in self._models:
            info.add_metric([model.name, model.version, model.digest, model.contract], 1)
        yield info
