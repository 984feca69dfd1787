"""Rollouts to disturb: simulated servers in virtual time, and the rules that every write keeps."""

import copy
import math

import numpy as np

from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.observation import ArmSample, Histogram, Observation, ReplicaSample
from dwcp_ml.rollout.simulated_environment import SimulatedEnvironment, Traffic
from dwcp_ml.rollout.spec import Analysis, ErrorRateTest, LatencyTest, Revision, RolloutSpec, Step
from dwcp_ml.rollout.status import Phase, RolloutStatus, Shadow

STABLE = Revision(version="1", digest="a" * 64)
CANDIDATE = Revision(version="2", digest="b" * 64)
OTHER = Revision(version="3", digest="c" * 64)
SHARES = (1, 5, 25, 50, 100)
BEGAN = 1_000_000.0


def steps_of(shares, *, requests=20, dwell=5.0):
    return tuple(
        Step(traffic_percent=share, minimum_requests=requests, dwell_seconds=dwell)
        for share in shares
    )


def spec_of(**changes):
    given = {
        "model": "bandwidth_predictor",
        "candidate": CANDIDATE,
        "stable": STABLE,
        "steps": steps_of(SHARES, requests=100, dwell=30.0),
        "analysis": Analysis(warm_up_seconds=20),
        "watch_seconds": 60.0,
    }
    return RolloutSpec(**(given | changes))


BROAD = Analysis(
    warm_up_seconds=0, error_rate=ErrorRateTest(margin=0.1), latency=LatencyTest(margin=0.2)
)
"""Margins so broad that a few hundred requests show something."""


def quick_spec(**changes):
    """Return a spec whose steps take two or three reconciliations of 30 s each."""
    steps = steps_of(SHARES, requests=100, dwell=30.0)
    return spec_of(**({"analysis": BROAD, "steps": steps} | changes))


def edited(spec, **changes):
    """Return the spec as somebody edited it; it is checked again, as on its way to a controller."""
    given = spec.model_dump() | {"generation": spec.generation + 1} | changes
    return RolloutSpec(**given)


def stored(status):
    """Return what comes back from storage."""
    return RolloutStatus.model_validate_json(status.model_dump_json())


def unblocked(spec, before, status, used):
    """Return the identities that a decision unblocked; hold the rule of a retry.

    ``used`` has the (identity, reason) of the retries that were used in this history; it is
    changed.
    """
    gone = set(before.blocked) - set(status.blocked)
    if gone:
        retry = spec.retry
        assert retry is not None, "I3: unblocked without a retry"
        assert retry.digest == spec.candidate.digest, "I3: a retry of another"
        assert gone == {spec.candidate.identity}, "I3: another was unblocked"
        assert (*gone, retry.reason) not in used, "I3: unblocked twice by one retry"
        assert not spec.abort, "unblocked while aborted"
        assert status.target_percent <= spec.shares[0], "a retry starts at the first step"
        assert status.passed_percent == 0, "I2: evidence of the last time counts"
        used.add((*gone, retry.reason))
    return gone


