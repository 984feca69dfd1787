"""A good and a bad candidate under a load that never stops: real pods, KServe, Envoy, operator."""

import pytest

from tests.node.rollouts import STEPS
from tests.node.run import STORAGE, VERSION
from tests.node.traffic import Shares

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

MODEL = "bandwidth_predictor"
_ENOUGH = 200
"""Requests that a stretch has at least, for its split to say something."""


def test_a_good_candidate_goes_to_a_hundred_percent(rollouts, traffic, record_property):
    stable, before = rollouts.stable(), traffic.answers()
    rollouts.make(VERSION, f"{VERSION}-good")
    with Shares(rollouts.weights, traffic) as shares:
        rollouts.apply(f"{VERSION}-good")
        rollouts.until(f"{VERSION}-good", "Promoted")
    found = shares.stretches(stable)
    record_property("split", [(one.percent, one.candidate, one.total) for one in found])
    _show("good", found, traffic.answers() - before)
    assert rollouts.live() == (f"{STORAGE}/{MODEL}/{VERSION}-good", [])
    assert {one.percent for one in found if one.total >= _ENOUGH} >= set(STEPS)
    assert [one for one in found if not one.agrees()] == []
    assert _failed(traffic.answers() - before) == {}


def test_a_bad_candidate_is_taken_back(rollouts, traffic, record_property):
    """Above 100 Mbit/s it answers no number, so the server says 500: its errors, nobody else's."""
    stable, before, live = rollouts.stable(), traffic.answers(), rollouts.live()
    rollouts.make(VERSION, f"{VERSION}-bad", "nan")
    with Shares(rollouts.weights, traffic) as shares:
        rollouts.apply(f"{VERSION}-bad")
        status = rollouts.until(f"{VERSION}-bad", "RolledBack")
    found, answers = shares.stretches(stable), traffic.answers() - before
    record_property("split", [(one.percent, one.candidate, one.total) for one in found])
    _show("bad", found, answers)
    assert "requests failed" in status["reason"]
    assert rollouts.live() == live
    assert [one for one in found if not one.agrees()] == []
    failed = _failed(answers)
    # Of the candidate's own answers; nobody else's, and nothing lost on the way.
    assert [key for key in failed if key[0] == stable or key[1] == "lost"] == []
    assert sum(failed.values()) > 0
    assert sum(failed.values()) < 0.02 * sum(answers.values())


def _failed(answers):
    return {key: count for key, count in answers.items() if key[1] != "2xx"}


def _show(name, found, answers):
    print(f"\n{name}: weight -> requests to the candidate of all, and what they leave of its share")
    for one in found:
        low, high = one.interval()
        print(f"  {one.percent:3d} %  {one.candidate} of {one.total}: {low:.2f} to {high:.2f} %")
    for (service, outcome), count in sorted(answers.items()):
        print(f"  {service} {outcome}: {count}")
