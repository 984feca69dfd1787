"""What was measured during a stretch of load."""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.servers.usage import Usage

QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p99_9_ms": 0.999}


class LoadFailed(Exception):
    """The load can't be put on the server; the message says why."""


@dataclass
class Window:
    """Responses and their latencies, seconds."""

    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    good: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def record(self, status: int, latency: float, now: float) -> None:
        self.latencies.append(latency)
        self.good += status == 200
        self.ended = now

    def figures(self, before: Usage, after: Usage, own_seconds: float) -> dict[str, Any]:
        """Return the figures of a row.

        Parameters
        ----------
        before, after
            What the server had used.
        own_seconds
            What the generator used.
        """
        lasted, requests = self.ended - self.started, len(self.latencies)
        used = after.seconds_since(before)
        quantiles = np.quantile(np.frombuffer(self.latencies), list(QUANTILES.values()))
        others = after.machine - before.machine - used - own_seconds
        return {
            "requests": requests,
            "errors": requests - self.good,
            "rps": requests / lasted,
            "cpu_us": 1e6 * used / requests,
            **{name: 1e3 * float(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
            "server_busy": used / lasted,
            "load_busy": own_seconds / lasted,
            "others_busy": max(others, 0.0) / lasted,
        }


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield the seconds between requests that come independently, ``rate`` a second."""
    source = random.Random(seed)
    while True:
        yield source.expovariate(rate)
