"""Crashes, stale reads, lost answers, other writers: the same end, and no rule broken."""

import functools
import itertools

import numpy as np
import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from tests.operator.fake_servers import digest_of, shares_in
from tests.operator.faulty import FULL, PATHS, SHORT, FaultyScenario, Strikes, count, lost, short
from tests.operator.scenario import KEY, Crash, candidate, digest, rollout

pytestmark = pytest.mark.slow


@functools.cache
def undisturbed(path):
    """Return what is left of a path, and how many writes the operator makes on it."""
    make, along = PATHS[path]
    scenario = make()
    strikes = Strikes(scenario, ())
    return scenario.play(along), strikes.number


@functools.cache
def points(path):
    return tuple(itertools.product(range(1, undisturbed(path)[1] + 1), ("before", "after")))


# 1 crash before and after each write, and twice in a row


@pytest.mark.parametrize("what", [Crash, lost], ids=["crash", "lost answer"])
@pytest.mark.parametrize("path", PATHS)
def test_a_fault_before_or_after_any_write_changes_nothing(path, what, record_property):
    make, along = PATHS[path]
    chosen = points(path) if FULL else points(path)[::3]
    record_property("tried", len(chosen))
    for point in chosen:
        scenario = make()
        Strikes(scenario, [point], what)
        assert scenario.play(along) == undisturbed(path)[0], point


