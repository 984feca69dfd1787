"""The decision: what was remembered and what is seen in, what to remember and one write out.

The rules of every write:

I1  the candidate's weight is 0 or one of the steps, and rises one step at a time;
I2  it rises only on a stored passing verdict for that revision at the step below;
I3  a revision that was rolled back never rises again;
I4  weights sum to 100: one number says both;
I5  nothing is written once a rollout has ended.

A status is stored before its write is made. So a write that was lost is made again by the next
call, which finds the router elsewhere than the status says; there is no other memory.
"""

from __future__ import annotations

from typing import Literal

from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.evidence_update import fault, with_evidence, with_time
from dwcp_ml.rollout.holds import QUIET, cannot_rise, skipped, waiting_for
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.spec import RolloutSpec, Step
from dwcp_ml.rollout.status import MOST_BARRED, Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Verdict


class Write(Record):
    """The one thing to do in the world."""

    kind: Literal["set_weight", "promote"]
    percent: int
    reason: str


Decision = tuple[RolloutStatus, Write | None]


def decide(  # noqa: PLR0911 - a list of situations, each with its own answer
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
) -> Decision:
    """Decide about one look at a rollout.

    Parameters
    ----------
    spec
        What is asked for.
    status
        What the last decision remembered.
    observation
        What is seen.
    now
        The caller's clock, epoch seconds; it may jump.

    Returns
    -------
    tuple of RolloutStatus and Write or None
        The status is to be stored before the write is made.
    """
    status = _of_this_candidate(spec, status, now)
    if status.ended:
        return status.replace(observed_generation=spec.generation), None
    earlier = status
    status = with_time(status, observation, now)
    status = status.replace(observed_generation=spec.generation)
    if status.phase is Phase.PROMOTING and observation.promoted:
        # The stable is let go: there is nothing to go back to any more.
        return _promote(status, observation, now)
    if observation.live_percent is None:
        text = f"holding: the router does not say what is live ({observation.router_error})."
        return status.replace(reason=text), None
    if spec.candidate.digest in status.barred or status.phase is Phase.ROLLING_BACK:
        return _roll_back(status, observation.live_percent, _why_back(status), now)
    if spec.abort:
        return _roll_back(status, observation.live_percent, "aborted by a person.", now)
    status, broken = with_evidence(spec, status, observation)
    quiet = status.touched_requests == earlier.touched_requests
    if quiet:
        # A watch that sees nothing is none.
        status = status.replace(watch_elapsed=earlier.watch_elapsed)
    why = fault(spec, status, observation)
    if why:
        return _roll_back(status, observation.live_percent, why, now)
    if spec.stable is None:
        return _first_deployment(spec, status, observation, now)
    if status.phase is Phase.PROMOTING and observation.live_percent == 100:
        return _promote(status, observation, now)
    return _advance(spec, status, observation, broken, quiet, now)


def _of_this_candidate(spec: RolloutSpec, status: RolloutStatus, now: float) -> RolloutStatus:
    """Begin anew, with fresh evidence, when the candidate is another than the one remembered."""
    if status.revision is not None and status.revision.digest == spec.candidate.digest:
        return status
    fresh = RolloutStatus(
        revision=spec.candidate, started_at=now, last_look=now, barred=status.barred
    )
    if spec.candidate.digest in status.barred:
        text = f"{spec.candidate.version} was rolled back before; it never rises again."
        return fresh.told(now, Phase.ROLLING_BACK, text)
    return fresh.told(now, Phase.PENDING, f"{spec.candidate.version} is the new candidate.")


def _roll_back(status: RolloutStatus, live: int, why: str, now: float) -> Decision:
    """Take the candidate's traffic away, and end when the router confirms it."""
    digest = status.revision.digest if status.revision else ""
    barred = tuple(dict.fromkeys((*status.barred, digest)))[-MOST_BARRED:]
    if live == 0:
        ended = status.told(now, Phase.ROLLED_BACK, why, target_percent=0, barred=barred)
        return ended, None
    going = status.told(now, Phase.ROLLING_BACK, why, target_percent=0, barred=barred)
    return going, Write(kind="set_weight", percent=0, reason=why)


def _why_back(status: RolloutStatus) -> str:
    """Return why a candidate goes back; a router that is silent meanwhile is not the reason."""
    return status.events[-1].text if status.events else status.reason


def _first_deployment(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, now: float
) -> Decision:
    candidate = observation.candidate
    if candidate is None or not candidate.ready:
        text = "nothing is live yet, and the candidate is not ready."
        return status.told(now, Phase.FIRST_DEPLOYMENT, text), None
    if observation.live_percent == 100:
        text = f"{spec.candidate.version} is the first deployment."
        return status.told(now, Phase.PROMOTED, text, target_percent=100), None
    if spec.paused:
        text = "paused by a person before the first deployment."
        return status.told(now, Phase.FIRST_DEPLOYMENT, text), None
    text = "nothing else is live: the candidate gets everything."
    going = status.told(now, Phase.FIRST_DEPLOYMENT, text, target_percent=100)
    return going, Write(kind="set_weight", percent=100, reason=text)


def _promote(status: RolloutStatus, observation: Observation, now: float) -> Decision:
    if observation.promoted:
        text = f"{status.revision.version if status.revision else ''} is live."
        return status.told(now, Phase.PROMOTED, text), None
    return status, Write(kind="promote", percent=100, reason=status.reason)