def check_rules(spec, before, status, write, seen, blocked=frozenset()):
    """Hold the rules of every write; ``before`` is the status that was stored, as it was read."""
    is_retried = before.retries != status.retries and status.retries[-1].unblocked
    if before.ended and before.revision == status.revision and not is_retried:
        assert write is None, "I5: a write after the end"
    if write is None:
        return
    live, new = seen.live_percent, write.percent
    rungs = (0, *spec.shares)
    assert live is not None or new == 0, "risen though the live weight is unknown"
    assert new in rungs, f"I1: {new} is no step of {rungs}"
    assert 0 <= new <= 100, "I4"
    if write.kind == "promote":
        assert new == live == 100, f"I1: promoted at {live} %"
        assert before.revision == status.revision, "I2: promoted on another's verdict"
        assert before.passed_percent == 100, "I2: promoted without a verdict"
        assert status.revision.identity not in blocked, "I3"
        return
    if new <= (live or 0):
        return
    assert status.revision.identity not in blocked, "I3: risen after a rollback"
    assert not spec.paused, "risen while paused"
    below = max(share for share in rungs if share < new)
    if spec.stable is not None:
        assert live >= below, f"I1: from {live} to {new} of {rungs}"
        if below > 0:
            assert before.revision == status.revision, "I2: a verdict of another revision"
            assert before.passed_percent >= below, "I2: no stored verdict"
        settled = live or not spec.has_shadow_step or status.shadow is not Shadow.PENDING
        assert settled, "I2: live traffic before the shadow step"
    if spec.skip is None or spec.skip.traffic_percent != below:
        assert seen.candidate is not None, "risen unseen"
        assert seen.candidate.ready, "risen while not ready"
        if spec.stable is not None:
            assert seen.stable is not None, "risen unseen"
            assert (seen.candidate.error, seen.stable.error) == ("", ""), "risen blindly"
    if spec.stable is not None and seen.stable is not None and seen.candidate is not None:
        contracts = {*seen.stable.contracts, *seen.candidate.contracts} - {""}
        is_one_bundle = seen.stable.digest and seen.stable.digest == seen.candidate.digest
        assert is_one_bundle or len(contracts) <= 1, "risen with another contract"


class Run:
    """A rollout in a simulated environment, one reconciliation at a time."""

    def __init__(self, spec=None, traffic=None, seed=1):
        self.spec = spec or spec_of()
        self.world = SimulatedEnvironment(
            self.spec, traffic or Traffic(), np.random.default_rng(seed)
        )
        self.status = RolloutStatus()
        self.weights = [0]

    def reconcile(self, observation=None, seconds=10.0):
        self.world.pass_time(seconds)
        seen = observation or self.world.observe()
        self.status, write = decide(self.spec, self.status, seen, self.world.now)
        self.status = stored(self.status)
        self.world.make(write)
        if self.world.live_percent != self.weights[-1]:
            self.weights.append(self.world.live_percent)
        return write

    def until(self, *phases, reconciliations=3000):
        for _ in range(reconciliations):
            self.reconcile()
            if self.status.phase in phases:
                return self.status
        raise AssertionError(f"still {self.status.phase}: {self.status.cause}")


class Servers:
    """Two replicas of each arm, a router, and no chance: the same calls give the same counts.

    ``errors`` is the share of an arm's requests that fail; 1 in 200 takes longer than 10 ms.
    """

    EDGES = (0.01, 0.1)

    def __init__(self, spec, requests_per_second=400.0):
        self.spec = spec
        self.requests_per_second = requests_per_second
        self.now = BEGAN
        self.live_percent = 0
        self.promoted = False
        self.ready = True
        self.restarts = 0
        self.errors = {"stable": 0.0, "candidate": 0.0}
        self.counts = {}
        for arm in self.errors:
            self.begin_again(arm)

    def begin_again(self, arm):
        """Let the processes of an arm start once more, at zero."""
        for name in ("a", "b"):
            self.counts[arm, name] = (self.now, 0, 0, 0)

    def pass_time(self, seconds):
        self.now += seconds
        total = self.requests_per_second * seconds
        for arm, share in (("stable", 100 - self.live_percent), ("candidate", self.live_percent)):
            for name in ("a", "b"):
                began, requests, errors, slow = self.counts[arm, name]
                new = int(total * share / 200)
                failed, late = math.ceil(new * self.errors[arm]), new // 200
                self.counts[arm, name] = (
                    began, requests + new, errors + failed, slow + late
                )  # fmt: skip

    def observe(self):
        return Observation(
            live_percent=self.live_percent,
            promoted=self.promoted,
            stable=self.sample("stable", self.spec.stable or STABLE),
            candidate=self.sample("candidate", self.spec.candidate),
        )

    def sample(self, arm, revision):
        replicas = []
        for name in ("a", "b"):
            began, requests, errors, slow = self.counts[arm, name]
            latency = Histogram(edges=self.EDGES, counts=(requests - slow, requests, requests))
            replicas.append(
                ReplicaSample(
                    replica=f"{arm}-{name}", started_at=began, requests=requests, errors=errors,
                    latency=latency,
                )
            )  # fmt: skip
        return ArmSample(
            version=revision.version, digest=revision.digest, replicas=tuple(replicas),
            ready=self.ready or arm == "stable",
            restarts=self.restarts if arm == "candidate" else 0,
        )  # fmt: skip

    def make(self, write):
        if write is None:
            return
        if write.kind == "promote":
            self.promoted = True
        else:
            self.live_percent = write.percent


