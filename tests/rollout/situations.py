"""Situations of a rollout, and the letters of its histories: what happens in between.

A situation is everything that can change what is decided next: what is asked for, what was stored,
what is live, and what the servers counted since.
"""

from typing import NamedTuple

from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.observation import ArmSample, Observation, ReplicaSample
from dwcp_ml.rollout.spec import Analysis, ErrorRateTest, Retry, Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus
from tests.rollout.histories import (
    BEGAN,
    CANDIDATE,
    OTHER,
    STABLE,
    check_rules,
    steps_of,
    unblocked,
)

LADDERS = ((10, 50, 100), (20, 50, 100))
REVISIONS = (CANDIDATE, OTHER)
BLOCK = 400
"""Requests of each arm that has traffic, each time; ten times as many, all failed, if bad."""
SECONDS = 10.0
TRUSTING = Analysis(warm_up_seconds=0, error_rate=ErrorRateTest(margin=0.05), latency=None)


class Asked(NamedTuple):
    """What is asked for."""

    revision: int = 0
    ladder: int = 0
    paused: bool = False
    abort: bool = False
    retry: int = 0
    """Number of the reason that is given for trying it again; 0 for none."""

    def spec(self):
        if self not in _SPECS:
            _SPECS[self] = RolloutSpec(
                model="m", candidate=REVISIONS[self.revision], stable=STABLE,
                steps=steps_of(LADDERS[self.ladder], requests=1, dwell=0.0), analysis=TRUSTING,
                watch_seconds=SECONDS, paused=self.paused, abort=self.abort,
                retry=self.asks_for(),
            )  # fmt: skip
        return _SPECS[self]

    def asks_for(self):
        if not self.retry:
            return None
        return Retry(digest=REVISIONS[self.revision].digest, reason=str(self.retry))


_SPECS = {}


class Situation(NamedTuple):
    """One moment of a history: all that is left when the controller dies."""

    asked: Asked = Asked()
    kept: RolloutStatus = RolloutStatus()
    before: RolloutStatus | None = None
    """The version that was stored before; followed only where a controller may read it."""
    live: int = 0
    promoted: bool = False
    blocked: frozenset = frozenset()
    used: frozenset = frozenset()
    now: float = BEGAN
    stable: tuple = (0, 0)
    candidates: tuple = ((0, 0), (0, 0))
    restarts: int = 0

    def sample(self, arm, revision: Revision, counts, ready=True):
        replica = ReplicaSample(
            replica=f"{arm}-{revision.version}", started_at=BEGAN + 1, requests=counts[0],
            errors=counts[1],
        )  # fmt: skip
        return ArmSample(
            version=revision.version, digest=revision.digest, replicas=(replica,), ready=ready,
            restarts=self.restarts,
        )  # fmt: skip

    def key(self):
        at_start = self.kept.restarts_at_start
        return (
            self.asked, self.live, self.promoted, self.blocked, memory(self.kept),
            memory(self.before) if self.before else None,
            pending(self.kept.stable_counters, self.stable),
            pending(self.kept.candidate_counters, self.candidates[self.asked.revision]),
            None if at_start is None else min(self.restarts - at_start, 3),
            self.used,
        )  # fmt: skip


def memory(status):
    """Return what of a status can change a decision."""
    rate = status.evidence.error_rate
    evidence, shown = (rate.harm, rate.promotion) if rate is not None else (None, None)
    return (
        status.phase, status.target_percent, status.passed_percent, status.revision,
        status.blocked, frozenset((each.digest, each.reason) for each in status.retries),
        min(status.step_requests, 1), status.last_reconciled is None,
        tuple((verdict.test, verdict.outcome) for verdict in status.verdicts),
        min(status.watch_elapsed, SECONDS), status.evidence.watch is None,
        evidence and (evidence.candidate.requests > 0, evidence.stable.requests > 0),
        evidence and (evidence.candidate.errors > 0, evidence.log_e > 0),
        shown and max(shown.log_capitals) > 0,
        len(status.stable_counters.replicas), len(status.candidate_counters.replicas),
    )  # fmt: skip


