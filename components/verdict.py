"""The verdict as a task: either ``approved`` or ``rejected`` runs.

Kubeflow's API shows which tasks have run, but neither the outputs of a task nor the content of an
artifact. A client that waits for a run therefore reads the gate's verdict from the task that has
succeeded.
"""

from components._component import component


@component
def approved(version: str) -> str:
    """Show that the gate approved the run.

    Args:
        version: The run's name.

    Returns:
        APPROVED.
    """
    print(f"The gate said APPROVED for {version}.")  # noqa: T201 - a task's log
    return "APPROVED"


@component
def rejected(version: str) -> str:
    """Show that the gate rejected the run; the gate's report has the reasons.

    Args:
        version: The run's name.

    Returns:
        REJECTED.
    """
    print(f"The gate said REJECTED for {version}.")  # noqa: T201 - a task's log
    return "REJECTED"