class Controller:
    """What decides, stores and writes; it can die at any point. Every write is checked."""

    def __init__(self, spec, servers=None, seconds=30.0):
        self.spec = spec
        self.servers = servers or Servers(spec)
        self.seconds = seconds
        self.clock_ahead = 0.0
        self.kept = RolloutStatus()
        self.blocked, self.used = set(), set()
        self.weights = [0]

    @property
    def live(self):
        return self.servers.live_percent

    def copy(self):
        """Return a copy that goes its own way; what both share never changes."""
        other = copy.copy(self)
        other.servers = copy.copy(self.servers)
        other.servers.counts = dict(self.servers.counts)
        other.servers.errors = dict(self.servers.errors)
        other.blocked, other.weights = set(self.blocked), list(self.weights)
        other.used = set(self.used)
        return other

    def edit(self, **changes):
        self.spec = edited(self.spec, **changes)
        self.servers.spec = self.spec

    def reconcile(self, seen=None, dies="never", seconds=None):
        """Look once; it dies ``before store``, ``before write`` (or the write is lost), or not.

        ``seen`` is a function of the observation that returns what is seen instead.
        """
        self.servers.pass_time(self.seconds if seconds is None else seconds)
        found = self.servers.observe()
        if seen is not None:
            found = seen(found)
        before = stored(self.kept)
        status, write = decide(self.spec, before, found, self.servers.now + self.clock_ahead)
        used = set(self.used)
        blocked = self.blocked - unblocked(self.spec, before, status, used)
        check_rules(self.spec, before, status, write, found, blocked)
        if dies == "before store":
            return None
        self.kept, self.used = status, used
        self.blocked = blocked | set(status.blocked)
        if dies == "before write":
            return None
        self.servers.make(write)
        if dies == "write made twice":
            self.servers.make(write)
        if self.live != self.weights[-1]:
            self.weights.append(self.live)
        return write

    def until_end(self, reconciliations=200, **how):
        for _ in range(reconciliations):
            self.reconcile(**how)
            if self.kept.ended:
                return self.kept.phase
        raise AssertionError(f"still {self.kept.phase}: {self.kept.cause}")


PLACES = ("before 1", 1, 5, 25, 50, 100, "watching", "promoting")


def place_of(controller):
    """Return where a rollout stands before its next reconciliation."""
    if controller.kept.phase in (Phase.WATCHING, Phase.PROMOTING):
        return controller.kept.phase.value.lower()
    return controller.live or "before 1"


def moments(spec=None):
    """Return place -> the number of reconciliations of an undisturbed rollout until then."""
    controller, found = Controller(spec or quick_spec()), {place: [] for place in PLACES}
    for number in range(200):
        found[place_of(controller)].append(number)
        controller.reconcile()
        if controller.kept.ended:
            return found
    raise AssertionError(controller.kept.cause)


_UNDISTURBED = []


def at(number):
    """Return an undisturbed rollout of ``quick_spec`` after a number of reconciliations."""
    if not _UNDISTURBED:
        _UNDISTURBED.append(Controller(quick_spec()))
    while len(_UNDISTURBED) <= number:
        following = _UNDISTURBED[-1].copy()
        following.reconcile()
        _UNDISTURBED.append(following)
    return _UNDISTURBED[number].copy()
