"""The operator's own metrics, for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dwcp_ml.operator.reconcile import Result
from dwcp_ml.operator.settings import Key
from dwcp_ml.rollout.status import Phase

BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; a look is to take less than one."""


class Metrics:
    """What one process of the operator counts. Can be used from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "dwcp_operator_reconcile_seconds", "One look at an object", ["kind"],
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "dwcp_operator_errors", "Looks that came to nothing, by error", ["kind", "error"],
            registry=self.registry,
        )  # fmt: skip
        self.writes = Counter(
            "dwcp_operator_writes", "Writes that were carried out; status writes stand apart",
            ["kind"], registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge(
            "dwcp_operator_leader", "1 while this process may write", registry=self.registry
        )
        self.waiting = Gauge(
            "dwcp_operator_queue_due", "Objects whose look is due", registry=self.registry
        )
        self._rollouts = Gauge(
            "dwcp_operator_rollouts", "ModelRollouts by phase", ["phase"], registry=self.registry
        )
        self._held = Gauge(
            "dwcp_operator_rollouts_held", "ModelRollouts that something is in the way of",
            registry=self.registry,
        )  # fmt: skip
        self._live = Gauge(
            "dwcp_rollout_live_percent", "The candidate's share of the traffic",
            ["namespace", "name"], registry=self.registry,
        )  # fmt: skip
        self._known: dict[Key, Result] = {}
        self._lock = threading.Lock()

    def wrote(self, kind: str, status: bool) -> None:
        """Count a write."""
        self.writes.labels(f"{kind}/status" if status else kind).inc()

    def looked(self, key: Key, result: Result) -> None:
        """Remember what a look at a ModelRollout came to; forget one that is gone."""
        with self._lock:
            if result.requeue_after is None:
                if self._known.pop(key, None) is not None:
                    self._drop(key)
            else:
                self._known[key] = result
                if result.live_percent is None:
                    self._drop(key)
                else:
                    self._live.labels(*key).set(result.live_percent)
            self._count()

    def forget(self) -> None:
        """Forget every rollout: whoever does not lead does not know."""
        with self._lock:
            self._known.clear()
            self._live.clear()
            self._count()

    def page(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _drop(self, key: Key) -> None:
        if key in self._live_keys():
            self._live.remove(*key)

    def _live_keys(self) -> set[Key]:
        found = set()
        for family in self._live.collect():
            for sample in family.samples:
                found.add((sample.labels["namespace"], sample.labels["name"]))
        return found

    def _count(self) -> None:
        phases = Tally(result.phase for result in self._known.values())
        for phase in Phase:
            self._rollouts.labels(phase.value).set(phases.get(phase.value, 0))
        self._held.set(sum(bool(result.trouble) for result in self._known.values()))
