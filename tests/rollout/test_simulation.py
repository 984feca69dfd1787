"""Made-up rollouts: seeded, honest about their shares, and right about good and bad candidates."""

import pytest
from scipy import stats

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.simulation import Share, run_once, simulate, summarise
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.world import Traffic

SPEC = RolloutSpec(
    model="m",
    candidate=Revision(version="2", digest="b" * 64),
    stable=Revision(version="1", digest="a" * 64),
)


def test_the_same_seed_gives_the_same_rollout():
    bad = Traffic(candidate_errors=0.02)
    assert run_once(SPEC, bad, 3) == run_once(SPEC, bad, 3)
    assert run_once(SPEC, bad, 3) != run_once(SPEC, bad, 4)


def test_bad_candidates_are_caught_at_the_first_step_and_touch_few_requests():
    found = summarise(list(simulate(SPEC, Traffic(candidate_errors=0.02), 20)))
    assert found.rolled_back.count == 20
    assert found.caught_at_percent == {1: 20}
    assert found.median_touched_when_caught < 500


def test_without_traffic_everything_is_held():
    found = summarise(
        list(simulate(SPEC, Traffic(requests_per_second=0.0), 2, limit_seconds=3600.0))
    )
    assert (found.held.count, found.promoted.count, found.rolled_back.count) == (2, 0, 0)
    assert found.median_seconds_to_catch is None


@pytest.mark.parametrize(("count", "total"), [(0, 10), (3, 10), (10, 10), (19, 2000)])
def test_the_interval_is_wilsons(count, total):
    share = Share.of_counts(count, total)
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert share.low == pytest.approx(expected.low, abs=1e-12)
    assert share.high == pytest.approx(expected.high, abs=1e-12)


def test_nothing_to_run_is_refused():
    with pytest.raises(UsageError, match="at least one rollout"):
        list(simulate(SPEC, Traffic(), 0))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("errors", [0.001, 0.02])
def test_a_candidate_like_the_stable_is_taken_back_in_no_more_than_alpha(errors):
    """The binomial lower bound of the share must not lie above alpha."""
    traffic = Traffic(stable_errors=errors, candidate_errors=errors)
    found = summarise(list(simulate(SPEC, traffic, 80, look_seconds=30.0)))
    assert found.rolled_back.low <= SPEC.analysis.alpha, found
    assert found.promoted.count > 60
