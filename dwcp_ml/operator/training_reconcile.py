"""Reconciles a TrainingRun: submits it to Kubeflow once, then copies the run's state to its status.

A run is found by a name made of the object's uid: a crash between the submission and the write of
the run's id does not lead to a second run. A submission is written to the status before it is sent.
Unless the response says that there is no run, it is looked for as long as it may still appear,
before it is submitted again, also by the next process. The pipeline itself makes approved models
the candidates of their ModelRollouts; the operator writes nothing but the status of the
TrainingRun.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict
from dwcp_ml.kubeflow.client import (
    APPEAR_SECONDS,
    SUBMIT_SECONDS,
    KubeflowApi,
    KubeflowError,
    RunRequest,
    RunState,
    SubmissionLost,
)
from dwcp_ml.kubeflow.run_state import CANCELING
from dwcp_ml.kubeflow.verdict import publication_failed, verdict_of
from dwcp_ml.operator.api.convert import to_run_options, version_of
from dwcp_ml.operator.api.parts import KUBERNETES_NAMES, Condition, ObjectMeta, shortened
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.operator.api.training_status import (
    Submission,
    TrainingPhase,
    TrainingReason,
    TrainingRunStatus,
)
from dwcp_ml.operator.conditions import kstatus
from dwcp_ml.operator.events import Event, EventRecorder, NullRecorder
from dwcp_ml.operator.kubeflow_status import read_status, with_run
from dwcp_ml.operator.settings import DEFAULT_INTERVALS, SYSTEM_CLOCK, Clock, Intervals, Key

FIRST_RETRY_SECONDS: Final = 10.0
MAX_RETRY_SECONDS: Final = 300.0
"""Pause after a rejected submission; each is twice the one before."""

Pipelines = Callable[[Sequence[str]], Mapping[str, Any]]
"""Full names of models -> the pipeline that is compiled for them."""


class _Blocked(Exception):
    """The run can't be submitted until the resource or the operator is changed."""

    def __init__(self, reason: TrainingReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _NotSubmitted(Exception):
    """A submission was lost or rejected; ``status`` says so."""

    def __init__(self, status: TrainingRunStatus, error: KubeflowError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


@dataclass
class Trainer:
    """Reconciles TrainingRuns.

    Parameters
    ----------
    kubeflow
        Where runs are submitted; ``None`` if the operator has no Kubeflow.
    """

    api: Api
    kubeflow: KubeflowApi | None
    pipelines: Pipelines
    clock: Clock = SYSTEM_CLOCK
    intervals: Intervals = DEFAULT_INTERVALS
    recorder: EventRecorder = field(default_factory=NullRecorder)

    def reconcile(self, key: Key) -> float | None:
        """Reconcile once; return seconds until the next reconciliation, ``None`` for never.

        Raises
        ------
        KubeError
            If the API server gives no response.
        KubeflowError
            If Kubeflow is unavailable; the status says so.
        """
        body = self.api.get(TRAINING_RUN, *key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return None
        before, is_valid = read_status(body.get("status") or {})
        try:
            after, unavailable = self._outcome(body, key, before)
            after = after.replace(observed_generation=body["metadata"].get("generation", 0))
            after = after.replace(conditions=conditions_of(after, self.clock.wall()))
            stored, _ = read_status(body.get("status") or {})  # may have a submission by now
            if after != stored or not is_valid:
                self.api.replace({**body, "status": after.to_dict()}, status=True)
        except Conflict:
            return self.intervals.conflict_seconds
        if (after.phase, after.reason) != (before.phase, before.reason):
            self._record(body, key, after)
        if unavailable is not None:
            raise unavailable
        return None if after.ended else self.intervals.reconcile_seconds

    def _outcome(
        self, body: dict[str, Any], key: Key, before: TrainingRunStatus
    ) -> tuple[TrainingRunStatus, KubeflowError | None]:
        """Return the next status, and the error if Kubeflow is unavailable; see ``_next``."""
        try:
            return (before if before.ended else self._next(body, key, before)), None
        except _NotSubmitted as failure:
            return failure.status, failure.error if failure.error.transient else None
        except _Blocked as error:
            return before.replace(reason=error.reason, message=shortened(str(error))), None
        except UsageError as error:  # the operator's own settings, such as its token's file
            reason = TrainingReason.KUBEFLOW_NOT_CONFIGURED
            return before.replace(reason=reason, message=shortened(str(error))), None
        except KubeflowError as error:
            reason, text = _reason_of(error, before), shortened(str(error))
            return before.replace(reason=reason, message=text), error if error.transient else None

    def _record(self, body: Mapping[str, Any], key: Key, status: TrainingRunStatus) -> None:
        warning = status.stalled and status.reason is not TrainingReason.RUN_CANCELLED
        uid = body["metadata"].get("uid", "")
        self.recorder.record(Event(key, uid, "TrainingRun", warning, status.reason, status.message))

    def _next(self, body: dict[str, Any], key: Key, before: TrainingRunStatus) -> TrainingRunStatus:
        """Return the status after submitting the run, or after reading its state.

        ``body`` is replaced by what a submission writes.
        """
        if self.kubeflow is None:
            _submission_of(body)
            text = "This operator has no Kubeflow: set --kubeflow."
            raise _Blocked(TrainingReason.KUBEFLOW_NOT_CONFIGURED, text)
        metadata = ObjectMeta.model_validate(body["metadata"])
        cancel = _field(body, "cancel") is True
        name = f"{key[0]}.{key[1]}.{metadata.uid}"
        run_id = before.run_id or self.kubeflow.find(name, key[0])
        if not run_id:
            now, submission = self.clock.wall(), before.submission
            if submission is not None and now < submission.appears_by.timestamp():
                if before.reason is TrainingReason.SUBMISSION_REJECTED:
                    return before  # it was rejected before, too
                raise SubmissionLost(submission.message or "The submission was interrupted.")
            if cancel:
                return _cancelled(before, "It was cancelled before it was submitted.")
            resource, arguments = _submission_of(body)
            if resource.spec.suspend:
                return before.replace(
                    phase=TrainingPhase.SUSPENDED,
                    reason=TrainingReason.SUSPENDED,
                    message="It is submitted when suspend is false.",
                )
            if submission is not None and now < submission.retry_at.timestamp():
                reason = TrainingReason.SUBMISSION_REJECTED
                return before.replace(reason=reason, message=submission.message)
            run_id = self._submit(self.kubeflow, resource, name, arguments, body, before)
        # From here on the spec counts for nothing but cancel: the rules of a newer release may
        # reject what has been submitted.
        before = before.replace(version=version_of(metadata), run_id=run_id, submission=None)
        run = self.kubeflow.run(run_id)
        if run is None:
            text = f"Kubeflow does not know the run {run_id} any more."
            return _failed(before, TrainingReason.RUN_NOT_FOUND, text)
        if cancel and not (run.ended or run.state == CANCELING):
            self.kubeflow.terminate(run_id)
        return self._with_state(body, before, run, self.kubeflow)

    def _submit(
        self,
        kubeflow: KubeflowApi,
        resource: TrainingRun,
        name: str,
        arguments: Mapping[str, Any],
        body: dict[str, Any],
        before: TrainingRunStatus,
    ) -> str:
        spec = resource.spec
        try:
            pipeline = self.pipelines(spec.models)
        except UsageError as error:
            raise _Blocked(TrainingReason.PIPELINE_NOT_COMPILED, str(error)) from error
        namespace = resource.metadata.namespace
        request = RunRequest(
            name=name,
            experiment=spec.experiment,
            namespace=namespace,
            pipeline=pipeline,
            arguments=arguments,
            pipeline_root=spec.pipeline_root or "",
            service_account=spec.service_account_name or "",
        )
        kubeflow.check(request)
        attempts = before.submission.attempts + 1 if before.submission is not None else 1
        now = self.clock.wall()
        appears_by = _time(now + SUBMIT_SECONDS + APPEAR_SECONDS)
        submission = Submission(
            started_at=_time(now), attempts=attempts, appears_by=appears_by, retry_at=appears_by
        )
        status = before.replace(submission=submission)
        body.update(self.api.replace({**body, "status": status.to_dict()}, status=True))
        try:
            return kubeflow.submit(request)
        except KubeflowError as error:
            if error.transient and not isinstance(error, SubmissionLost):
                raise  # nothing was sent that creates a run
            raise _NotSubmitted(self._after_failure(status, submission, error), error) from error

    def _after_failure(
        self, status: TrainingRunStatus, submission: Submission, error: KubeflowError
    ) -> TrainingRunStatus:
        """Return the status after a submission that was lost or rejected."""
        now, is_lost = self.clock.wall(), isinstance(error, SubmissionLost)
        appears_by = now + APPEAR_SECONDS if is_lost else now
        is_rejected = not isinstance(error, SubmissionLost) or error.is_internal
        pause = min(
            FIRST_RETRY_SECONDS * 2.0 ** min(submission.attempts - 1, 30), MAX_RETRY_SECONDS
        )
        message = shortened(str(error))
        submission = submission.replace(
            appears_by=_time(appears_by),
            retry_at=_time(appears_by + pause if is_rejected else appears_by),
            message=message,
        )
        reason = _reason_of(error, status)
        if is_rejected and status.reason is TrainingReason.SUBMISSION_REJECTED:
            reason = status.reason  # a run that is rejected again and again is reported once
        return status.replace(submission=submission, reason=reason, message=message)

    def _with_state(
        self,
        body: Mapping[str, Any],
        before: TrainingRunStatus,
        run: RunState,
        kubeflow: KubeflowApi,
    ) -> TrainingRunStatus:
        status = with_run(before, run)
        if run.state in ("SUCCEEDED", "FAILED"):
            rollouts = self._rollouts_of(body["metadata"]["namespace"], status.version)
            status = status.replace(verdict=verdict_of(run, kubeflow), rollouts=rollouts)
            return _ended(body, status, run)
        if run.state == "CANCELED":
            return _cancelled(status, "It was cancelled.")
        if run.state == "SKIPPED":
            return _failed(status, TrainingReason.RUN_SKIPPED, "Kubeflow skipped the run.")
        if run.ended:
            state = f"in the state '{run.state}', which is unknown here" if run.state else ""
            text = f"The run ended {state or 'and Kubeflow does not say in which state'}."
            return _failed(status, TrainingReason.RUN_STATE_UNKNOWN, text)
        if not run.is_known:
            text = (
                f"Kubeflow reports the state '{run.state}', which is unknown here. The run is read "
                f"again every {self.intervals.reconcile_seconds:g} s."
            )
            return status.replace(
                phase=TrainingPhase.RUNNING,
                reason=TrainingReason.RUN_STATE_UNKNOWN,
                message=shortened(text),
            )
        cancelling = run.state == CANCELING
        return status.replace(
            phase=TrainingPhase.RUNNING,
            reason=TrainingReason.RUNNING,
            message="Kubeflow is cancelling it." if cancelling else "It runs on Kubeflow.",
        )

    def _rollouts_of(self, namespace: str, version: str) -> tuple[str, ...]:
        """Return the ModelRollouts whose candidate is a bundle of this version."""
        names = {
            rollout["metadata"]["name"]
            for rollout in self.api.list(MODEL_ROLLOUT, namespace)
            if _candidate_version(rollout) == version
        }
        return tuple(sorted(names & KUBERNETES_NAMES.keys()))


def conditions_of(status: TrainingRunStatus, now: float) -> tuple[Condition, ...]:
    """Return the conditions of a status, as kstatus defines them.

    Parameters
    ----------
    now
        Epoch seconds.
    """
    return kstatus(
        status.conditions, status.reason, status.message, status.observed_generation, int(now),
        ready=status.reason is TrainingReason.GATE_APPROVED, stalled=status.stalled,
    )  # fmt: skip


def pipelines_in(directory: Path) -> Pipelines:
    """Return a function that reads compiled pipelines: ``training.yaml`` for all four models.

    For fewer models it reads ``training-<short names, sorted>.yaml``, such as
    ``training-bandwidth.yaml``. It raises ``UsageError`` if there is no such file.
    """

    def find(models: Sequence[str]) -> Mapping[str, Any]:
        names = sorted(model_spec(name).short_name for name in models)
        file = "training.yaml" if set(models) == set(MODELS) else f"training-{'-'.join(names)}.yaml"
        path = directory / file
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(
                f"There is no compiled pipeline for {', '.join(names)} in this operator's image "
                f"({file}): compile one, or train all four."
            ) from error
        if len(documents) == 1:
            return {"pipeline_spec": documents[0]}
        return {"pipeline_spec": documents[0], "platform_spec": documents[1]}

    return find


def _submission_of(body: Mapping[str, Any]) -> tuple[TrainingRun, Mapping[str, Any]]:
    """Return the resource, and the arguments of its run.

    Raises
    ------
    _Blocked
        If the spec is invalid.
    """
    try:
        resource = TrainingRun.parse({**body, "status": None})
        options = to_run_options(resource, version_of(resource.metadata))
        return resource, options.pipeline_arguments()
    except UsageError as error:
        raise _Blocked(TrainingReason.INVALID_SPEC, str(error)) from error


def _field(body: Mapping[str, Any], name: str) -> Any:
    """Return a field of a spec that may be invalid; ``None`` if it has no such field."""
    spec = body.get("spec")
    return spec.get(name) if isinstance(spec, dict) else None


def _time(seconds: float) -> datetime:
    """Return a time in whole seconds, as it is stored; rounded up, so that no wait is shorter."""
    return datetime.fromtimestamp(math.ceil(seconds), UTC)


def _reason_of(error: KubeflowError, status: TrainingRunStatus) -> TrainingReason:
    if error.transient:
        return TrainingReason.KUBEFLOW_UNAVAILABLE
    return TrainingReason.REQUEST_REJECTED if status.run_id else TrainingReason.SUBMISSION_REJECTED


def _ended(body: Mapping[str, Any], status: TrainingRunStatus, run: RunState) -> TrainingRunStatus:
    """Return the status of a run that has ended; without a verdict it counts as failed."""
    if run.state == "FAILED":
        if status.verdict is not None and publication_failed(run):
            text = (
                f"The gate said {status.verdict}, but not every model that it approved became a "
                f"candidate: see the log of the task publish-candidate in Kubeflow."
            )
            return _failed(status, TrainingReason.PUBLICATION_FAILED, text)
        text = run.error or "A task failed: see its log in Kubeflow."
        return _failed(status, TrainingReason.RUN_FAILED, text)
    if status.verdict is None:
        text = "The run ended, but Kubeflow does not show the gate's verdict."
        return _failed(status, TrainingReason.VERDICT_UNKNOWN, text)
    approved = status.verdict == "APPROVED"
    text = f"The gate said {status.verdict}."
    if _field(body, "storagePrefix") is None:
        text += " Nothing is rolled out, because storagePrefix is not set."
    return status.replace(
        phase=TrainingPhase.SUCCEEDED,
        reason=TrainingReason.GATE_APPROVED if approved else TrainingReason.GATE_REJECTED,
        message=text,
    )


def _failed(status: TrainingRunStatus, reason: TrainingReason, text: str) -> TrainingRunStatus:
    return status.replace(phase=TrainingPhase.FAILED, reason=reason, message=shortened(text))


def _cancelled(status: TrainingRunStatus, text: str) -> TrainingRunStatus:
    return status.replace(
        phase=TrainingPhase.CANCELLED, reason=TrainingReason.RUN_CANCELLED, message=text
    )


def _candidate_version(rollout: Mapping[str, Any]) -> Any:
    """Return the version of a ModelRollout's candidate; ``None`` if it has none."""
    spec = rollout.get("spec")
    candidate = spec.get("candidate") if isinstance(spec, dict) else None
    return candidate.get("version") if isinstance(candidate, dict) else None
