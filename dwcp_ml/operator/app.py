"""The operator as one process: the election, the workers, the watches and the pages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, Api, ApiUnavailable, KubeError
from dwcp_ml.kube.kserve import DeployedRevision
from dwcp_ml.kubeflow.client import KubeflowApi
from dwcp_ml.operator.events import KubernetesRecorder
from dwcp_ml.operator.health import Pages
from dwcp_ml.operator.lease import RETRY_SECONDS, GuardedApi, Lease, NotLeader
from dwcp_ml.operator.metrics import Metrics
from dwcp_ml.operator.observation import Place, PodSource, PrometheusArms, Source
from dwcp_ml.operator.reconcile import Reconciler
from dwcp_ml.operator.settings import SYSTEM_CLOCK, Clock, Key, OperatorSettings, identity_of
from dwcp_ml.operator.submission import RestrictedKubeflow
from dwcp_ml.operator.training_reconcile import Trainer, pipelines_in
from dwcp_ml.operator.workqueue import Item, Pauses, Queue, work
from dwcp_ml.rollout.status import Phase

RESYNC_SECONDS: Final = 60.0
"""Resync interval: all objects are listed again, in case a watch event was lost."""

STALLED_SECONDS: Final = 60.0
"""A process that takes no part in the election for this long is restarted by the kubelet."""

_KINDS: Final = {kind.kind: kind for kind in (MODEL_ROLLOUT, TRAINING_RUN)}
_LOG = logging.getLogger("dwcp_ml.operator")


class Operator:
    """One process of the operator, without its watches."""

    def __init__(self, settings: OperatorSettings, api: Api, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._api = api
        self._clock = clock
        self.metrics = Metrics()
        # One for each kind: Kubeflow takes seconds, and no roll-back waits behind it.
        self.queues = {kind: Queue(clock.monotonic) for kind in _KINDS}
        self.watching = threading.Event()
        self.stop = threading.Event()
        self._pauses = Pauses()
        self.lease = Lease(
            api, settings.lease_namespace, settings.lease_name,
            identity_of(settings.identity), clock,
        )  # fmt: skip
        guarded = GuardedApi(api, self.lease.check, self.metrics.wrote)
        recorder = KubernetesRecorder(guarded, clock)

        self.rollouts = Reconciler(
            guarded, source_of(settings), clock, settings.intervals, recorder,
            policy=settings.policy,
        )  # fmt: skip
        self.trainings = Trainer(
            guarded, kubeflow_of(settings), pipelines_in(settings.pipelines), clock,
            settings.intervals, recorder,
        )  # fmt: skip
        self._reconcilers: Mapping[str, Callable[[Key], float | None]] = {
            MODEL_ROLLOUT.kind: self._reconcile_rollout,
            TRAINING_RUN.kind: self.trainings.reconcile,
        }
        self._ticked_at = clock.monotonic()
        self._answered_at: float | None = None
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Start the election and the workers."""
        targets: list[Callable[[], None]] = [self._keep_electing, self._keep_listing]
        for queue in self.queues.values():
            targets += [partial(self._work, queue)] * self._settings.workers
        self._threads = [threading.Thread(target=one, daemon=True) for one in targets]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop everything, and give the Lease back when nothing is written any more."""
        self.stop.set()
        for queue in self.queues.values():
            queue.close()
        deadline = time.monotonic() + STALLED_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self.lease.release()

    def pages(self) -> Pages:
        """Return the health and metrics pages, not yet started."""
        return Pages(self.why_unhealthy, self.why_not_ready, self._page, self._settings.port)

    def why_unhealthy(self) -> str:
        """Return why the process should be restarted; empty if it need not be."""
        stalled = self._clock.monotonic() - self._ticked_at
        if stalled > STALLED_SECONDS:
            return f"No part in the leader election for {stalled:.0f} s."
        if self._threads and not all(thread.is_alive() for thread in self._threads):
            return "A worker thread has ended."
        return ""

    def why_not_ready(self) -> str:
        """Return why it can't take over; empty if it could."""
        answered = self._answered_at
        if answered is None or self._clock.monotonic() - answered > STALLED_SECONDS:
            return "The API server does not answer."
        return "" if self.watching.is_set() else "The watches have not started."

    def tick(self) -> None:
        """Take part in the election once."""
        before = self.lease.leads
        leads = self.lease.take_part()
        self._ticked_at = self._clock.monotonic()
        self.metrics.leader.set(leads)
        if leads and not before:
            _LOG.info("This process leads now")
            self.rollouts.states.forget()
            self.list_all(at_once=True)
        elif before and not leads:
            _LOG.warning("This process does not lead any more")
            self.metrics.forget()

    def list_all(self, at_once: bool = False) -> None:
        """Add every object to the queue; known ones only if ``at_once``."""
        for kind in _KINDS.values():
            queue = self.queues[kind.kind]
            known = queue.items()
            try:
                bodies = self._api.list(kind, self._settings.namespace or None)
            except KubeError as error:
                _LOG.warning("%s", error)
                continue
            self._answered_at = self._clock.monotonic()
            for body in bodies:
                metadata = body["metadata"]
                item = kind.kind, (metadata.get("namespace", ""), metadata["name"])
                if at_once or item not in known:
                    queue.add(item)

    def reconcile(self, item: Item) -> float | None:
        """Reconcile an object, if this process leads; return seconds until the next time."""
        if not self.lease.leads:
            return self._settings.intervals.reconcile_seconds
        kind, key = item
        started = self._clock.monotonic()
        after = self._reconcilers[kind](key)
        self.metrics.seconds.labels(kind).observe(self._clock.monotonic() - started)
        self.metrics.waiting.set(sum(queue.due() for queue in self.queues.values()))
        self._pauses.forget(item)
        return after

    def failed(self, item: Item, error: Exception) -> float:
        """Count a failure, and return seconds until the next time."""
        if isinstance(error, NotLeader):
            return self._settings.intervals.reconcile_seconds
        self.metrics.errors.labels(item[0], type(error).__name__).inc()
        least = error.retry_after_seconds if isinstance(error, ApiUnavailable) else None
        return self._pauses.after_failure(item, least)

    def _reconcile_rollout(self, key: Key) -> float | None:
        result = self.rollouts.reconcile(key)
        self.metrics.reconciled(key, result)
        if result.phase:
            item = MODEL_ROLLOUT.kind, key
            rolling_back = result.phase == Phase.ROLLING_BACK and result.stalled is None
            self.queues[MODEL_ROLLOUT.kind].prefer(item, rolling_back)  # A stalled one can wait.
        return result.requeue_after

    def _work(self, queue: Queue) -> None:
        work(queue, self.reconcile, self.failed)

    def _keep_electing(self) -> None:
        while not self.stop.is_set():
            self.tick()
            self.stop.wait(RETRY_SECONDS)

    def _keep_listing(self) -> None:
        while not self.stop.is_set():
            self.list_all()
            self.stop.wait(RESYNC_SECONDS)

    def _page(self) -> bytes:
        self.metrics.leader.set(self.lease.leads)
        return self.metrics.page()