@pytest.mark.parametrize("path", PATHS)
def test_two_faults_in_a_row_change_nothing(path, record_property):
    """The second strikes the write that follows the first: made again, or the next one."""
    make, along = PATHS[path]
    chosen = points(path) if FULL else points(path)[:: max(1, len(points(path)) // 4)]
    record_property("tried", 2 * len(chosen))
    for number, when in chosen:
        for second in ("before", "after"):
            scenario = make()
            Strikes(scenario, [(number, when), (number + 1, second)])
            assert scenario.play(along) == undisturbed(path)[0], (number, when, second)


# 2 stale reads


def test_reads_of_the_past_break_no_rule(record_property):
    """Lagging 1 to 12 versions, changing as it goes, with restarts that travel in time."""
    names = list(PATHS)
    record_property("tried", count(500))
    for seed in range(count(500)):
        rng = np.random.default_rng(seed)
        path = names[seed % len(names)]
        make, along = PATHS[path]
        scenario = make()
        most = int(rng.integers(1, 13))

        def disturbed(scenario, number, rng=rng, most=most, along=along):
            along(scenario, number)
            lag = int(rng.integers(0, most + 1)) if number <= 40 else 0
            scenario.view = scenario.api.lagging(lag) if lag else scenario.api
            if rng.random() < 0.2:
                scenario.restart()

        assert scenario.play(disturbed, rounds=250) == undisturbed(path)[0], (seed, path)


# 5 others who write


def edits(rng):
    """Return what somebody does at a moment of chance."""
    share = int(rng.integers(0, 101))
    steps = rollout(shares=[(5, 100), (10, 50, 100), (20, 30, 100)][rng.integers(3)], dwell=10,
                    requests=10)["spec"]["steps"]  # fmt: skip
    number = int(rng.integers(2, 5))

    def weight(scenario):
        def change(service):
            for one in service["spec"].get("canary") or []:
                one["trafficPercent"] = share

        if scenario.service is not None:
            scenario.api.edit(INFERENCE_SERVICE, *KEY, change)

    def spec(**changes):
        return lambda scenario: scenario.edit(lambda one: one["spec"].update(changes))

    return [
        weight,
        weight,
        spec(candidate=candidate(number), abort=False),
        spec(steps=steps),
        spec(paused=True),
        spec(paused=False),
        lambda scenario: scenario.edit(
            lambda one: one["metadata"].update(labels={"edited": "yes"})
        ),
        spec(skip={"version": f"v{number}", "trafficPercent": 100, "reason": "by hand"}),
    ][rng.integers(8)]


class Others:
    """Somebody who writes right before or after calls of the operator, at moments of chance."""

    def __init__(self, scenario, rng, share):
        self.scenario, self.rng, self.share = scenario, rng, share
        self.busy = False
        self._after = scenario.api.after
        scenario.api.before, scenario.api.after = self.before, self.after

    def before(self, call):
        self._perhaps()

    def after(self, call):
        self._after(call)
        self._perhaps()

    def _perhaps(self):
        if self.busy or self.rng.random() >= self.share:
            return
        self.busy = True
        edits(self.rng)(self.scenario)
        self.busy = False


def calm(scenario):
    scenario.api.before = lambda call: None
    scenario.api.after = scenario.rules.after
    scenario.edit(lambda one: one["spec"].update(paused=False))


def test_others_who_write_at_any_moment_break_no_rule(record_property):
    """A weight that is edited, another candidate, other steps, between any two calls."""
    record_property("tried", count(500))
    for seed in range(count(500)):
        rng = np.random.default_rng(seed)
        scenario = FaultyScenario(short())
        Others(scenario, rng, share=float(rng.choice([0.01, 0.03, 0.1])))
        for _ in range(25):
            scenario.reconcile()
        calm(scenario)
        last = scenario.resource["spec"]["candidate"]["digest"].removeprefix("sha256:")
        # As long as the operator waits at most before it writes again what was undone.
        phase = scenario.play(lambda scenario, number: None, rounds=400)[0]
        expected = last if phase == "Promoted" else None
        assert expected in (None, digest_of(scenario.service["spec"]["predictor"])), seed


@pytest.mark.parametrize("place", range(0, 20, 2))
def test_a_new_candidate_begins_at_the_first_step_with_fresh_evidence(place):
    scenario = FaultyScenario(short())
    for _ in range(place):
        scenario.reconcile()
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    scenario.rules.weights.clear()
    assert scenario.play(lambda scenario, number: None)[0] == "Promoted"
    assert scenario.rules.weights == list(SHORT)


# 14 random specs and transitions


def test_random_transitions_break_no_rule(record_property):
    """Faults, edits, restarts, bad candidates, lost metrics; one reconciliation is one step."""
    rounds = 40
    seeds = range(count(10_000) // rounds + 1)
    record_property("tried", rounds * len(seeds))
    for seed in seeds:
        rng = np.random.default_rng(seed)
        shares = [(5, 100), (10, 50, 100), (1, 5, 25, 50, 100)][rng.integers(3)]
        scenario = FaultyScenario(
            rollout(shares=shares, dwell=10, requests=10, watchSeconds=20), first=rng.random() < 0.2
        )
        for number in range(2, 5):
            scenario.fleet.errors[digest(number)] = float(rng.choice([0.0, 0.0, 0.5]))
        for _ in range(rounds):
            _disturb(scenario, rng)
            try:
                scenario.reconcile(float(rng.choice([1, 10, 60])))
            except Crash:
                scenario.restart()
        scenario.api.before, scenario.api.after = (lambda call: None), scenario.rules.after
        service = scenario.service
        if service is not None:
            assert sum(shares_in(service).values()) == 100


def _disturb(scenario, rng):
    scenario.api.before, scenario.api.after = (lambda call: None), scenario.rules.after
    scenario.fleet.broken.clear()
    what = rng.integers(10)
    if what == 0:
        Strikes(
            scenario, [(1, ["before", "after"][rng.integers(2)])], [Crash, lost][rng.integers(2)]
        )
    elif what == 1:
        scenario.restart()
    elif what == 2:
        scenario.fleet.broken["candidate"] = "down"
    elif what in (3, 4):
        edits(rng)(scenario)
    elif what == 5:
        scenario.time.ahead = float(rng.choice([-3600, 0, 3600]))
    elif what == 6:
        scenario.fleet.begin_again(digest(2))
    elif what == 7 and (scenario.resource or {}).get("status"):
        scenario.edit_status(lambda status: status.update(targetPercent=100, passedPercent=100))


# 15 forged weights and verdicts, at every moment


@pytest.mark.parametrize("field", ["targetPercent", "passedPercent", "livePercent", "phase"])
def test_what_is_shown_can_be_forged_at_any_moment_and_changes_nothing(field, record_property):
    value = "Promoted" if field == "phase" else 100
    expected = undisturbed("promoted")[0]
    moments = range(0, 16, 1 if FULL else 4)
    record_property("tried", len(moments))
    for moment in moments:
        scenario = PATHS["promoted"][0]()

        def forging(scenario, number, moment=moment):
            if (
                number >= moment
                and scenario.status
                and scenario.service.get("spec", {}).get("canary")
            ):
                scenario.edit_status(lambda status: status.update({field: value}))

        final = scenario.play(forging)
        assert final[1:] == expected[1:]
        assert scenario.rules.weights == list(SHORT)


def test_the_state_of_another_object_breaks_no_rule():
    scenario, other = FaultyScenario(short()), FaultyScenario(short())
    for each in (scenario, other):
        for _ in range(12):
            each.reconcile()
    stolen = other.status
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    scenario.api.create(short(abort=False))
    scenario.api.aside().replace({**scenario.resource, "status": stolen}, status=True)
    scenario.rules.weights.clear()
    assert scenario.until_end() == "Promoted", "the live weights are read back"