def _advance(  # noqa: PLR0911 - likewise
    spec: RolloutSpec,
    status: RolloutStatus,
    observation: Observation,
    broken: str,
    quiet: bool,
    now: float,
) -> Decision:
    """Bring the router to the target, or the target one step further."""
    live = observation.live_percent or 0
    status = _allowed_target(spec, status, live, now)
    if live != status.target_percent:
        return _set(spec, status, observation, broken)
    if live == 0:
        return _begin(spec, status, observation, broken, now)
    step = next(step for step in spec.steps if step.traffic_percent == live)
    waiting = waiting_for(spec, status, step, observation, broken, quiet)
    if status.passed_percent < live:
        return _judge_step(spec, status, step, waiting, now), None
    if spec.paused:
        text = f"paused by a person at {live} %; the step has passed."
        return status.told(now, Phase.PAUSED, text), None
    if live == 100:
        return _watch(spec, status, broken, quiet, now)
    if waiting:
        return status.told(now, Phase.PROGRESSING, waiting), None
    above = next(share for share in spec.shares if share > live)
    return _rise(status, above, f"the step of {live} % has passed.", now)


def _set(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, broken: str
) -> Decision:
    """Bring the router to the target: down at once, up only while nothing speaks against it."""
    live, target = observation.live_percent or 0, status.target_percent
    waiting = ""
    if live < target:
        waiting = cannot_rise(observation, broken)
        if spec.paused:
            waiting = f"paused by a person at {live} %."
    if waiting:
        return status.replace(reason=waiting), None
    text = f"setting the candidate's share from {live} to {target} %."
    write = Write(kind="set_weight", percent=target, reason=text)
    return status.replace(reason=text), write


def _allowed_target(
    spec: RolloutSpec, status: RolloutStatus, live: int, now: float
) -> RolloutStatus:
    """Return the status with a target that the rules allow from what is live.

    Steps that were edited, and weights that somebody else changed, lead to the nearest lower
    step; never up.
    """
    target = status.target_percent
    below = max((share for share in spec.shares if share <= target), default=0)
    if target not in (0, *spec.shares):
        target = below
    if live < target:
        above_live = min(share for share in spec.shares if share > live)
        proved = live == 0 or (live in spec.shares and status.passed_percent >= live)
        if target != above_live or not proved:
            target = max((share for share in spec.shares if share <= live), default=0)
    if target == status.target_percent:
        return status
    text = f"the share is {live} % now, and {target} % is the nearest step that is not above."
    fields = _new_step(status, target)
    phase = Phase.PROGRESSING if target else Phase.PENDING
    return status.told(now, phase, text, **fields)


def _new_step(status: RolloutStatus, target: int) -> dict[str, object]:
    return {
        "target_percent": target,
        "passed_percent": min(status.passed_percent, max(target - 1, 0)),
        "step_elapsed": 0.0,
        "step_requests": 0,
        "watch_elapsed": 0.0,
        "skipped": "",
    }


def _begin(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation, broken: str, now: float
) -> Decision:
    """Give the candidate its first traffic, once it is ready and can be seen."""
    waiting = ""
    if broken:
        waiting = f"holding: {broken}"
    elif observation.candidate is None or not observation.candidate.ready:
        waiting = "waiting for the candidate to become ready."
    elif spec.paused:
        waiting = "paused by a person before the first step."
    if waiting:
        phase = Phase.PAUSED if spec.paused and not broken else Phase.PENDING
        return status.told(now, phase, waiting), None
    return _rise(status, spec.shares[0], "the candidate is ready.", now)


def _rise(status: RolloutStatus, percent: int, why: str, now: float) -> Decision:
    text = f"{why} Setting {percent} %."
    rising = status.told(now, Phase.PROGRESSING, text, **_new_step(status, percent))
    return rising, Write(kind="set_weight", percent=percent, reason=text)


def _judge_step(
    spec: RolloutSpec, status: RolloutStatus, step: Step, waiting: str, now: float
) -> RolloutStatus:
    """Store a passing verdict for this step, or say what it is waiting for."""
    percent = step.traffic_percent
    if skipped(spec, percent):
        reason = spec.skip.reason if spec.skip else ""
        text = f"the step of {percent} % was let pass by a person: {reason}"
        return status.told(now, Phase.PROGRESSING, text, passed_percent=percent, skipped=reason)
    phase = Phase.PAUSED if spec.paused else Phase.PROGRESSING
    if waiting:
        return status.told(now, phase, waiting)
    text = f"the step of {percent} % has passed: {_sentences(status.verdicts)}"
    return status.told(now, phase, text, passed_percent=percent)


def _watch(
    spec: RolloutSpec, status: RolloutStatus, broken: str, quiet: bool, now: float
) -> Decision:
    if broken or quiet:
        return status.told(now, Phase.WATCHING, f"holding: {broken or QUIET}"), None
    if status.watch_elapsed < spec.watch_seconds:
        text = (
            f"all traffic since {status.watch_elapsed:.0f} s; the stable is kept until "
            f"{spec.watch_seconds:.0f} s."
        )
        return status.told(now, Phase.WATCHING, text), None
    text = "the watch is over without a fault."
    return status.told(now, Phase.PROMOTING, text), Write(kind="promote", percent=100, reason=text)


def _sentences(verdicts: tuple[Verdict, ...]) -> str:
    return " ".join(verdict.sentence for verdict in verdicts if verdict.outcome == "pass")
