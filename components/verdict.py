"""The verdict as a task that has run: ``approved`` or ``rejected``.

Kubeflow's API tells which tasks have run, and tells neither the outputs of a task nor what is in
an artifact. So what waits for a run reads the gate's answer from the one that has succeeded.
"""

from components._component import component


@component
def approved(version: str) -> str:
    """Say that the gate approved the run.

    Args:
        version: The run's name.

    Returns:
        APPROVED.
    """
    print(f"the gate said APPROVED for {version}.")  # noqa: T201 - a task's log
    return "APPROVED"


@component
def rejected(version: str) -> str:
    """Say that the gate rejected the run; the gate's report holds the reasons.

    Args:
        version: The run's name.

    Returns:
        REJECTED.
    """
    print(f"the gate said REJECTED for {version}.")  # noqa: T201 - a task's log
    return "REJECTED"
