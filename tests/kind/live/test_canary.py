"""A good and a bad candidate under a load that never stops: real pods, KServe, Envoy, operator."""

import pytest

from tests.kind.live.load import Traffic
from tests.kind.live.rollouts import SHORT, STEPS
from tests.kind.live.run import VERSION

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900, func_only=True)]

_ENOUGH = 200
"""Requests that a window has at least, for its split to be compared with the weight."""


def test_a_good_candidate_goes_to_a_hundred_percent(rollouts, traffic):
    stable, version = rollouts.stable(), f"{VERSION}-good"
    rollouts.make(VERSION, version)
    with traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version)
        rollouts.until(version, "Promoted")
    found = watched.check(stable)
    assert {one.percent for one in found if one.total >= _ENOUGH} >= set(STEPS)
    assert rollouts.live() == (rollouts.uri(version), [])
    assert watched.failed() == {}
    assert "Compared" in rollouts.events(), "the shadow step was skipped"


@pytest.mark.parametrize("fault", ["nan", "constant", "scale", "slight_scale"])
def test_a_fault_of_serving_is_stopped_before_any_live_request(rollouts, traffic, fault):
    """The last one by 5 % only: the gate has found no difference from the stable."""
    stable, live = rollouts.stable(), rollouts.live()
    version = f"{VERSION}-{fault.replace('_', '-')}-sh"
    source = live[0].rpartition("/")[2]
    if fault == "slight_scale":
        rollouts.make_compared(source, version, fault)
    else:
        rollouts.make(source, version, fault)
    with traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version)
        status = rollouts.until(version, "RolledBack")
    (failed,) = [one for one in status["verdicts"] if one["outcome"] == "Fail"]
    assert (status["reason"], failed["test"]) == ("TestFailed", "divergence")
    print(failed["sentence"])
    assert set(watched.responses) == {(stable, "2xx")}
    assert rollouts.live() == live


def test_a_bad_candidate_is_rolled_back(rollouts, traffic):
    """Above 100 Mbit/s its prediction is not a number: the server responds with 500."""
    stable, live, version = rollouts.stable(), rollouts.live(), f"{VERSION}-bad"
    rollouts.make(VERSION, version, "nan")
    with traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version, live_tests_only=True)
        (candidate,) = rollouts.until_candidates()
        status = rollouts.until(version, "RolledBack")
    found = watched.check(stable)
    assert status["reason"] == "TestFailed"
    assert "requests failed" in status["message"]
    assert rollouts.live() == live
    assert max(one.percent for one in found) <= 5
    assert set(watched.failed()) == {(candidate, "5xx")}
    assert sum(watched.failed().values()) < 0.02 * sum(watched.responses.values())


def test_a_candidate_that_answers_a_constant_is_rolled_back(rollouts, traffic):
    """Its responses are fast and have the code 200; only what they say is wrong."""
    stable, live, version = rollouts.stable(), rollouts.live(), f"{VERSION}-constant"
    rollouts.make(VERSION, version, "constant")
    with traffic.watched(rollouts.weights) as watched:
        rollouts.apply(version, live_tests_only=True)
        status = rollouts.until(version, "RolledBack")
    found = watched.check(stable)
    assert status["reason"] == "TestFailed"
    (failed,) = [one for one in status["verdicts"] if one["outcome"] == "Fail"]
    assert failed["test"] == "prediction_distribution"
    assert rollouts.live() == live
    assert max(one.percent for one in found) < 100
    assert watched.failed() == {}


def test_a_candidate_whose_predictions_are_further_from_the_truth_is_rolled_back(
    rollouts, traffic, node, tmp_path
):
    """Each prediction is 8 % too high or too low: nothing shows it but what callers report."""
    live, version = rollouts.live(), f"{VERSION}-noise"
    rollouts.make(VERSION, version, "noise")
    services = node.service_of_pods.service
    with Traffic(tmp_path, services, rollouts.host(), reporting=True) as reporting:
        rollouts.apply(
            version, SHORT, live_tests_only=True, reportedLoss={"enabled": True, "required": True}
        )
        status = rollouts.until(version, "RolledBack")
        (failed,) = [one for one in status["verdicts"] if one["outcome"] == "Fail"]
        print(failed["sentence"], f"{reporting.reported} outcomes reported")
    assert (status["reason"], failed["test"]) == ("TestFailed", "reported_loss")
    assert rollouts.live() == live
    assert {outcome for _, outcome in reporting.responses()} == {"2xx"}
