"""Whether a training run is started now, from the runs and rollouts that there are; pure.

All state is in the cluster: the TrainingRuns of a retraining, found by their label, and the
ModelRollouts that they published candidates for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from dwcp_ml.contract.record import Record
from dwcp_ml.kube.api import Object
from dwcp_ml.operator.api.parts import ObjectMeta
from dwcp_ml.operator.api.training_status import TrainingPhase
from dwcp_ml.operator.conditions import read_status as read_rollout_status
from dwcp_ml.operator.kubeflow_status import read_status as read_training_status
from dwcp_ml.retraining.settings import LABEL, Retraining, Window
from dwcp_ml.rollout.status import ENDED, Phase

ROUNDING: Final = 1e-9

_JITTER: Final = timedelta(minutes=15)
"""A daily job starts seconds earlier or later than the day before; at most 5 % of a cool-down."""

_TIMES: Final = TypeAdapter(tuple[AwareDatetime, AwareDatetime])


class Skip(StrEnum):
    """Why no run is started."""

    SUSPENDED = "Suspended"
    """``suspend`` of the retraining is true."""

    RUN_UNDER_WAY = "RunUnderWay"
    """A run of the retraining has not ended, or was created at the same moment."""

    ROLLOUT_UNDER_WAY = "RolloutUnderWay"
    """A candidate of one of the models is being rolled out; another would replace it."""

    COOLING_DOWN = "CoolingDown"
    """The last run was started too short a time ago."""

    TOO_LITTLE_NEW_DATA = "TooLittleNewData"
    """Too little of the window is new since the last run that reached a verdict."""


class PastRun(Record):
    """A TrainingRun of the retraining."""

    name: str
    uid: str = ""
    number: int = Field(ge=0)
    created: AwareDatetime
    ended: bool
    window: tuple[AwareDatetime, AwareDatetime] | None = Field(
        default=None, description="start and end; null if the run has no such window"
    )
    has_verdict: bool = Field(default=False, description="whether the gate decided")
    version: str = Field(default="", description="version of its bundles")
    rollouts: tuple[str, ...] = Field(
        default=(), description="the ModelRollouts that had a bundle of it as candidate at its end"
    )


class LiveRollout(Record):
    """A ModelRollout of one of the models."""

    name: str
    version: str = Field(default="", description="version of its candidate; empty without one")
    phase: Phase | None = Field(default=None, description="null before the operator has seen it")


class Decision(Record):
    """Whether a run is started, and why not."""

    retraining: str
    trigger: str
    skip: Skip | None = Field(description="null if a run is started")
    run: str = Field(
        default="",
        description="name of the run that is started; of a skipped one, the run or rollout that it "
        "waits for",
    )
    window_start: AwareDatetime
    window_end: AwareDatetime
    not_before: AwareDatetime | None = Field(
        default=None, description="end of the cool-down, if it is what is waited for"
    )
    new_data: float | None = Field(
        default=None, description="share of the window that is new; null without an earlier run"
    )
    needed_new_data: float = Field(default=0.0, description="the share that is needed")

    @property
    def number(self) -> int:
        """The number of the run that is started."""
        return int(self.run.rpartition("-")[2])


def decide(
    retraining: Retraining,
    trigger: str,
    now: datetime,
    runs: Sequence[PastRun],
    rollouts: Iterable[LiveRollout],
    last_number: int = 0,
) -> Decision:
    """Decide whether to start a run.

    Parameters
    ----------
    now
        The current time, with a time zone.
    runs
        All runs of the retraining, in any order.
    rollouts
        Those of the retraining's models.
    last_number
        The largest number in a name that is taken by a run of another origin, see ``number_of``.
    """
    window = retraining.window_at(now)
    newest = max(runs, key=lambda run: run.number, default=None)
    start = Decision(
        retraining=retraining.name,
        trigger=trigger,
        skip=None,
        run=f"{retraining.name}-{max(last_number, newest.number if newest else 0) + 1}",
        window_start=window.start,
        window_end=window.end,
    )
    if retraining.suspend:
        return start.replace(skip=Skip.SUSPENDED, run="")
    for run in runs:
        if not run.ended:
            return start.replace(skip=Skip.RUN_UNDER_WAY, run=run.name)
    live = list(rollouts)
    for rollout in live:
        if rollout.version and rollout.phase not in ENDED:
            return start.replace(skip=Skip.ROLLOUT_UNDER_WAY, run=rollout.name)
    if newest is None:
        return start
    cooldown = timedelta(hours=retraining.cooldown_hours)
    not_before = newest.created + cooldown
    if now < not_before - min(cooldown / 20, _JITTER):
        return start.replace(skip=Skip.COOLING_DOWN, run=newest.name, not_before=not_before)
    return _with_new_data(retraining, start, window, runs, live)


def _with_new_data(
    retraining: Retraining,
    start: Decision,
    window: Window,
    runs: Sequence[PastRun],
    rollouts: Sequence[LiveRollout],
) -> Decision:
    """Return the decision by the share of the window that no verdict has been given on.

    A run without a verdict, because a task failed or the telemetry was refused, has used nothing,
    unless it has published a candidate: Kubeflow may have lost it after that.
    """
    published = {rollout.version for rollout in rollouts if rollout.version}
    judged = [
        run for run in runs
        if run.window is not None and (run.has_verdict or run.version in published)
    ]  # fmt: skip
    if not judged:
        return start
    last = max(judged, key=lambda run: run.number)
    assert last.window is not None  # noqa: S101 - said to mypy: it is in `judged`
    needed = retraining.minimum_new_data
    if any(_was_rolled_back(last, rollout) for rollout in rollouts):
        needed = max(needed, retraining.minimum_new_data_after_rollback)
    share = window.new_share(Window(*last.window))
    decision = start.replace(new_data=share, needed_new_data=needed)
    if share < needed - ROUNDING:
        return decision.replace(skip=Skip.TOO_LITTLE_NEW_DATA, run=last.name)
    return decision


def _was_rolled_back(run: PastRun, rollout: LiveRollout) -> bool:
    """Return whether the operator rolled a run's candidate back, or a user put another there.

    The user may have restored the version before: the operator's status is about that one then.
    """
    if not run.version or rollout.version != run.version:
        return rollout.name in run.rollouts
    return rollout.phase is Phase.ROLLED_BACK


def superfluous(retraining: Retraining, runs: Iterable[PastRun]) -> list[PastRun]:
    """Return the ended runs beyond the retraining's limit, oldest first."""
    ended = sorted((run for run in runs if run.ended), key=lambda run: run.number)
    return ended[: max(len(ended) - retraining.history_limit, 0)]


