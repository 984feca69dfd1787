"""A rollout taken to each phase that docs/health.md has a row for, in memory or on a cluster.

``rollout`` in this module is a scenario: ``tests.operator.faulty.Play`` or
``tests.cluster.operator.in_process.ClusterScenario``, whose time is the test's own.
"""

import time
from dataclasses import dataclass

from tests.operator.scenario import candidate, digest

SPEC = {"shares": (10, 50, 100), "requests": 10, "dwell": 60, "watchSeconds": 30}
"""Steps that last longer than what a test does at one of them."""

BEYOND_STALL_SECONDS, BEYOND_PROGRESS_DEADLINE = 70.0, 700.0


@dataclass(frozen=True)
class Expected:
    """How tools have to read an object.

    Parameters
    ----------
    kstatus
        Of the kstatus library.
    health
        Of Argo CD.
    true
        The conditions that are true; ``None`` where they are about an earlier generation.
    reason
        Of the three conditions of kstatus; empty for any.
    """

    kstatus: str
    health: str
    true: frozenset[str] | None
    reason: str = ""


def _expected(kstatus, health, reason, *true):
    return Expected(kstatus, health, frozenset(true), reason)


NOT_RECONCILED = Expected("InProgress", "Progressing", None)
"""Whatever the conditions are: they are about an earlier generation, or there are none."""


def progressing(reason):
    return _expected("InProgress", "Progressing", reason, "Reconciling")


def paused(reason):
    return _expected("InProgress", "Suspended", reason, "Reconciling")


def ready(reason):
    return _expected("Current", "Healthy", reason, "Ready", "Promoted")


def stalled(reason):
    return _expected("Failed", "Degraded", reason, "Stalled")


def until(rollout, is_there, seconds=1.0):
    """Reconcile every ``seconds`` (virtual) until ``is_there()``."""
    deadline = time.monotonic() + rollout.max_seconds
    while not is_there():
        assert time.monotonic() < deadline, rollout.status
        rollout.reconcile(seconds)


def until_stalled(rollout, reason, seconds):
    """Let ``seconds`` pass while something is in the way; return when the rollout is stalled.

    On a cluster the operator may first learn that an earlier write was carried out: it waits for
    what is in the way from then on.
    """
    until(rollout, lambda: rollout.status["reason"] == reason, seconds)


def until_weight(rollout, percent, number=2):
    """Return when version ``number`` has this live weight; the status is written later."""
    until(rollout, lambda: rollout.fleet.routed().get(digest(number)) == percent)


def edit(rollout, **spec):
    """Edit the spec, and have the operator reconcile it."""
    rollout.edit(lambda obj: obj["spec"].update(spec))
    rollout.reconcile(1.0)


def to_promotion(rollout):
    """Yield (phase, ``Expected``) of a rollout with some obstacles that ends promoted."""
    yield "new", NOT_RECONCILED
    until_weight(rollout, 10)
    yield "a step is under way", progressing("")
    edit(rollout, paused=True)
    yield "paused by the user", paused("")
    edit(rollout, paused=False)
    yield "no longer paused", progressing("")

    rollout.fleet.broken["candidate"] = "connection refused"
    rollout.reconcile(1.0)
    yield "metrics are late", progressing("")
    until_stalled(rollout, "MetricsUnavailable", BEYOND_STALL_SECONDS)
    yield "metrics are unavailable", stalled("MetricsUnavailable")
    rollout.fleet.broken.clear()
    until_weight(rollout, 50)
    yield "metrics are back", progressing("")

    rate, rollout.fleet.requests_per_second = rollout.fleet.requests_per_second, 0.0
    rollout.reconcile(BEYOND_STALL_SECONDS)
    yield "no traffic", progressing("")
    until_stalled(rollout, "NoTraffic", BEYOND_PROGRESS_DEADLINE)
    yield "no traffic for too long", stalled("NoTraffic")
    rollout.fleet.requests_per_second = rate

    until(rollout, lambda: rollout.phase == "Watching")
    yield "watch after the promotion", ready("")
    until(rollout, lambda: rollout.phase == "Promoted")
    yield "promoted", ready("Promoted")
    rollout.edit(lambda obj: obj["spec"].update(candidate=candidate(3)))
    yield "another candidate that is not reconciled yet", NOT_RECONCILED
    until_weight(rollout, 10, 3)
    yield "another candidate", progressing("")


def to_rollback(rollout):
    until_weight(rollout, 10)
    rollout.fleet.errors[digest(2)] = 0.8
    until(rollout, lambda: rollout.phase == "RolledBack")
    yield "rolled back", stalled("RolledBack")


def to_abortion(rollout):
    until_weight(rollout, 10)
    edit(rollout, abort=True)
    until(rollout, lambda: rollout.phase == "RolledBack")
    yield "aborted", stalled("Aborted")


def first_deployment(rollout):
    rollout.reconcile(1.0)
    yield "first deployment", progressing("")
    until(rollout, lambda: rollout.phase == "Promoted")
    yield "first deployment, promoted", ready("")


def without_data(rollout):
    rollout.reconcile(1.0)
    yield "a test that nothing provides data for", stalled("TestNotSupported")


PATHS = {
    "promotion": (to_promotion, {}),
    "roll-back": (to_rollback, {}),
    "abortion": (to_abortion, {}),
    "first deployment": (first_deployment, {"first": True}),
    "unsupported test": (without_data, {"analysis": {"groundTruth": {"required": True}}}),
}
"""Name -> (what yields the phases, what the scenario is made with besides ``SPEC``)."""
