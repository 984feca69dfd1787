"""Submits a run and waits for its end, across lost connections and renewed tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dwcp_ml.contract.errors import ErrorCode, RunFailed, RunUnfinished, UsageError
from dwcp_ml.kubeflow.client import (
    APPEAR_SECONDS,
    SUBMIT_SECONDS,
    KubeflowApi,
    KubeflowError,
    RunRequest,
    RunState,
    SubmissionLost,
    SubmissionRejected,
)

_UNAUTHORIZED: Final = 401


@dataclass(frozen=True)
class RetryPolicy:
    """How often Kubeflow is polled, and for how long a failed call is repeated; all in seconds.

    Parameters
    ----------
    first_retry, max_retry
        Wait after the first failure, and the longest one; each wait is twice the one before.
    appear
        How long the run of a lost submission is looked for.
    submission
        How long a submission is retried: the user waits for its link.
    unauthorized
        How long a rejected token is read again from its file, in case it is being renewed.
    """

    poll: float = 5.0
    first_retry: float = 1.0
    max_retry: float = 60.0
    appear: float = APPEAR_SECONDS
    submission: float = 2.0 * SUBMIT_SECONDS
    unauthorized: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


class Screen(Protocol):
    """Shows the progress of a run that is waited for."""

    def show(self, run: RunState) -> None:
        """Show the state of the run."""
        ...

    def warn(self, sentence: str) -> None:
        """Show a failed call, and what is done about it."""
        ...


class _Retries:
    """Counts consecutive failures, waits between them, and raises when the time is up."""

    def __init__(self, policy: RetryPolicy, say: Callable[[str], None], renews: bool) -> None:
        self._policy, self._say, self._renews = policy, say, renews
        self._since: float | None = None
        self._seconds = policy.first_retry

    def failed(self, error: KubeflowError, within: float, longest: float = float("inf")) -> None:
        """Wait, at most ``longest`` seconds.

        The error is raised where a retry can't help, or after ``within`` seconds of failures.
        """
        unauthorized = error.status == _UNAUTHORIZED and self._renews
        if not (error.transient or unauthorized):
            raise error
        now = self._policy.now()
        self._since = now if self._since is None else self._since
        limit = min(within, self._policy.unauthorized) if unauthorized else within
        if now - self._since + self._seconds > limit:
            raise error
        action = "Reading the token again" if unauthorized else "Retrying"
        seconds = min(self._seconds, longest)
        self._say(f"{error} {action} in {seconds:.3g} s.")
        self._policy.sleep(seconds)
        self._seconds = min(2.0 * self._seconds, self._policy.max_retry)

    def succeeded(self) -> None:
        """Reset the waits, and say that Kubeflow responds again if a failure was reported."""
        if self._since is not None:
            self._say("Kubeflow responds again.")
        self._since, self._seconds = None, self._policy.first_retry


def submit(
    kubeflow: KubeflowApi,
    request: RunRequest,
    say: Callable[[str], None],
    *,
    renews: bool = False,
    policy: RetryPolicy | None = None,
) -> str:
    """Submit a run, exactly once, and return its id.

    If the response to a submission is lost, its run is looked for by ``request.submission`` for
    ``policy.appear`` seconds, before it is submitted again. After an internal error it is looked
    for as well, but not submitted again.

    Parameters
    ----------
    say
        Called with one sentence about each failure that is retried.
    renews
        Whether the token comes from a file, so that a rejected one is worth another try.

    Raises
    ------
    UsageError
        If there is a run of that name.
    KubeflowError
        If no server is at the address, or Kubeflow rejects the run, or stops answering for
        ``policy.submission`` seconds.
    """
    policy = policy or RetryPolicy()
    retries = _Retries(policy, say, renews)
    reached = is_free = False
    while not is_free:
        try:
            _check_name(kubeflow, request)
            is_free = True
        except KubeflowError as error:
            reached = reached or error.status is not None
            retries.failed(error, policy.submission if reached else 0.0)
    run_id = ""
    while not run_id:
        try:
            run_id = kubeflow.submit(request)
        except SubmissionLost as error:
            say(f"{error} Looking for the run.")
            run_id = _look_for(kubeflow, request, retries, policy)
            if not run_id and error.is_internal:
                raise SubmissionRejected(str(error), error.status, from_server=True) from error
            if not run_id:
                retries.failed(error, policy.submission)
        except KubeflowError as error:
            retries.failed(error, policy.submission)
    retries.succeeded()
    return run_id


def _look_for(
    kubeflow: KubeflowApi, request: RunRequest, retries: _Retries, policy: RetryPolicy
) -> str:
    """Return the id of the run of a lost submission; empty if it does not appear in time."""
    appears_by = policy.now() + policy.appear
    while True:
        try:
            run_id = kubeflow.find(request.name, request.namespace, request.submission)
        except KubeflowError as error:
            retries.failed(error, policy.submission)
            continue
        left = appears_by - policy.now()
        if run_id or left <= 0.0:
            return run_id
        policy.sleep(min(policy.poll, left))


def _check_name(kubeflow: KubeflowApi, request: RunRequest) -> None:
    """Check that there is no run of the name yet.

    Raises
    ------
    UsageError
        If there is one.
    """
    run_id = kubeflow.find(request.name, request.namespace)
    if run_id:
        raise UsageError(
            f"There is a run '{request.name}' already ({run_id}): choose another --run-name.",
            code=ErrorCode.ALREADY_EXISTS,
            subject=request.name,
        )


def wait(
    kubeflow: KubeflowApi,
    run_id: str,
    timeout_seconds: float,
    screen: Screen,
    *,
    renews: bool = False,
    policy: RetryPolicy | None = None,
) -> RunState:
    """Return a run when it has ended.

    Raises
    ------
    RunUnfinished
        If it has not ended after ``timeout_seconds``; it goes on.
    RunFailed
        If Kubeflow no longer knows the run.
    KubeflowError
        If Kubeflow rejects the request.
    """
    policy = policy or RetryPolicy()
    retries = _Retries(policy, screen.warn, renews)
    deadline = policy.now() + timeout_seconds
    while True:
        try:
            run = kubeflow.run(run_id)
        except KubeflowError as error:
            left = deadline - policy.now()
            if left <= 0:
                raise RunUnfinished(
                    _unfinished(run_id, timeout_seconds, str(error)),
                    code=ErrorCode.TIMEOUT,
                    subject=error.code,
                ) from error
            retries.failed(error, float("inf"), left)
            continue
        retries.succeeded()
        if run is None:
            raise RunFailed(
                f"Kubeflow does not know the run {run_id} any more.",
                code=ErrorCode.MISSING,
                subject=run_id,
            )
        screen.show(run)
        if run.ended:
            return run
        left = deadline - policy.now()
        if left <= 0:
            state = f"it is {(run.state or 'PENDING').lower()}"
            raise RunUnfinished(
                _unfinished(run_id, timeout_seconds, state), code=ErrorCode.TIMEOUT, subject=state
            )
        policy.sleep(min(policy.poll, left))


def _unfinished(run_id: str, seconds: float, state: str) -> str:
    return (
        f"The run {run_id} has not ended after {seconds:g} s ({state.rstrip('.')}); it goes on, "
        f"but this command no longer waits for it."
    )


def failure_of(run: RunState, titles: dict[str, str]) -> str:
    """Return one sentence on why a run has not succeeded.

    Parameters
    ----------
    titles
        Kubeflow's name of a task -> its display name.
    """
    if run.state in ("CANCELED", "SKIPPED"):
        return f"The run {run.run_id} was {'cancelled' if run.state == 'CANCELED' else 'skipped'}."
    if run.state != "FAILED":
        state = (
            f"in the state {run.state}, which is unknown here" if run.state else "without a state"
        )
        return f"The run {run.run_id} ended {state}: see its page in Kubeflow."
    failed = [task for task in run.tasks if task.state == "FAILED"]
    named = [task for task in failed if task.name in titles]
    # What ended a pod may be known of its executor only, which has no display name.
    messages = [task.message for task in (*named, *failed) if task.message]
    cause = messages[0] if messages else run.error
    where = ", ".join(titles[task.name] for task in named)
    text = f"The run {run.run_id} failed" + (f" in {where}" if where else "")
    return f"{text}: {(cause or 'see the log of its tasks').rstrip('.')}."
