"""What the gate said, from a run that has ended.

Behind the gate runs a task ``approved`` or ``rejected``, and which of them has run is in every
answer about a run. The gate's report would say more; but the released servers list no artifacts of
a task, and have no artifact service to ask for one. Behind those two what was approved is handed
over; where that fails the run has failed, and the verdict is told all the same.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ValidationError

from dwcp_ml.contract.records import SessionReport
from dwcp_ml.kubeflow.client import Kubeflow, KubeflowError, RunState

Verdict = Literal["APPROVED", "REJECTED"]

REPORT: Final = "report"
_TASKS: Final[dict[str, Verdict]] = {"approved": "APPROVED", "rejected": "REJECTED"}
_HAND_OVER: Final = ("hand-over", "hand over")
"""What the task's name begins with, or is shown as: Kubeflow counts the places where it stands."""


def verdict_of(run: RunState, kubeflow: Kubeflow) -> Verdict | None:
    """Return what the gate said; ``None`` where the run does not tell, or says both.

    Parameters
    ----------
    run
        Has ended.
    kubeflow
        Is asked for the gate's report if no task tells, as a pipeline of an earlier version has
        none that does.

    Raises
    ------
    KubeflowError
        If it does not answer for now.
    """
    told = {
        _TASKS[task.name] for task in run.tasks if task.name in _TASKS and task.state == "SUCCEEDED"
    }
    if told:
        return told.pop() if len(told) == 1 else None
    report_id = (run.artifacts or {}).get(REPORT)
    if report_id is None:
        return None
    try:
        report = SessionReport.model_validate_json(kubeflow.artifact(report_id))
    except KubeflowError as error:
        if error.passing:
            raise
        return None
    except ValidationError:
        return None
    said = report.production_readiness.deployment_recommendation
    return "APPROVED" if said == "APPROVED" else "REJECTED"


def was_refused(run: RunState) -> bool:
    """Return whether something that the gate approved could not be handed over."""
    return any(task.name.startswith(_HAND_OVER) and task.state == "FAILED" for task in run.tasks)
