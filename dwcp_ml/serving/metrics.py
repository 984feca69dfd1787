"""The server's Prometheus metrics; the rollout decides on some of them.

Codes are those of HTTP on every protocol, so that one query covers all: gRPC's INVALID_ARGUMENT
counts as 400, NOT_FOUND as 404, RESOURCE_EXHAUSTED as 413, UNAVAILABLE as 503, INTERNAL as 500.
A request whose client left before it had the response counts as 499.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.serving.served_model import ServedModel

if TYPE_CHECKING:
    from dwcp_ml.prediction_log.log import PredictionLog

SECONDS_BUCKETS: Final = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006,
    0.008, 0.01, 0.0125, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Upper bounds of the latency histogram, seconds: finest around 10 ms, the limit of the p99."""

UNKNOWN: Final = "unknown"
"""The labels of requests for a model that is not served: one series, whatever clients send."""


class ServerMetrics:
    """Counters and histograms of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = Counter(
            "dwcp_requests",
            "Inference requests, by the status code of the response; 499: the client left first.",
            ["model", "version", "code"],
            registry=self.registry,
        )
        self._mirrored = Counter(
            "dwcp_mirrored_requests",
            "Mirrored copies of inference requests (X-DWCP-Mirrored), by status code.",
            ["model", "version", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "dwcp_request_seconds",
            "Seconds from the last byte of the request to the response.",
            ["model", "version"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._info = Gauge(
            "dwcp_model_info",
            "1 for each model that is served; digest is the SHA-256 of its manifest, contract that "
            "of its inputs and outputs.",
            ["model", "version", "digest", "contract"],
            registry=self.registry,
        )
        # A label lookup costs more than the increment, so the children are cached.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def serve(self, models: Iterable[ServedModel]) -> None:
        """Create the series of the models, with counters at zero.

        A series that first appears with its first error would hide that error from a rate.
        """
        for model in models:
            self._info.labels(model.name, model.version, model.digest, model.contract).set(1)
            for code in (200, 400, CLIENT_CLOSED_REQUEST, 500, 503):
                self._counter(model.name, model.version, code)
                self._mirrored.labels(model.name, model.version, str(code))
            self._histogram(model.name, model.version)

    def watch_log(self, log: PredictionLog) -> None:
        """Expose how many records the prediction log has written and dropped."""
        for name, text, read in (
            (
                "dwcp_prediction_log_written",
                "Records that the prediction log has written.",
                "written",
            ),
            (
                "dwcp_prediction_log_dropped",
                "Records that the prediction log has dropped.",
                "dropped",
            ),
        ):
            gauge = Gauge(name, text, registry=self.registry)
            gauge.set_function(partial(getattr, log, read))

    def count(self, model: ServedModel | None, code: int, seconds: float) -> None:
        """Count one request by the code of its response, ``seconds`` after its last byte."""
        name, version = (model.name, model.version) if model else (UNKNOWN, UNKNOWN)
        self._counter(name, version, code).inc()
        self._histogram(name, version).observe(seconds)

    def count_mirrored(self, model: ServedModel | None, code: int) -> None:
        """Count one response to a mirrored copy of a request; the router discards it."""
        name, version = (model.name, model.version) if model else (UNKNOWN, UNKNOWN)
        self._mirrored.labels(name, version, str(code)).inc()

    def _counter(self, name: str, version: str, code: int) -> Counter:
        key = (name, version, code)
        child = self._counters.get(key)
        if child is None:
            child = self._counters[key] = self._requests.labels(name, version, str(code))
        return child

    def _histogram(self, name: str, version: str) -> Histogram:
        key = (name, version)
        child = self._histograms.get(key)
        if child is None:
            child = self._histograms[key] = self._seconds.labels(name, version)
        return child
