"""The rules of every write, over random histories: edits, pauses, faults, crashes, restarts.

I1  the weight is 0 or a step, and rises one step at a time
I2  it rises only on a stored passing verdict for that revision at the step below
I3  a revision that was rolled back never rises again, but once for each retry of its digest
I4  weights sum to 100
I5  nothing is written once a rollout has ended

A controller may die between any two of: read, store, write. The status that is stored and the
router are all that is left.
"""

import itertools

import numpy as np
import pytest

from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.simulated_environment import SimulatedEnvironment, Traffic
from dwcp_ml.rollout.spec import Analysis, Retry, Revision, RolloutSpec, Skip
from dwcp_ml.rollout.status import Phase, RolloutStatus
from tests.matrix import few
from tests.rollout.histories import (
    check_rules,
    steps_of,
    unblocked,
)

LADDERS = ((1, 5, 25, 50, 100), (10, 100), (2, 3, 100), (99, 100))
FAULTS = ("none", "metrics", "router", "crash before store", "crash before write", "lost write")
EDITS = ("none", "pause", "go on", "new candidate", "other steps", "somebody sets", "skip", "abort",
         "retry", "retry another")  # fmt: skip


def revision(number):
    return Revision(version=str(number), digest=f"{number:064d}")


ERRORS_ONLY = Analysis(warm_up_seconds=0, latency=None)


class History:
    """One rollout under a random hand; it checks every write."""

    def __init__(self, rng):
        self.rng = rng
        self.number = 1
        self.spec = RolloutSpec(
            model="m", candidate=revision(1), stable=revision(0),
            steps=steps_of(LADDERS[rng.integers(len(LADDERS))]),
            analysis=Analysis(warm_up_seconds=float(rng.choice([0, 15]))), watch_seconds=10.0,
        )  # fmt: skip
        bad = float(rng.choice([0.0, 0.0, 0.3]))
        self.world = SimulatedEnvironment(
            self.spec, Traffic(requests_per_second=200.0, stable_errors=0.0, candidate_errors=bad),
            np.random.default_rng(rng.integers(1 << 30)),
        )  # fmt: skip
        self.stored = RolloutStatus().model_dump_json()
        self.blocked, self.used, self.unblocked = set(), set(), 0
        self.phases = set()

    def edit(self, kind, share=0):
        changes = {"generation": self.spec.generation + 1}
        if kind == "pause":
            changes["paused"] = True
        elif kind == "go on":
            changes |= {"paused": False, "abort": False, "skip": None}
        elif kind == "new candidate":
            self.number = int(self.rng.integers(1, 4))
            runtime = str(self.rng.choice(["", "", "other"]))
            candidate = revision(self.number).replace(runtime=runtime)
            changes |= {"candidate": candidate, "abort": False}
        elif kind == "other steps":
            changes["steps"] = steps_of(LADDERS[self.rng.integers(len(LADDERS))])
        elif kind == "skip":
            changes["skip"] = Skip(traffic_percent=self.spec.shares[0], reason="by hand")
        elif kind in ("retry", "retry another"):
            number = self.number + (kind == "retry another")
            reason = f"reason {self.rng.integers(3)}"
            changes["retry"] = Retry(digest=revision(number).digest, reason=reason)
        elif kind == "abort":
            changes["abort"] = True
        elif kind == "somebody sets":
            self.world.live_percent = share
        self.spec = self.spec.replace(**changes)
        self.world.spec = self.spec

    def reconcile(self, fault):
        self.world.pass_time(10.0)
        seen = self.world.observe()
        if fault == "metrics":
            arm = seen.candidate.replace(error="down", replicas=())
            seen = seen.replace(candidate=arm)
        if fault == "router":
            seen = seen.replace(live_percent=None, router_error="down")
        before = RolloutStatus.model_validate_json(self.stored)
        status, write = decide(self.spec, before, seen, self.world.now)
        if fault == "crash before store":
            return
        gone = unblocked(self.spec, before, status, self.used)
        self.blocked -= gone
        self.unblocked += len(gone)
        self.check(before, status, write, seen)
        self.stored = status.model_dump_json()
        self.phases.add(status.phase)
        if fault not in ("crash before write", "lost write"):
            self.world.make(write)
        self.blocked |= set(status.blocked)

    def check(self, before, status, write, seen):
        assert len(self.stored) < 60_000, "the status is bounded"
        check_rules(self.spec, before, status, write, seen, self.blocked)


def random_history(seed, reconciliations):
    rng = np.random.default_rng(seed)
    history = History(rng)
    for _ in range(reconciliations):
        if rng.random() < 0.12:
            history.edit(str(rng.choice(EDITS)), int(rng.integers(0, 101)))
        history.reconcile(str(rng.choice(FAULTS, p=[0.7, 0.06, 0.06, 0.06, 0.06, 0.06])))
    return history


@pytest.mark.parametrize("block", few(range(10), 0))
def test_the_invariants_hold_in_random_histories(block):
    for seed in range(12 * block, 12 * (block + 1)):
        random_history(seed, reconciliations=25)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("half", range(2))
def test_the_invariants_hold_in_ten_thousand_random_histories(half):
    for seed in range(10_000 + 5_000 * half, 15_000 + 5_000 * half):
        random_history(seed, reconciliations=12)


@pytest.mark.slow
def test_the_random_histories_reach_every_phase():
    histories = [random_history(seed, reconciliations=60) for seed in range(40)]
    reached = set().union(*(one.phases for one in histories))
    assert sum(one.unblocked for one in histories) > 1
    assert reached >= {
        Phase.PENDING, Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTED, Phase.ROLLED_BACK,
    }  # fmt: skip


MOMENTS = list(itertools.combinations_with_replacement(range(1, 8, 2), 2))


@pytest.mark.parametrize("moments", few(MOMENTS, (1, 5)))
@pytest.mark.parametrize("first", [*FAULTS[1:], *EDITS[1:]])
def test_every_short_history_ends_where_the_undisturbed_one_ends(first, moments):
    """All pairs of a fault or edit, at every moment of a short rollout; then nothing more."""
    early, late = moments
    for second in FAULTS[1:]:
        history = History(np.random.default_rng(7))
        history.spec = history.spec.replace(steps=steps_of((10, 100)), analysis=ERRORS_ONLY)
        history.world.spec = history.spec
        history.world.traffic = Traffic(requests_per_second=200.0, stable_errors=0.0,
                                        candidate_errors=0.0)  # fmt: skip
        for moment in range(70):
            fault = "none"
            if moment == early:
                if first in FAULTS:
                    fault = first
                else:
                    history.edit(first, 40)
            if moment == late:
                fault = second
            if moment == late + 2 and first in ("pause", "skip"):
                history.edit("go on")
            history.reconcile(fault)
            status = RolloutStatus.model_validate_json(history.stored)
            if status.ended and moment > late + 2:
                break
        expected = Phase.ROLLED_BACK if first == "abort" else Phase.PROMOTED
        assert status.phase is expected, (first, second, early, late, status.cause)
        assert history.world.live_percent == (0 if first == "abort" else 100)
