"""One look at a TrainingRun: hand it to Kubeflow, and mirror it with the gate's verdict.

A run is found again by a name made of the object's uid: a crash between handing it over and
writing its id down does not make a second one. What the gate approves the pipeline itself makes
the candidate of a ModelRollout; here nothing but the TrainingRun's status is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict
from dwcp_ml.kubeflow.client import Kubeflow, RunRequest, RunState
from dwcp_ml.kubeflow.verdict import publication_failed, verdict_of
from dwcp_ml.operator.api.convert import to_run_options, version_of
from dwcp_ml.operator.api.parts import kubernetes_names, shortened, with_condition
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.operator.api.training_status import (
    TrainingPhase,
    TrainingRunStatus,
)
from dwcp_ml.operator.conditions import REFUSED, with_trouble
from dwcp_ml.operator.kubeflow_status import mirrored, told_before
from dwcp_ml.operator.settings import SYSTEM, USUAL, Clock, Key, Pace
from dwcp_ml.operator.telling import Happening, Teller, nobody

COMPLETE: Final = "Complete"
APPROVED: Final = "Approved"

Pipelines = Callable[[Sequence[str]], Mapping[str, Any]]
"""Full names of models -> the pipeline that is compiled for them."""

_ENDED: Final = (TrainingPhase.SUCCEEDED, TrainingPhase.FAILED, TrainingPhase.CANCELLED)


@dataclass
class Trainer:
    """Looks at TrainingRuns.

    Parameters
    ----------
    api
        Reads and writes.
    kubeflow
        Who trains; ``None`` refuses every run.
    pipelines
        Where compiled pipelines come from.
    clock, pace
        When it is, and how often to look.
    tell
        Tells people what happened.
    """

    api: Api
    kubeflow: Kubeflow | None
    pipelines: Pipelines
    clock: Clock = SYSTEM
    pace: Pace = USUAL
    tell: Teller = nobody

    def reconcile(self, key: Key) -> float | None:
        """Look once; return seconds until the next look, ``None`` for never.

        Raises
        ------
        KubeError
            If the API server does not answer.
        KubeflowError
            If Kubeflow does not.
        """
        body = self.api.get(TRAINING_RUN, *key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return None
        before, is_whole = told_before(body.get("status") or {})
        after = before
        resource, refused = None, ("", "")
        try:
            if before.phase not in _ENDED:
                resource = TrainingRun.parse({**body, "status": None})
                after = self._next(resource, key, before)
        except UsageError as error:
            refused = ("Malformed" if resource is None else "NotRun", str(error))
        generation = body["metadata"].get("generation", 0)
        after = after.replace(observed_generation=generation)
        after = self._with_conditions(after, *refused)
        if after != before or not is_whole:
            try:
                self.api.replace({**body, "status": after.to_dict()}, status=True)
            except Conflict:
                return self.pace.conflict_seconds
            if after.phase is not before.phase:
                warning = after.phase is TrainingPhase.FAILED
                uid = body["metadata"].get("uid", "")
                self.tell(Happening(key, uid, "TrainingRun", warning, after.phase, after.reason))
        return None if after.phase in _ENDED else self.pace.look_seconds

    def _next(
        self, resource: TrainingRun, key: Key, before: TrainingRunStatus
    ) -> TrainingRunStatus:
        if self.kubeflow is None:
            raise UsageError("this operator was given no Kubeflow.")
        name = f"{key[0]}.{key[1]}.{resource.metadata.uid}"
        run_id = before.run_id or self.kubeflow.find(name, key[0])
        if not run_id:
            if resource.spec.cancel:
                return _at(before, TrainingPhase.CANCELLED, "cancelled before it began.")
            if resource.spec.suspend:
                return _at(before, TrainingPhase.SUSPENDED, "waiting until suspend is false.")
            run_id = self.kubeflow.submit(self._order(resource, key, name))
        before = before.replace(version=version_of(resource))
        run = self.kubeflow.run(run_id)
        if run is None:
            text = f"Kubeflow does not know the run {run_id} any more."
            return _at(before, TrainingPhase.FAILED, text, run_id=run_id)
        if resource.spec.cancel and run.state in ("PENDING", "RUNNING", "PAUSED"):
            self.kubeflow.terminate(run_id)
        return self._mirror(resource, key, before, run, self.kubeflow)

    def _order(self, resource: TrainingRun, key: Key, name: str) -> RunRequest:
        spec = resource.spec
        return RunRequest(
            name=name,
            experiment=spec.experiment,
            namespace=key[0],
            pipeline=self.pipelines(spec.models),
            arguments=to_run_options(resource, version_of(resource)).pipeline_arguments(),
            pipeline_root=spec.pipeline_root or "",
            service_account=spec.service_account_name or "",
        )

    def _mirror(
        self,
        resource: TrainingRun,
        key: Key,
        before: TrainingRunStatus,
        run: RunState,
        kubeflow: Kubeflow,
    ) -> TrainingRunStatus:
        told = mirrored(before, run)
        if run.state in ("SUCCEEDED", "FAILED"):
            told = told.replace(
                recommendation=verdict_of(run, kubeflow),
                rollouts=self._rollouts_of(key[0], told.version),
            )
            return _ended(resource, told, run)
        if run.state in ("CANCELED", "CANCELING"):
            return _at(told, TrainingPhase.CANCELLED, "ended by a person.")
        return _at(told, TrainingPhase.RUNNING, "Kubeflow has it.")

    def _rollouts_of(self, namespace: str, version: str) -> tuple[str, ...]:
        """Return the ModelRollouts that the run was handed over to."""
        found = {
            one["metadata"]["name"]
            for one in self.api.list(MODEL_ROLLOUT, namespace)
            if _candidate_version(one) == version
        }
        return tuple(sorted(found & kubernetes_names().keys()))

    def _with_conditions(
        self, status: TrainingRunStatus, refused: str, sentence: str
    ) -> TrainingRunStatus:
        """Return the status with its conditions; ``refused`` says why in a word, if it is."""
        now, generation = self.clock.wall(), status.observed_generation
        reason = sentence or status.reason
        status = status.replace(reason=shortened(reason))
        before = with_trouble(status.conditions, REFUSED, refused, reason, now, generation)
        at = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
        ended = status.phase in _ENDED
        approved = None if status.recommendation is None else status.recommendation == "APPROVED"
        conditions = with_condition(
            before, COMPLETE, ended, status.phase, status.reason, at=at, generation=generation,
        )  # fmt: skip
        conditions = with_condition(
            conditions, APPROVED, approved, status.phase, status.reason, at=at,
            generation=generation,
        )  # fmt: skip
        return status.replace(conditions=conditions)


def pipelines_in(directory: Path) -> Pipelines:
    """Return what finds compiled pipelines: ``training.yaml`` for all four models.

    For fewer it is ``training-<short names, sorted>.yaml``, such as ``training-bandwidth.yaml``.
    """

    def find(models: Sequence[str]) -> Mapping[str, Any]:
        names = sorted(model_spec(one).short_name for one in models)
        file = "training.yaml" if set(models) == set(MODELS) else f"training-{'-'.join(names)}.yaml"
        path = directory / file
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(
                f"there is no compiled pipeline for {', '.join(names)} in this operator's image "
                f"({file}): compile one, or train all four."
            ) from error
        if len(documents) == 1:
            return {"pipeline_spec": documents[0]}
        return {"pipeline_spec": documents[0], "platform_spec": documents[1]}

    return find


def _ended(resource: TrainingRun, told: TrainingRunStatus, run: RunState) -> TrainingRunStatus:
    """Return the end of a run; without the gate's verdict it has failed, whatever its tasks say."""
    said = told.recommendation
    if run.state == "FAILED":
        text = run.error or "a task failed; its log in Kubeflow says why."
        if said is not None and publication_failed(run):
            text = (
                f"the gate says {said}, and not every model that it approved became a candidate; "
                f"the log of the task publish-candidate in Kubeflow says why."
            )
        return _at(told, TrainingPhase.FAILED, text)
    if said is None:
        text = "it ended, and Kubeflow does not tell what the gate said."
        return _at(told, TrainingPhase.FAILED, text)
    text = f"the gate says {said}."
    if resource.spec.storage_prefix is None:
        text += " Without storagePrefix nothing is rolled out: no address is known."
    return _at(told, TrainingPhase.SUCCEEDED, text)


def _candidate_version(rollout: Mapping[str, Any]) -> Any:
    """Return the version of a ModelRollout's candidate, as far as it has one."""
    spec = rollout.get("spec")
    candidate = spec.get("candidate") if isinstance(spec, dict) else None
    return candidate.get("version") if isinstance(candidate, dict) else None


def _at(
    status: TrainingRunStatus, phase: TrainingPhase, reason: str, **changes: Any
) -> TrainingRunStatus:
    return status.replace(**changes, phase=phase, reason=shortened(reason))