def number_of(retraining: Retraining, body: Object) -> int | None:
    """Return the number in the name of a TrainingRun; None if it is no name of the retraining."""
    prefix, _, number = body["metadata"]["name"].rpartition("-")
    is_number = number.isascii() and number.isdecimal()
    return int(number) if prefix == retraining.name and is_number else None


def past_run(retraining: Retraining, body: Object) -> PastRun | None:
    """Return a TrainingRun as a run of the retraining; None if it lacks its label or a number.

    A phase that can't be read counts as one of a run that has not ended: another release of the
    operator wrote it.
    """
    metadata = ObjectMeta.model_validate(body["metadata"])
    number = number_of(retraining, body)
    if number is None or metadata.labels.get(LABEL) != retraining.name:
        return None
    status, _ = read_training_status(body.get("status") or {})
    return PastRun(
        name=metadata.name,
        uid=metadata.uid,
        number=number,
        created=datetime.fromisoformat(metadata.creation_timestamp),
        ended=status.ended,
        window=_window_of(body),
        has_verdict=status.verdict is not None and status.phase is not TrainingPhase.CANCELLED,
        version=status.version,
        rollouts=status.rollouts,
    )


def live_rollout(body: Object) -> LiveRollout:
    """Return a ModelRollout by what of it a decision needs.

    The candidate is that of its spec. While the status is about the one before, the phase is
    unknown.
    """
    version = ((body.get("spec") or {}).get("candidate") or {}).get("version") or ""
    name = body["metadata"]["name"]
    status = read_rollout_status(body.get("status") or {})
    seen = status.candidate or status.stable
    is_current = seen is not None and seen.version == version
    return LiveRollout(name=name, version=version, phase=status.phase if is_current else None)


def _window_of(body: Object) -> tuple[datetime, datetime] | None:
    data = (body.get("spec") or {}).get("data") or {}
    try:
        start, end = _TIMES.validate_python((data.get("startTime"), data.get("endTime")))
    except ValidationError:
        return None
    return (start, end) if start < end else None


def sentence(decision: Decision) -> str:
    """Return the decision as one sentence."""
    name, run = decision.retraining, decision.run
    window = f"{decision.window_start:%Y-%m-%d %H:%M} to {decision.window_end:%Y-%m-%d %H:%M} UTC"
    match decision.skip:
        case None:
            return f"{name}: TrainingRun {run} is started on the telemetry of {window}."
        case Skip.SUSPENDED:
            return f"{name}: no run is started, because the retraining is suspended."
        case Skip.RUN_UNDER_WAY:
            return f"{name}: no run is started, because TrainingRun {run} has not ended."
        case Skip.ROLLOUT_UNDER_WAY:
            return (
                f"{name}: no run is started, because the candidate of ModelRollout {run} is still "
                "being rolled out."
            )
        case Skip.COOLING_DOWN:
            return (
                f"{name}: no run is started before {decision.not_before:%Y-%m-%d %H:%M} UTC, the "
                f"end of the cool-down after TrainingRun {run}."
            )
        case Skip.TOO_LITTLE_NEW_DATA:
            return (
                f"{name}: no run is started, because {decision.new_data or 0.0:.0%} of the window "
                f"from {window} is new since TrainingRun {run}, and "
                f"{decision.needed_new_data:.0%} is needed."
            )
