"""Replays telemetry as traffic: every example of a model, in time order, at a given rate."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import pandas as pd

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.http_client import HttpError, HttpSession, Response
from dwcp_ml.local_rollout.envoy_config import ARM_HEADER
from dwcp_ml.serving.headers import link_header

_CONNECTIONS: Final = 8
_TIMEOUT_SECONDS: Final = 20.0


@dataclass(frozen=True)
class PredictRequest:
    """A request to predict: its body, the link of its features, and when they were observed."""

    body: bytes
    link: str
    observed_at: float


def predict_requests(
    spec: ModelSpec, telemetry: Path, max_requests: int = 20_000
) -> list[PredictRequest]:
    """Return one request for each window, or row, that a telemetry file holds, in order.

    Parameters
    ----------
    max_requests
        Maximum number of requests, the newest; the replay starts over at the end.

    Raises
    ------
    DataRefused
        If the file breaks the contract, or holds no whole window of consecutive rows.
    """
    from dwcp_ml.contract.examples import GAP_FACTOR
    from dwcp_ml.data.features import feature_matrix
    from dwcp_ml.data.reading import load
    from dwcp_ml.data.windows import cadences, window_rows

    frame = load(telemetry, spec.needed_columns)
    timestamp = frame["timestamp"].to_numpy(np.float64)
    keys = frame[list(spec.series_key)].agg("/".join, axis=1)
    series, _ = pd.factorize(keys, sort=True)
    whole = np.zeros(len(frame), np.int8)
    max_steps = GAP_FACTOR * cadences(timestamp, series)
    windows = window_rows(timestamp, series, whole, spec.window, max_steps)[-max_requests:]
    if len(windows) == 0:
        raise DataRefused(
            f"{telemetry} holds no {spec.window} consecutive rows of one series, the input of "
            f"{spec.name}."
        )
    cells = feature_matrix(frame, spec.features)
    return [
        PredictRequest(
            body=json.dumps({"instances": [row.reshape(spec.input.shape).tolist()]}).encode(),
            link=keys.iloc[window[-1]],
            observed_at=float(timestamp[window[-1]]),
        )
        for window, row in zip(windows, cells[windows], strict=True)
    ]


class Replay:
    """Sends requests at a fixed rate until it is stopped; starts over at the end.

    Parameters
    ----------
    address
        ``host:port`` of Envoy.
    requests_per_second
        Over both arms.
    host
        The Host header, by default the address.
    """

    def __init__(
        self,
        address: str,
        spec: ModelSpec,
        requests: Sequence[PredictRequest],
        requests_per_second: float,
        *,
        host: str | None = None,
    ) -> None:
        self._host = host or address
        self._url = f"http://{address}/v1/models/{spec.name}:predict"
        self._http = HttpSession()
        self._requests, self._rate = requests, requests_per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._started = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name=f"replay-{number}", daemon=True)
            for number in range(_CONNECTIONS)
        ]
        self.responses: Counter[tuple[str, str]] = Counter()
        """(arm, class of the status, or ``lost``) -> requests."""

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_SECONDS + 5.0)
        self._http.close()

    def _work(self) -> None:
        for request in self._due_requests():
            headers = {
                "Host": self._host,
                "Content-Type": "application/json",
                "X-DWCP-Link": link_header(request.link),
                "X-DWCP-Observed-At": f"{request.observed_at:.3f}",
            }
            try:
                response = self._http.request(
                    "POST", self._url, _TIMEOUT_SECONDS, headers=headers, body=request.body
                )
            except HttpError:
                self._count("unknown", "lost")
                continue
            arm = response.headers.get(ARM_HEADER, "unknown")
            self._count(arm, f"{response.status // 100}xx")
            self._receive(request, response)

    def _receive(self, request: PredictRequest, response: Response) -> None:
        """Do nothing more with a response; a caller that reports outcomes does."""

    def _due_requests(self) -> Iterator[PredictRequest]:
        """Yield the requests that this thread shall send, each when it is due."""
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            due = self._started + number / self._rate
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            yield self._requests[number % len(self._requests)]

    def _count(self, arm: str, outcome: str) -> None:
        with self._lock:
            self.responses[(arm, outcome)] += 1
