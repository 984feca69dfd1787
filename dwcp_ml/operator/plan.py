"""One look at a rollout: from what is remembered and seen to what to remember and do. All pure.

``decide`` knows one InferenceService with one stable and one candidate. What is particular to a
cluster stands here: the stable may be exchanged by somebody else, another candidate may be in the
way, the candidate has to be deployed before it can get traffic, and has to go when it was taken
back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from dwcp_ml.kube.kserve import Live
from dwcp_ml.operator.api.state import Memory
from dwcp_ml.operator.observation import is_same, revision_of
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

Doing = Literal["nothing", "set", "promote", "drop", "remove"]
"""What to do to the InferenceService: ``drop`` takes out a canary, ``remove`` the whole service."""


@dataclass(frozen=True)
class Step:
    """What one look comes to.

    Parameters
    ----------
    memory
        To be stored, if it is worth it, before anything is done.
    doing
        To the InferenceService.
    percent
        For ``set``.
    trouble
        A sentence for people if nothing can go on; empty else.
    """

    memory: Memory
    doing: Doing = "nothing"
    percent: int = 0
    trouble: str = ""


def recalled(  # noqa: PLR0911 - a list of situations, each with its own answer
    memory: Memory | None, candidate: Revision, live: Live, now: float
) -> Memory:
    """Return the memory with what is live taken into account.

    The stable of a new candidate is what the InferenceService says, never a guess; one that
    somebody else exchanged makes the evidence against the former worthless.

    Parameters
    ----------
    memory
        What is remembered; ``None`` for nothing.
    now
        Epoch seconds.
    """
    before = memory.rollout if memory is not None else RolloutStatus()
    stable = revision_of(live.stable) if live.exists and live.stable is not None else None
    is_stable = live.exists and is_same(live.stable, candidate)
    is_known = before.revision is not None and before.revision.digest == candidate.digest
    if memory is None or not is_known:
        if is_stable:
            return Memory(rollout=_stable_already(before, candidate, now))
        return Memory(rollout=before, stable=stable)
    if before.ended:
        return _reopened(memory, live, now)
    if before.phase is Phase.PROMOTING or (is_stable and memory.stable is None):
        return memory
    if is_stable:
        if before.phase is Phase.ROLLING_BACK:
            return memory
        return Memory(rollout=_stable_already(before, candidate, now))
    if stable is None or (memory.stable is not None and is_same(live.stable, memory.stable)):
        return memory
    if before.phase is Phase.ROLLING_BACK:
        return Memory(rollout=before, stable=stable)
    return Memory(rollout=RolloutStatus(barred=before.barred), stable=stable)


def _stable_already(before: RolloutStatus, candidate: Revision, now: float) -> RolloutStatus:
    """Return the status of a candidate that took the stable's place without us, or long ago."""
    fresh = RolloutStatus(
        revision=candidate, started_at=now, last_look=now, barred=before.barred,
        observed_generation=before.observed_generation,
    )  # fmt: skip
    text = f"{candidate.version} is the stable already."
    return fresh.told(now, Phase.PROMOTING, text, target_percent=100)


def _reopened(memory: Memory, live: Live, now: float) -> Memory:
    """Take up a rollout that ended on a read that was not true any more.

    Where the candidate still is a canary, neither end has come about.
    """
    rollout = memory.rollout
    if not live.exists or not is_same(live.candidate, rollout.revision or Revision(**_NOBODY)):
        return memory
    if rollout.phase is Phase.ROLLED_BACK:
        text = f"{_name(rollout)} was rolled back, and is still there: taking it out."
        return memory.replace(rollout=rollout.told(now, Phase.ROLLING_BACK, text, target_percent=0))
    text = f"{_name(rollout)} was promoted, and is not the stable yet."
    return memory.replace(rollout=rollout.told(now, Phase.PROMOTING, text))


_NOBODY: Final = {"version": "", "digest": ""}


def _name(rollout: RolloutStatus) -> str:
    return rollout.revision.version if rollout.revision is not None else ""


def next_step(  # noqa: PLR0911 - a list of situations, each with its own answer
    spec: RolloutSpec, memory: Memory, live: Live, seen: Observation, now: float
) -> Step:
    """Decide about one look.

    Parameters
    ----------
    spec
        What is asked for, with the stable of ``memory``.
    memory
        As ``recalled`` returned it.
    live, seen
        What the router tells, and what is seen of both arms.
    now
        Epoch seconds; may jump.
    """
    lost = _lost(spec, memory, live)
    if lost:
        return Step(memory, trouble=lost)
    if _replaces_unfinished(spec, memory, live):
        return Step(memory, "remove")
    is_stable = live.exists and is_same(live.stable, spec.candidate)
    if memory.rollout.phase is Phase.PROMOTING and is_stable:
        return _at_the_end(spec, memory, live, now)
    status, write = decide(spec, memory.rollout, seen, now)
    step = Step(Memory(rollout=status, stable=memory.stable))
    newly_back = status.phase is Phase.ROLLED_BACK and not memory.rollout.ended
    if newly_back or status.phase is Phase.ROLLING_BACK:
        return _back(step, memory.rollout, spec, live)
    if write is None:
        return _deployed(step, spec, live, seen, now)
    if write.kind == "promote":
        return replace(step, doing="promote")
    return replace(step, doing="set", percent=write.percent)


