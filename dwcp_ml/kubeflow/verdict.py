"""What the gate said, read from a run that has ended.

A task ``approved`` or ``rejected`` runs behind the gate, and Kubeflow's API says which of them has
run. The gate's report would say more, but the released servers neither list the artifacts of a task
nor serve one. The task ``publish-candidate`` runs after them: if it fails the run has failed, and
the verdict can still be read.
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from dwcp_ml.contract.records import Recommendation, SessionReport
from dwcp_ml.kubeflow.client import KubeflowApi, KubeflowError, RunState

REPORT: Final = "report"
_TASKS: Final[dict[str, Recommendation]] = {"approved": "APPROVED", "rejected": "REJECTED"}
_PUBLISH: Final = "publish-candidate"
"""Start of the task's name: Kubeflow appends a number to a name that is used twice."""


def verdict_of(run: RunState, kubeflow: KubeflowApi) -> Recommendation | None:
    """Return what the gate said; ``None`` where no task shows it, or both tasks have run.

    Parameters
    ----------
    kubeflow
        Provides the gate's report if neither task has run: pipelines of earlier versions had
        neither.

    Raises
    ------
    KubeflowError
        If Kubeflow is unavailable for the moment.
    """
    verdicts = {
        _TASKS[task.name] for task in run.tasks if task.name in _TASKS and task.state == "SUCCEEDED"
    }
    if verdicts:
        return verdicts.pop() if len(verdicts) == 1 else None
    report_id = (run.artifacts or {}).get(REPORT)
    if report_id is None:
        return None
    try:
        report = SessionReport.model_validate_json(kubeflow.artifact(report_id))
    except KubeflowError as error:
        if error.transient:
            raise
        return None
    except ValidationError:
        return None
    return report.production_readiness.deployment_recommendation


def publication_failed(run: RunState) -> bool:
    """Return whether a model that the gate approved could not be published."""
    return any(task.name.startswith(_PUBLISH) and task.state == "FAILED" for task in run.tasks)
