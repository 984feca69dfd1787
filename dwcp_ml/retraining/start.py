"""Starts a training run of a retraining on a cluster, if it is time for one.

Two processes that decide at the same moment see the same runs, so they create a run of the same
name, and the API server lets one of them.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from dwcp_ml.contract.models import model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict, KubeError
from dwcp_ml.operator.settings import SYSTEM_CLOCK, Clock
from dwcp_ml.retraining.decide import (
    Decision,
    LiveRollout,
    PastRun,
    Skip,
    decide,
    live_rollout,
    number_of,
    past_run,
    superfluous,
)
from dwcp_ml.retraining.settings import Retraining, Window

MANAGER: Final = "dwcp-ml-retraining"
"""The field manager of the TrainingRuns."""

_LOG = logging.getLogger("dwcp_ml.retraining")


def start(
    api: Api,
    namespace: str,
    retraining: Retraining,
    trigger: str,
    clock: Clock = SYSTEM_CLOCK,
    *,
    dry_run: bool = False,
) -> Decision:
    """Create a TrainingRun if the decision is to start one, and delete superfluous ones.

    Parameters
    ----------
    namespace
        Of the runs, and of the ModelRollouts that they publish candidates for.
    trigger
        What asks for the run; it is written into its bundles.
    dry_run
        Change nothing.

    Raises
    ------
    KubeError
        If the API server gives no response, or refuses the run.
    """
    # Runs without the label, too: a name that one of them has can't be given to another.
    bodies, now = api.list(TRAINING_RUN, namespace), datetime.fromtimestamp(clock.wall(), UTC)
    runs = [run for body in bodies if (run := past_run(retraining, body)) is not None]
    last_number = max((number_of(retraining, body) or 0 for body in bodies), default=0)
    rollouts = _rollouts(api, namespace, retraining)
    decision = decide(retraining, trigger, now, runs, rollouts, last_number)
    if dry_run:
        return decision
    if decision.skip is None:
        window = Window(decision.window_start, decision.window_end)
        try:
            api.create(retraining.training_run(namespace, decision.number, window, trigger))
        except Conflict:
            return decision.replace(skip=Skip.RUN_UNDER_WAY)
    _delete(api, namespace, retraining, runs)
    return decision


def _rollouts(api: Api, namespace: str, retraining: Retraining) -> list[LiveRollout]:
    """Return the ModelRollouts that the pipeline publishes the candidates of the models in."""
    names = [model_spec(name).kubernetes_name for name in retraining.models]
    bodies = [api.get(MODEL_ROLLOUT, namespace, name) for name in names]
    return [live_rollout(body) for body in bodies if body is not None]


def _delete(api: Api, namespace: str, retraining: Retraining, runs: list[PastRun]) -> None:
    """Delete the oldest ended runs; what can't be deleted now is deleted another time."""
    for run in superfluous(retraining, runs):
        try:
            api.delete(TRAINING_RUN, namespace, run.name, uid=run.uid)
        except KubeError as error:
            _LOG.warning("%s", error)
            return
