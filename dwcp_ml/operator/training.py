"""One look at a TrainingRun: hand it to Kubeflow, mirror it, and pass the gate's answer on.

A run is found again by a name made of the object's uid: a crash between handing it over and
writing its id down does not make a second one. What the gate approved becomes, or changes, the
ModelRollout of that model; nothing else of a ModelRollout that is there is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import ValidationError

from dwcp_ml.adapters.kube import MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict, Invalid
from dwcp_ml.adapters.kubeflow import Kubeflow, Order, RunState
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.operator.mirroring import mirrored, told_before
from dwcp_ml.operator.resources.convert import answers_of, bare_digest, to_pipeline_arguments
from dwcp_ml.operator.resources.parts import shortened, with_condition
from dwcp_ml.operator.resources.training_run import TrainingRun
from dwcp_ml.operator.resources.training_status import (
    TrainingPhase,
    TrainingRunStatus,
)
from dwcp_ml.operator.settings import SYSTEM, USUAL, Clock, Key, Pace
from dwcp_ml.operator.showing import REFUSED, with_trouble
from dwcp_ml.operator.telling import Happening, Teller, nobody
from dwcp_ml.stages.manifests import model_rollout, storage_uri

COMPLETE: Final = "Complete"
APPROVED: Final = "Approved"
REPORT: Final = "report"
"""The gate's output that holds its answer."""

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
        if resource is not None and after.phase is TrainingPhase.SUCCEEDED:
            # Before the end is stored: a crash in between makes them again.
            after = self._passed_on(resource, key, after)
        generation = body["metadata"].get("generation", 0)
        after = after.model_copy(update={"observed_generation": generation})
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
        run = self.kubeflow.run(run_id)
        if run is None:
            text = f"Kubeflow does not know the run {run_id} any more."
            return _at(before, TrainingPhase.FAILED, text, run_id=run_id)
        if resource.spec.cancel and run.state in ("PENDING", "RUNNING", "PAUSED"):
            self.kubeflow.terminate(run_id)
        return self._mirror(resource, before, run)

    def _order(self, resource: TrainingRun, key: Key, name: str) -> Order:
        spec = resource.spec
        return Order(
            name=name,
            experiment=spec.experiment,
            namespace=key[0],
            pipeline=self.pipelines(spec.models),
            arguments=to_pipeline_arguments(resource),
            pipeline_root=spec.pipeline_root or "",
            service_account=spec.service_account_name or "",
        )

    def _mirror(
        self, resource: TrainingRun, before: TrainingRunStatus, run: RunState
    ) -> TrainingRunStatus:
        told = mirrored(before, run)
        if run.state == "SUCCEEDED":
            return self._answered(resource, told, run)
        if run.state == "FAILED":
            text = run.error or "a task failed; its log in Kubeflow says why."
            return _at(told, TrainingPhase.FAILED, text)
        if run.state in ("CANCELED", "CANCELING"):
            return _at(told, TrainingPhase.CANCELLED, "ended by a person.")
        return _at(told, TrainingPhase.RUNNING, "Kubeflow has it.")

    def _answered(
        self, resource: TrainingRun, told: TrainingRunStatus, run: RunState
    ) -> TrainingRunStatus:
        """Read what the gate said; without it a run has failed, whatever its tasks say."""
        report_id = (run.artifacts or {}).get(REPORT)
        if report_id is None or self.kubeflow is None:
            text = "it ended, and Kubeflow does not say where the gate's report is."
            return _at(told, TrainingPhase.FAILED, text)
        try:
            report = SessionReport.model_validate_json(self.kubeflow.artifact(report_id))
        except ValidationError as error:
            text = f"the gate's report can't be read: {error.errors()[0]['msg']}."
            return _at(told, TrainingPhase.FAILED, text)
        prefix = resource.spec.storage_prefix or ""
        uris = {
            name: storage_uri(prefix, "", model_spec(name), one.version)
            for name, one in report.models.items()
            if prefix
        }
        said = report.production_readiness.deployment_recommendation
        text = f"the gate says {said}."
        if not prefix:
            text += " Without storagePrefix nothing is rolled out: no address is known."
        answers = answers_of(report, uris)
        return _at(told, TrainingPhase.SUCCEEDED, text, recommendation=said, answers=answers)

    def _passed_on(
        self, resource: TrainingRun, key: Key, told: TrainingRunStatus
    ) -> TrainingRunStatus:
        """Make each approved bundle the candidate of its ModelRollout; say which is not taken.

        A rollout that takes none, because ``abort`` is on for one, must not hold the run for ever.
        """
        mode: Literal["standard", "knative"] = (
            "knative" if resource.spec.deployment_mode == "Knative" else "standard"
        )
        for one in told.answers:
            if one.recommendation != "APPROVED" or not one.digest or not one.storage_uri:
                continue
            made = model_rollout(
                model_spec(one.model), one.version, one.storage_uri, bare_digest(one.digest), mode
            )
            made["metadata"]["namespace"] = key[0]
            try:
                self._offer(made)
            except Invalid as error:
                told = _at(told, told.phase, f"{told.reason} Not passed on: {error}")
        return told

    def _offer(self, made: dict[str, Any]) -> None:
        """Make a ModelRollout, or its candidate that of the one that is there."""
        metadata, wanted = made["metadata"], made["spec"]["candidate"]
        found = self.api.get(MODEL_ROLLOUT, metadata["namespace"], metadata["name"])
        if found is None:
            self.api.create(made)
            return
        spec = found.get("spec")
        if not isinstance(spec, dict):
            self.api.replace({**found, "spec": made["spec"]})
        elif spec.get("candidate") != wanted:
            self.api.replace({**found, "spec": {**spec, "candidate": wanted}})

    def _with_conditions(
        self, status: TrainingRunStatus, refused: str, sentence: str
    ) -> TrainingRunStatus:
        """Return the status with its conditions; ``refused`` says why in a word, if it is."""
        now, generation = self.clock.wall(), status.observed_generation
        reason = sentence or status.reason
        status = status.model_copy(update={"reason": shortened(reason)})
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
        return status.model_copy(update={"conditions": conditions})


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


def _at(
    status: TrainingRunStatus, phase: TrainingPhase, reason: str, **changes: Any
) -> TrainingRunStatus:
    return status.model_copy(update={**changes, "phase": phase, "reason": shortened(reason)})
