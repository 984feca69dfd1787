"""Objects in each phase, and how tools that know nothing of them have to read them.

The conditions of a phase are a promise to Flux, Argo CD and ``kubectl wait``: one example for each
row of the table in docs/custom-resources.md, and for objects that the operator has not reconciled.
"""

from dataclasses import dataclass, field
from typing import Any

from dwcp_ml.operator.api.parts import API_VERSION
from dwcp_ml.rollout.reason import REASONS, Reason, Stall

GENERATION = 3
_NOT_READ = "The operator has not read this version of the object yet."


@dataclass(frozen=True)
class StatusExample:
    """One object.

    Parameters
    ----------
    kstatus
        What the kstatus library says: Current, InProgress or Failed.
    health
        What Argo CD's health check says: Healthy, Progressing, Suspended or Degraded.
    reason
        Of the condition that decides; it has the same message.
    conditions
        Type -> whether it is true; empty for none.
    phase
        ``status.phase``, where it matters.
    observed
        The generation that the status is about; ``None`` for no status.
    """

    name: str
    kstatus: str
    health: str
    reason: str = ""
    conditions: dict[str, bool] = field(default_factory=dict)
    kind: str = "ModelRollout"
    phase: str = ""
    observed: int | None = GENERATION

    @property
    def message(self):
        """Return the sentence that is shown with the health."""
        return f"This is why: {self.reason}." if self.reason else _NOT_READ

    @property
    def obj(self) -> dict[str, Any]:
        """Return the object as the API server returns it."""
        made = {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": {"name": "nightly", "namespace": "default", "generation": GENERATION},
            "spec": {},
        }
        if self.observed is not None:
            made["status"] = {
                "phase": self.phase or "Progressing",
                "observedGeneration": self.observed,
                "conditions": [self._condition(*one) for one in self.conditions.items()],
            }
        return made

    def _condition(self, kind, is_true):
        decides = is_true or (kind == "Ready" and not self.conditions["Reconciling"])
        return {
            "type": kind,
            "status": "True" if is_true else "False",
            "reason": self.reason if decides else "Other",
            "message": self.message if decides else "This is about something else.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": self.observed,
        }


def _conditions(*names, promoted=True):
    kinds = ("Ready", "Reconciling", "Stalled") + (("Promoted",) if promoted else ())
    return {kind: kind in names for kind in kinds}


def _rollout(name, kstatus, health, reason, *true, phase=""):
    return StatusExample(name, kstatus, health, reason, _conditions(*true), phase=phase)


def _training(phase, kstatus, health, reason, *true):
    conditions = _conditions(*true, promoted=False)
    name = f"training, {phase}: {reason}"
    return StatusExample(name, kstatus, health, reason, conditions, "TrainingRun", phase)


_UNDER_WAY = [
    _rollout("first deployment", "InProgress", "Progressing", "FirstDeployment", "Reconciling"),
    _rollout("step under way", "InProgress", "Progressing", "StepStarted", "Reconciling"),
    _rollout("100 %, before it is promoted", "InProgress", "Progressing", "Dwelling",
             "Reconciling", "Promoted"),
    _rollout("watch after the promotion", "Current", "Healthy", "Watching", "Ready", "Promoted"),
    _rollout("nothing to do", "Current", "Healthy", "Promoted", "Ready", "Promoted"),
]  # fmt: skip
_WAITING = [
    _rollout(f"waits: {reason}", "InProgress", "Progressing", reason, "Reconciling")
    for reason in Reason
    if REASONS[reason].stall in (Stall.AFTER_GRACE, Stall.AFTER_DEADLINE)
]
_PAUSED = [
    _rollout(f"paused, and waits for: {reason}", "InProgress", "Suspended", reason, "Reconciling",
             phase="Paused")
    for reason in ("Paused", "Dwelling")
]  # fmt: skip
_STALLED = [
    _rollout(f"can't go on: {reason}", "Failed", "Degraded", reason, "Stalled")
    for reason in Reason
    if REASONS[reason].stall is not Stall.NEVER
]
_ENDED = [
    _rollout("rolled back", "Failed", "Degraded", "RolledBack", "Stalled"),
    _rollout("aborted", "Failed", "Degraded", "Aborted", "Stalled"),
]
_TRAINING = [
    *(
        _training(phase, "InProgress", health, reason, "Reconciling")
        for phase, health, reason in (
            ("Pending", "Progressing", "Pending"),
            ("Pending", "Progressing", "KubeflowUnavailable"),
            ("Running", "Progressing", "Running"),
            ("Suspended", "Suspended", "Suspended"),
        )
    ),
    _training("Succeeded", "Current", "Healthy", "GateApproved", "Ready"),
    *(
        _training(phase, "Failed", "Degraded", reason, "Stalled")
        for phase, reason in (
            ("Succeeded", "GateRejected"),
            ("Failed", "RunFailed"),
            ("Failed", "RunNotFound"),
            ("Failed", "RunSkipped"),
            ("Running", "RunStateUnknown"),
            ("Cancelled", "RunCancelled"),
            ("Pending", "InvalidSpec"),
            ("Pending", "KubeflowNotConfigured"),
        )
    ),
]
_NOT_OBSERVED = [
    StatusExample(f"{kind}, {about}", "InProgress", "Progressing", "", _conditions("Ready"), kind,
                  observed=observed)
    for kind in ("ModelRollout", "TrainingRun")
    for about, observed in (("earlier generation", GENERATION - 1), ("before the first", -1))
]  # fmt: skip

WITHOUT_STATUS = [
    StatusExample(f"{kind} without a status", "Current", "Progressing", kind=kind, observed=None)
    for kind in ("ModelRollout", "TrainingRun")
]
"""kstatus takes an object that says nothing for one that is finished. So our definitions give a new
object ``status.observedGeneration: -1``, and none is without a status on a cluster."""

STATUS_EXAMPLES = [
    *_UNDER_WAY, *_WAITING, *_PAUSED, *_STALLED, *_ENDED, *_TRAINING, *_NOT_OBSERVED,
]  # fmt: skip
