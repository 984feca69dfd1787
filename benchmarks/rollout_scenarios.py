"""The environments in which the decision is tried: candidates like the stable, and worse ones.

An equal candidate is the same software as the stable. What differs between the arms, or clumps in
time, comes from pods, clients and gateways, and every rollback of it is a false one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dwcp_ml.rollout.simulated_environment import Shape, Traffic
from dwcp_ml.rollout.simulated_pods import Pods
from dwcp_ml.rollout.spec import DEFAULT_STEPS, RolloutSpec, any_rollout

ERRORS: Final = 0.001
"""Share of errors of the stable where a scenario says nothing else."""

MANY_ERRORS: Final = 0.01
"""Share of errors where it is about how they come: there must be some."""

ONE_EACH: Final = Pods()
THREE_EACH: Final = Pods(stable=3, candidate=3)
ONE_AND_TEN: Final = Pods(stable=1, candidate=10)

SIX_HOURS: Final = 6 * 3600.0
_FOREVER: Final = 10 * 86_400.0


@dataclass(frozen=True)
class Scenario:
    """One environment.

    Parameters
    ----------
    models
        What it stands for, one sentence.
    traffic
        Load, behaviour and pods of both arms.
    stays_at
        The step at which the rollout stays to the end, percent; ``None`` for none.
    """

    models: str
    traffic: Traffic
    stays_at: int | None = None

    def spec(self, dwell_seconds: float) -> RolloutSpec:
        """Return the default rollout with steps of at least this length."""
        steps = tuple(
            step.replace(
                dwell_seconds=_FOREVER if step.traffic_percent == self.stays_at else dwell_seconds
            )
            for step in DEFAULT_STEPS
        )
        return any_rollout({"steps": steps})


def _equal(
    errors: float = ERRORS,
    *,
    load: float = 100.0,
    pods: Pods = ONE_EACH,
    shape: Shape = "constant",
) -> Traffic:
    return Traffic(
        requests_per_second=load, stable_errors=errors, candidate_errors=errors,
        pods=pods, shape=shape,
    )  # fmt: skip


def _scaled(cold_answers: int, cold_slower: float | None) -> Pods:
    return Pods(
        candidate=10, candidate_at_start=1, cold_answers=cold_answers, cold_slower=cold_slower
    )


EQUAL: Final = {
    "iid, 0.1 % errors": Scenario(
        "Requests that fail independently, now and then.",
        _equal(),
    ),
    "iid, 2 % errors": Scenario(
        "Requests that fail independently, often.",
        _equal(0.02),
    ),
    "cold pods, 1 slow answer": Scenario(
        "Nine more pods start after a minute; the first answer of each takes ×20.",
        _equal(pods=_scaled(1, 20.0)),
    ),
    "cold pods, 2 slow answers": Scenario(
        "Nine more pods start after a minute; the first two answers of each take ×20.",
        _equal(pods=_scaled(2, 20.0)),
    ),
    "cold pods, 2 failing answers": Scenario(
        "Nine more pods start after a minute; the first two answers of each are errors.",
        _equal(pods=_scaled(2, None)),
    ),
    "retries": Scenario(
        "The gateway tries each request up to three times in its arm, so that errors clump.",
        _equal(MANY_ERRORS, pods=Pods(attempts=3)),
    ),
    "outages of a pod, 1 and 1 pods": Scenario(
        "Every 30 min one pod of the two fails everything for 5 s.",
        _equal(pods=Pods(outage_every=1800.0)),
    ),
    "outages of a pod, 3 and 3 pods": Scenario(
        "Every 30 min one pod of the six fails everything for 5 s.",
        _equal(pods=Pods(stable=3, candidate=3, outage_every=1800.0)),
    ),
    "shared bursts": Scenario(
        "Both arms fail ten times as often for a minute in twenty.",
        _equal(MANY_ERRORS, shape="bursts"),
    ),
    "pods differ in errors, 1 and 10 pods": Scenario(
        "Each pod has an error rate of its own, log-normal with σ = 0.5; the stable has one pod.",
        _equal(MANY_ERRORS, pods=Pods(stable=1, candidate=10, error_spread=0.5)),
    ),
    "pods differ in errors, 10 and 1 pods": Scenario(
        "Each pod has an error rate of its own, log-normal with σ = 0.5; the candidate has one.",
        _equal(MANY_ERRORS, pods=Pods(stable=10, candidate=1, error_spread=0.5)),
    ),
    "pinned clients, 1 and 1 pods": Scenario(
        "100 clients stick to an arm for a step; two of them send only what fails.",
        _equal(pods=Pods(clients=100, failing_clients=2)),
    ),
    "pinned clients, 3 and 3 pods": Scenario(
        "100 clients stick to one of six pods for a step; two of them send only what fails.",
        _equal(pods=Pods(stable=3, candidate=3, clients=100, failing_clients=2)),
    ),
    "node speed ±20 %, 1 and 1 pods": Scenario(
        "Each pod's node makes it up to a fifth faster or slower, all speeds alike likely.",
        _equal(pods=Pods(speed_range=0.2)),
    ),
    "node speed, 1 and 1 pods": Scenario(
        "Each pod's node makes it faster or slower, log-normal with σ = 0.2.",
        _equal(pods=Pods(speed_spread=0.2)),
    ),
    "node speed, 3 and 3 pods": Scenario(
        "Each pod's node makes it faster or slower, log-normal with σ = 0.2; three pods an arm.",
        _equal(pods=Pods(stable=3, candidate=3, speed_spread=0.2)),
    ),
    "storm": Scenario(
        "Something that both arms need makes them fail five times as often for an hour.",
        _equal(MANY_ERRORS, shape="storm"),
    ),
    "ramp": Scenario(
        "The load grows tenfold within an hour.",
        _equal(shape="ramp"),
    ),
    "0.2 requests/s": Scenario(
        "Hardly any traffic.",
        _equal(load=0.2),
    ),
    "2 requests/s": Scenario(
        "Little traffic.",
        _equal(load=2.0),
    ),
}  # fmt: skip
"""Name -> environment of a candidate that is the same software as the stable."""

WORSE: Final = {
    "errors ×2": Scenario("0.2 % instead of 0.1 % fail.", Traffic(candidate_errors=0.002)),
    "errors ×5": Scenario("0.5 % instead of 0.1 % fail.", Traffic(candidate_errors=0.005)),
    "errors ×20": Scenario("2 % instead of 0.1 % fail.", Traffic(candidate_errors=0.02)),
    "everything fails": Scenario("No request succeeds.", Traffic(candidate_errors=1.0)),
    "errors ×2, 3 and 3 pods": Scenario(
        "0.2 % instead of 0.1 % fail; three pods an arm.",
        Traffic(candidate_errors=0.002, pods=THREE_EACH),
    ),
    "errors ×5, 3 and 3 pods": Scenario(
        "0.5 % instead of 0.1 % fail; three pods an arm.",
        Traffic(candidate_errors=0.005, pods=THREE_EACH),
    ),
    "errors ×20, 3 and 3 pods": Scenario(
        "2 % instead of 0.1 % fail; three pods an arm.",
        Traffic(candidate_errors=0.02, pods=THREE_EACH),
    ),
    "errors ×2, 1 and 10 pods": Scenario(
        "0.2 % instead of 0.1 % fail; the stable has one pod, the candidate ten.",
        Traffic(candidate_errors=0.002, pods=ONE_AND_TEN),
    ),
    "errors ×5, 1 and 10 pods": Scenario(
        "0.5 % instead of 0.1 % fail; the stable has one pod, the candidate ten.",
        Traffic(candidate_errors=0.005, pods=ONE_AND_TEN),
    ),
    "errors ×20, 1 and 10 pods": Scenario(
        "2 % instead of 0.1 % fail; the stable has one pod, the candidate ten.",
        Traffic(candidate_errors=0.02, pods=ONE_AND_TEN),
    ),
    "p99 ×1.5, 3 and 3 pods": Scenario(
        "Every answer takes half as long again; three pods an arm.",
        Traffic(slower=1.5, pods=THREE_EACH),
    ),
    "p99 ×2, 3 and 3 pods": Scenario(
        "Every answer takes twice as long; three pods an arm.",
        Traffic(slower=2.0, pods=THREE_EACH),
    ),
    "p99 ×1.5": Scenario("Every answer takes half as long again.", Traffic(slower=1.5)),
    "p99 ×2": Scenario("Every answer takes twice as long.", Traffic(slower=2.0)),
    "p99 ×3": Scenario("Every answer takes three times as long.", Traffic(slower=3.0)),
    "2 % take seconds": Scenario("A lock or a time-out below the p99.", Traffic(stuck=0.02)),
    "everything is 4xx": Scenario("It refuses every request as invalid.", Traffic(rejected=1.0)),
    "after 6 h: all slow": Scenario(
        "It stays at 50 %; after six good hours every answer takes ×3.",
        Traffic(slower=3.0, harm_after_seconds=SIX_HOURS), stays_at=50,
    ),
    "after 6 h: 10 % slow": Scenario(
        "It stays at 50 %; after six good hours a tenth of the answers take seconds.",
        Traffic(stuck=0.1, harm_after_seconds=SIX_HOURS), stays_at=50,
    ),
    "after 6 h: 2 % errors": Scenario(
        "It stays at 50 %; after six good hours 2 % fail.",
        Traffic(candidate_errors=0.02, harm_after_seconds=SIX_HOURS), stays_at=50,
    ),
    "at 100 %: all slow": Scenario(
        "It can't bear all of the traffic: every answer takes ×3.",
        Traffic(slower=3.0, harm_from_percent=100),
    ),
    "at 100 %: 1 % errors": Scenario(
        "It can't bear all of the traffic: 1 % fail.",
        Traffic(candidate_errors=0.01, harm_from_percent=100),
    ),
    "at 100 %: everything fails": Scenario(
        "It can't bear all of the traffic: nothing succeeds.",
        Traffic(candidate_errors=1.0, harm_from_percent=100),
    ),
}  # fmt: skip
"""Name -> environment of a candidate that must be rolled back."""