def pending(counters, counts):
    """Return whether requests, and errors, came since a replica was last counted."""
    known = sum(each.requests for each in counters.replicas.values())
    failed = sum(each.errors for each in counters.replicas.values())
    return counts[0] > known, counts[1] > failed


ANY_LENGTH = 10_000
"""Letters; nothing new is reached long before."""


def ticked(here, *, bad=False, quiet=False):
    """Return the situation after some traffic."""
    size = 0 if quiet else 10 * BLOCK if bad else BLOCK
    stable, candidates = here.stable, list(here.candidates)
    if here.live < 100:
        stable = (stable[0] + size, 0)
    if here.live > 0:
        requests, errors = candidates[here.asked.revision]
        candidates[here.asked.revision] = (requests + size, errors + (size if bad else 0))
    return here._replace(now=here.now + SECONDS, stable=stable, candidates=tuple(candidates))


def reconciled(here, *, change=None, dies="never", ready=True):
    """Return the situation after a look at it; hold the rules of its write."""
    spec, asked = here.asked.spec(), here.asked
    seen = Observation(
        live_percent=here.live, promoted=here.promoted,
        stable=here.sample("stable", STABLE, here.stable).replace(restarts=0),
        candidate=here.sample(
            "candidate", spec.candidate, here.candidates[asked.revision], ready
        ),
    )  # fmt: skip
    if change is not None:
        seen = change(seen)
    status, write = decide(spec, here.kept, seen, here.now)
    used = set(here.used)
    blocked = here.blocked - unblocked(spec, here.kept, status, used)
    check_rules(spec, here.kept, status, write, seen, blocked)
    if asked.abort:
        assert status.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.PROMOTED) or (
            seen.live_percent is None
        )
    if dies == "before store":
        return here
    here = here._replace(
        kept=status, blocked=blocked | frozenset(status.blocked), used=frozenset(used)
    )
    if write is None or dies == "before write":
        return here
    if write.kind == "promote":
        return here._replace(promoted=True)
    return here._replace(live=write.percent)


def down(seen):
    arm = seen.candidate.replace(error="refused", replicas=())
    return seen.replace(candidate=arm)


def blind(seen):
    return seen.replace(live_percent=None, router_error="refused")


def edited(here, **changes):
    return here._replace(asked=here.asked._replace(**changes))


def replaced(here):
    """Return the situation with the other candidate; one that was promoted is the stable now."""
    here = edited(here, revision=1 - here.asked.revision)
    return here._replace(live=0, promoted=False) if here.promoted else here


LETTERS = {
    "good": lambda here: reconciled(ticked(here)),
    "bad": lambda here: reconciled(ticked(here, bad=True)),
    "quiet": lambda here: reconciled(ticked(here, quiet=True)),
    "metrics down": lambda here: reconciled(ticked(here), change=down),
    "metrics down while bad": lambda here: reconciled(ticked(here, bad=True), change=down),
    "router down": lambda here: reconciled(ticked(here), change=blind),
    "write lost": lambda here: reconciled(ticked(here), dies="before write"),
    "bad, write lost": lambda here: reconciled(ticked(here, bad=True), dies="before write"),
    "dies before store": lambda here: reconciled(ticked(here), dies="before store"),
    "not ready": lambda here: reconciled(ticked(here), ready=False),
    "crashes": lambda here: reconciled(ticked(here._replace(restarts=here.restarts + 3))),
    "sets 0": lambda here: reconciled(ticked(here._replace(live=0))),
    "sets 30": lambda here: reconciled(ticked(here._replace(live=30))),
    "sets 50": lambda here: reconciled(ticked(here._replace(live=50))),
    "sets 100": lambda here: reconciled(ticked(here._replace(live=100))),
    "pauses or goes on": lambda here: reconciled(
        ticked(edited(here, paused=not here.asked.paused))
    ),
    "edits the steps": lambda here: reconciled(ticked(edited(here, ladder=1 - here.asked.ladder))),
    "another candidate": lambda here: reconciled(ticked(replaced(here))),
    "retries": lambda here: reconciled(ticked(edited(here, retry=here.asked.retry % 2 + 1))),
    "aborts or not": lambda here: reconciled(ticked(edited(here, abort=not here.asked.abort))),
}
