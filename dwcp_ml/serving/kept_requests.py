"""The newest requests with their predictions, which a rollout sends to a candidate to compare.

They are features, so they may say something about whoever sent them. They are kept in memory only,
bounded in number and age, and read on a port of their own, which a network policy opens for the
operator alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.rejections import ModelNotFound, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.sketches import compared_output
from dwcp_ml.serving.tensors import Rows

MAX_KEPT: Final = 1024
"""Requests of each model."""

MAX_AGE_SECONDS: Final = 300.0
"""Older ones are not handed out, and are dropped with the next request."""

_MIN_GAP_SECONDS: Final = 0.01
"""Between two requests of a model that are kept: above 100 a second a sample is enough."""


class _Kept(NamedTuple):
    at: float
    features: NDArray[np.float32]
    prediction: float


class _ModelRequests:
    """The kept requests of one model; ``seen`` numbers them, from 1; ``last`` is a time."""

    def __init__(self, model: ServedModel, output: str) -> None:
        self.model, self.output = model, output
        self.kept: deque[_Kept] = deque(maxlen=MAX_KEPT)
        self.seen = 0
        self.last = -math.inf

    def drop_old(self, now: float) -> None:
        while self.kept and now - self.kept[0].at > MAX_AGE_SECONDS:
            self.kept.popleft()


class KeptRequests(Collector):
    """The kept requests of all models, as a Prometheus collector that says on which port they are.

    Parameters
    ----------
    port
        Where they are read.
    """

    def __init__(
        self, models: Iterable[ServedModel], registry: CollectorRegistry, port: int
    ) -> None:
        self._port = port
        self._started_at = time.time()
        self._models: dict[str, _ModelRequests] = {}
        for model in models:
            output = compared_output(model)
            if output is not None:
                self._models[model.name] = _ModelRequests(model, output.name)
        registry.register(self)

    def add(self, model: ServedModel, rows: Rows, predictions: Outputs, row: int) -> None:
        """Keep one row of a batch and its prediction, unless another was kept just now."""
        of_model, now = self._models.get(model.name), time.monotonic()
        if of_model is None or now - of_model.last < _MIN_GAP_SECONDS:
            return
        of_model.last = now
        of_model.drop_old(now)
        prediction = float(predictions[of_model.output][row])
        of_model.kept.append(_Kept(now, rows[row].reshape(-1).copy(), prediction))
        of_model.seen += 1

    def since(self, name: str, after: int, limit: int) -> dict[str, Any]:
        """Return the newest requests of a model that came after a number, oldest first.

        Parameters
        ----------
        after
            Number of the last request that is known; 0 for all.
        limit
            At most this number of them, the newest.

        Raises
        ------
        ModelNotFound
            If no requests of such a model are kept.
        """
        of_model = self._models.get(name)
        if of_model is None:
            raise ModelNotFound(
                f"No requests of a model '{shorten(name)}' are kept here.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(name),
            )
        of_model.drop_old(time.monotonic())
        first = of_model.seen - len(of_model.kept)
        count = max(min(limit, of_model.seen - max(first, after)), 0)
        newest = list(of_model.kept)[len(of_model.kept) - count :]
        return {
            "model": name,
            "version": of_model.model.version,
            "digest": of_model.model.digest,
            "started_at": self._started_at,
            "last": of_model.seen,
            "output": of_model.output,
            "requests": [
                {"features": each.features, "prediction": each.prediction} for each in newest
            ],
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield ``dwcp_kept_requests``."""
        kept = GaugeMetricFamily(
            "dwcp_kept_requests",
            "Newest requests that this server keeps in memory, for a rollout to compare a "
            "candidate's predictions with; port is where the operator reads them.",
            labels=["model", "version", "port"],
        )
        for name, of_model in self._models.items():
            of_model.drop_old(time.monotonic())
            kept.add_metric([name, of_model.model.version, str(self._port)], len(of_model.kept))
        yield kept