def _at_the_end(spec: RolloutSpec, memory: Memory, live: Live, now: float) -> Step:
    """End a rollout whose candidate is the stable, once nothing else has any traffic."""
    status = memory.rollout.replace(last_look=now, observed_generation=spec.generation)
    if live.promoted:
        text = f"{spec.candidate.version} is live."
        ended = status.told(now, Phase.PROMOTED, text, target_percent=100)
        return Step(memory.replace(rollout=ended))
    step = Step(memory.replace(rollout=status))
    return replace(step, doing="drop") if live.candidate is not None else step


def _lost(spec: RolloutSpec, memory: Memory, live: Live) -> str:
    """Return why nothing can go on with what is live; empty if it can."""
    if live.exists:
        if live.stable is not None:
            return ""
        why = live.error or "its predictor names no bundle"
        return f"it can't be told what is live in the InferenceService: {why.rstrip('.')}."
    before = memory.rollout
    known = before.revision is not None and before.revision.digest == spec.candidate.digest
    if not known or before.phase is Phase.ROLLED_BACK:
        return ""
    if memory.stable is None and before.phase is not Phase.PROMOTED:
        return ""
    return (
        "the InferenceService is gone: make it again, or remove status.memory and status.seal to "
        f"make {spec.candidate.version} a first deployment."
    )


def _replaces_unfinished(spec: RolloutSpec, memory: Memory, live: Live) -> bool:
    """Return whether a first deployment that never became ready stands in the way of another."""
    before = memory.rollout
    return (
        before.phase is Phase.FIRST_DEPLOYMENT
        and before.revision is not None
        and before.revision.digest != spec.candidate.digest
        and is_same(live.stable, before.revision)
        and not live.pods.get("stable")
    )


def _back(step: Step, before: RolloutStatus, spec: RolloutSpec, live: Live) -> Step:
    """Take the candidate away: its traffic, then itself; a first deployment is taken away whole.

    The end is told when nothing of it is left.
    """
    memory, status = step.memory, step.memory.rollout
    unfinished = step
    if status.phase is Phase.ROLLED_BACK:
        left = _not_yet(status, before)
        unfinished = replace(step, memory=memory.replace(rollout=left))
    if live.exists and is_same(live.stable, spec.candidate):
        if memory.stable is None:
            return replace(unfinished, doing="remove")
        text = f"{spec.candidate.version} is the stable by now: nothing is left to go back to."
        return replace(unfinished, trouble=text)
    if live.percent == 0 and live.candidate is not None:
        return replace(unfinished, doing="drop")
    if status.phase is Phase.ROLLED_BACK or live.percent is None:
        return step
    return replace(step, doing="set", percent=0)


def _not_yet(status: RolloutStatus, before: RolloutStatus) -> RolloutStatus:
    """Return a status that has ended as one that is about to."""
    *events, end = status.events
    if before.phase is not Phase.ROLLING_BACK:
        events.append(end.replace(phase=Phase.ROLLING_BACK))
    return status.replace(phase=Phase.ROLLING_BACK, events=tuple(events))


def _announced(step: Step, spec: RolloutSpec, now: float) -> Step:
    """Say at once what a ready candidate will get, so that it needs no further write."""
    status = step.memory.rollout
    if status.phase is not Phase.PENDING or status.target_percent or spec.paused:
        return step
    share = spec.shares[0]
    text = f"{spec.candidate.version} is the new candidate: it gets {share} % once it is ready."
    told = status.told(now, Phase.PROGRESSING, text, target_percent=share)
    return replace(step, memory=step.memory.replace(rollout=told))


def _deployed(step: Step, spec: RolloutSpec, live: Live, seen: Observation, now: float) -> Step:
    """Have the candidate deployed without traffic where it has none; create what is not there."""
    status = step.memory.rollout
    if status.ended or seen.live_percent is None:
        return step
    if spec.stable is None:
        # Until it is ready its template may have to be corrected; no write where all is as asked.
        is_its_own = not live.exists or is_same(live.stable, spec.candidate)
        is_asked = is_its_own and not (live.promoted or spec.paused or spec.abort)
        return replace(step, doing="set", percent=100) if is_asked else step
    if seen.live_percent == 0:
        return replace(_announced(step, spec, now), doing="set", percent=0)
    return step
