"""Hands a run over and waits for its end, through lost connections and renewed tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dwcp_ml.contract.errors import RunFailed, RunUnfinished, UsageError
from dwcp_ml.kubeflow.client import Kubeflow, KubeflowError, Order, RunState

_UNAUTHORIZED: Final = 401


@dataclass(frozen=True)
class Pace:
    """How often, and how patiently; seconds.

    Parameters
    ----------
    look
        Between two looks at a run.
    first_retry, longest_retry
        After a failure; each wait is twice the one before.
    submission
        So long a submission is tried: somebody waits for the link.
    refused
        So long a token that is refused is read again; it may be about to be renewed.
    """

    look: float = 5.0
    first_retry: float = 1.0
    longest_retry: float = 60.0
    submission: float = 60.0
    refused: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


class Screen(Protocol):
    """Who is told while a run is waited for."""

    def show(self, run: RunState) -> None:
        """Show where the run stands."""
        ...

    def trouble(self, sentence: str) -> None:
        """Say what is in the way, and what is done about it."""
        ...


class _Patience:
    """Counts failures in a row, and decides how long to wait, or that it was long enough."""

    def __init__(self, pace: Pace, say: Callable[[str], None], renews: bool) -> None:
        self._pace, self._say, self._renews = pace, say, renews
        self._since: float | None = None
        self._seconds = pace.first_retry

    def failed(self, error: KubeflowError, within: float, longest: float = float("inf")) -> None:
        """Wait, at most ``longest`` seconds.

        The error is raised where waiting does not help, or has lasted ``within`` seconds.
        """
        refused = error.status == _UNAUTHORIZED and self._renews
        if not (error.passing or refused):
            raise error
        now = self._pace.now()
        self._since = now if self._since is None else self._since
        limit = min(within, self._pace.refused) if refused else within
        if now - self._since + self._seconds > limit:
            raise error
        why = "The token is read again" if refused else "Asking again"
        seconds = min(self._seconds, longest)
        self._say(f"{error} {why} in {seconds:.3g} s.")
        self._pace.sleep(seconds)
        self._seconds = min(2.0 * self._seconds, self._pace.longest_retry)

    def answered(self) -> None:
        """Begin anew, and say that it is over if it was said that it had begun."""
        if self._since is not None:
            self._say("Kubeflow answers again.")
        self._since, self._seconds = None, self._pace.first_retry


def submit(
    kubeflow: Kubeflow,
    order: Order,
    say: Callable[[str], None],
    *,
    renews: bool = False,
    pace: Pace | None = None,
) -> str:
    """Hand a run over, once, and return its id.

    Its name is how a run is found whose answer got lost, so there must be none of that name yet.

    Parameters
    ----------
    say
        Is told about failures that are tried again.
    renews
        Whether the token comes from a file, so that a refused one is worth another try.

    Raises
    ------
    UsageError
        If there is a run of that name.
    KubeflowError
        If nobody is there, or Kubeflow does not take it, or does not answer any more for
        ``pace.submission`` seconds.
    """
    pace = pace or Pace()
    patience = _Patience(pace, say, renews)
    met = sent = False
    while True:
        try:
            found = kubeflow.find(order.name, order.namespace)
            met = True
            if found and not sent:
                raise UsageError(
                    f"there is a run '{order.name}' already ({found}): choose another --run-name."
                )
            if not found:
                sent = True
                found = kubeflow.submit(order)
        except KubeflowError as error:
            met = met or error.status is not None
            patience.failed(error, pace.submission if met else 0.0)
            continue
        patience.answered()
        return found


def wait(
    kubeflow: Kubeflow,
    run_id: str,
    timeout_seconds: float,
    screen: Screen,
    *,
    renews: bool = False,
    pace: Pace | None = None,
) -> RunState:
    """Return a run when it has ended.

    Raises
    ------
    RunUnfinished
        If it has not ended after ``timeout_seconds``; it goes on.
    RunFailed
        If Kubeflow does not know it any more.
    KubeflowError
        If Kubeflow refuses to tell.
    """
    pace = pace or Pace()
    patience = _Patience(pace, screen.trouble, renews)
    deadline = pace.now() + timeout_seconds
    last = "nothing is known of it"
    while True:
        try:
            run = kubeflow.run(run_id)
        except KubeflowError as error:
            left = deadline - pace.now()
            if left <= 0:
                raise RunUnfinished(_unfinished(run_id, timeout_seconds, str(error))) from error
            patience.failed(error, float("inf"), left)
            continue
        patience.answered()
        if run is None:
            raise RunFailed(f"Kubeflow does not know the run {run_id} any more.")
        screen.show(run)
        if run.ended:
            return run
        last = f"it is {(run.state or 'PENDING').lower()}"
        left = deadline - pace.now()
        if left <= 0:
            raise RunUnfinished(_unfinished(run_id, timeout_seconds, last))
        pace.sleep(min(pace.look, left))


def _unfinished(run_id: str, seconds: float, last: str) -> str:
    return (
        f"the run {run_id} has not ended after {seconds:g} s ({last.rstrip('.')}); it goes on, and "
        f"nobody waits for it."
    )


def failure_of(run: RunState, titles: dict[str, str]) -> str:
    """Return one sentence on why a run has not succeeded.

    Parameters
    ----------
    titles
        Kubeflow's name of a task -> what people call it.
    """
    if run.state in ("CANCELED", "SKIPPED"):
        return f"the run {run.run_id} was {'cancelled' if run.state == 'CANCELED' else 'skipped'}."
    failed = [task for task in run.tasks if task.state == "FAILED"]
    named = [task for task in failed if task.name in titles]
    # What ended a pod may stand at its executor only, which has no name of its own.
    told = [task.message for task in (*named, *failed) if task.message]
    why = told[0] if told else run.error
    where = ", ".join(titles[task.name] for task in named)
    text = f"the run {run.run_id} failed" + (f" in {where}" if where else "")
    return f"{text}: {(why or 'the log of its tasks says why').rstrip('.')}."