def run(settings: OperatorSettings, api: Api, client: Any) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    from dwcp_ml.operator.watch import watch

    operator = Operator(settings, api)
    with operator.pages() as pages:
        _LOG.info("Health and metrics on port %d", pages.port)
        operator.begin()
        try:
            watch(operator.queues, client, settings.namespace, operator.stop, operator.watching)
        finally:
            operator.end()


def source_of(settings: OperatorSettings) -> Source:
    """Return where counters come from: the pods themselves, or a Prometheus."""
    if not settings.prometheus:
        return PodSource()
    return PrometheusArms(settings.prometheus, matchers)


def kubeflow_of(settings: OperatorSettings) -> KubeflowApi | None:
    """Return the client of Kubeflow; ``None`` if there is none."""
    if not settings.kubeflow:
        return None
    return RestrictedKubeflow(settings.kubeflow, settings.kubeflow_token_file, settings.policy)


def matchers(place: Place, deployed: DeployedRevision) -> dict[str, str]:
    """Return the labels that select the targets of one bundle in Prometheus.

    The scrape configuration makes them of the pods' labels and annotations.
    """
    return {
        "namespace": place.namespace,
        "inferenceservice": place.inference_service,
        "bundle_version": deployed.version,
        "bundle_runtime": deployed.runtime,
    }
