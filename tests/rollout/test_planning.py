"""How long each step would take, from simulated rollouts."""

from dwcp_ml.rollout.planning import step_times
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.spec import any_rollout

QUICK = {
    "steps": [
        {"traffic_percent": 10, "minimum_requests": 200, "dwell_seconds": 60},
        {"traffic_percent": 100, "minimum_requests": 200, "dwell_seconds": 60},
    ],
    "analysis": {"warm_up_seconds": 0, "error_rate": {"margin": 0.05}, "latency": {"margin": 0.1}},
    "watch_seconds": 0,
}


def times(requests_per_second, step_seconds=3600.0, **more):
    traffic = Traffic(requests_per_second=requests_per_second, **more)
    return step_times(any_rollout(QUICK), traffic, step_seconds, rollouts=5)


def test_more_traffic_decides_sooner_and_never_before_the_dwell():
    slow, fast = times(5.0), times(50.0)
    assert [step.traffic_percent for step in fast] == [10, 100]
    assert fast[0].median_seconds < slow[0].median_seconds
    assert min(step.median_seconds for step in (*fast, *slow)) >= 60.0
    assert all(step.median_seconds <= step.p90_seconds for step in (*fast, *slow))


def test_too_little_traffic_decides_nothing_in_time():
    first, last = times(0.05, step_seconds=600.0)
    assert first.median_seconds is None
    assert first.p90_seconds is None
    assert last.p90_seconds is None


def test_a_bad_candidate_lets_no_step_pass():
    first, _ = times(50.0, candidate_errors=0.5)
    assert first.p90_seconds is None
