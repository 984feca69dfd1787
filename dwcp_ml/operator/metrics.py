"""The operator's own metrics, for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dwcp_ml.operator.reconcile import Result
from dwcp_ml.operator.settings import Key
from dwcp_ml.rollout.status import Phase

BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; a reconciliation is to take less than one."""


class Metrics:
    """The metrics of one operator process; thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "dwcp_operator_reconcile_seconds", "Duration of one reconciliation", ["kind"],
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "dwcp_operator_errors", "Reconciliations that failed, by error", ["kind", "error"],
            registry=self.registry,
        )  # fmt: skip
        self.writes = Counter(
            "dwcp_operator_writes", "Successful writes; status writes have a kind of their own",
            ["kind"], registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge(
            "dwcp_operator_leader", "1 while this process may write", registry=self.registry
        )
        self.waiting = Gauge(
            "dwcp_operator_queue_due",
            "Objects due for reconciliation",
            registry=self.registry,
        )
        self._rollouts = Gauge(
            "dwcp_operator_rollouts", "ModelRollouts by phase", ["phase"], registry=self.registry
        )
        self._stalled = Gauge(
            "dwcp_operator_rollouts_stalled", "ModelRollouts that can't go on, by reason",
            ["reason"], registry=self.registry,
        )  # fmt: skip
        self._live = Gauge(
            "dwcp_rollout_live_percent", "The candidate's live weight, percent of the traffic",
            ["namespace", "name"], registry=self.registry,
        )  # fmt: skip
        self._known: dict[Key, Result] = {}
        self._lock = threading.Lock()
        self.registry.register(_Evidence(self))

    def wrote(self, kind: str, status: bool) -> None:
        """Count a write."""
        self.writes.labels(f"{kind}/status" if status else kind).inc()

    def reconciled(self, key: Key, result: Result) -> None:
        """Take in the result of a reconciliation; one that is gone is dropped."""
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
        """Drop every rollout: a process that does not lead has no current figures."""
        with self._lock:
            self._known.clear()
            self._live.clear()
            self._count()

    def under_way(self) -> list[tuple[Key, Result]]:
        """Return the newest result of each rollout."""
        with self._lock:
            return list(self._known.items())

    def page(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _drop(self, key: Key) -> None:
        if key in self._live_keys():
            self._live.remove(*key)

    def _live_keys(self) -> set[Key]:
        keys = set()
        for family in self._live.collect():
            for sample in family.samples:
                keys.add((sample.labels["namespace"], sample.labels["name"]))
        return keys

    def _count(self) -> None:
        phases = Tally(result.phase for result in self._known.values())
        for phase in Phase:
            self._rollouts.labels(phase.value).set(phases.get(phase.value, 0))
        self._stalled.clear()
        stalled = Tally(result.stalled for result in self._known.values() if result.stalled)
        for reason, count in stalled.items():
            self._stalled.labels(reason.value).set(count)


class _Evidence(Collector):
    """How far each test of each rollout has come, made when Prometheus asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield ``dwcp_rollout_evidence``."""
        family = GaugeMetricFamily(
            "dwcp_rollout_evidence",
            "Evidence of a test towards its bound: log(evidence) / log(needed); 1 decides",
            labels=["namespace", "name", "test", "outcome"],
        )
        for key, result in self._metrics.under_way():
            for verdict in result.verdicts:
                labels = [*key, verdict.test, verdict.outcome.value]
                family.add_metric(labels, verdict.progress)
        yield family
