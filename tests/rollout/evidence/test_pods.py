"""Counts by pod: when a difference of the arms is one of single pods, and when the bundle's."""

import numpy as np
import pytest
from scipy import stats

from dwcp_ml.rollout.analysis import Evidence, odd_pod
from dwcp_ml.rollout.evidence import pods as p
from dwcp_ml.rollout.evidence.error_rate import DELTAS, Counts
from dwcp_ml.rollout.evidence.promotion import LatencyEvidence
from dwcp_ml.rollout.spec import Analysis


def arm(name, *counts):
    return {f"{name}-{place}": Counts(requests=n, errors=k) for place, (n, k) in enumerate(counts)}


def odd(stable, candidate):
    return p.PodCounts().update(arm("stable", *stable), arm("candidate", *candidate)).odd_pod


def test_all_pods_of_the_candidate_are_worse_than_every_pod_of_the_stable():
    assert odd([(1000, 1), (1000, 12)], [(300, 30), (300, 12)]) == ""


def test_one_pod_of_the_candidate_is_bad():
    assert odd([(1000, 1), (1000, 2)], [(300, 60), (300, 0), (300, 1)]) == "candidate-0"


def test_one_pod_of_the_stable_is_better_than_the_others():
    """A candidate like the bad half of the stable is not to blame for the good half."""
    assert odd([(1000, 40), (1000, 42), (1000, 0)], [(300, 12)]) == "stable-2"


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        ([(1000, 1)] * 9 + [(1000, 1000)], [(500, 500)] * 2),
        ([(1000, 1), (1000, 1), (1000, 50)], [(500, 22), (500, 23)]),
    ],
)
def test_one_broken_pod_of_the_stable_is_no_excuse(stable, candidate):
    assert odd(stable, candidate) == ""


def test_a_few_errors_of_the_sound_pods_do_not_blame_the_bundle():
    """One bad node under the candidate; its other pods had an error each, by chance."""
    assert odd([(3000, 2)] * 3, [(300, 60), (300, 1), (300, 1)]) == "candidate-0"


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        ([(1000, 1)], [(300, 60)]),  # single pods: nothing to compare within an arm
        ([(1000, 1)] * 3, [(300, 60), (300, 57), (300, 66)]),
        ([(1000, 1)] * 2, [(300, 60), (29, 0)]),  # the second is too young to say anything
        ([], []),
    ],
)
def test_without_a_difference_within_an_arm_the_bundle_has_to_explain_it(stable, candidate):
    assert odd(stable, candidate) == ""


def test_counts_are_added_by_pod_and_the_busiest_are_kept():
    many = {f"pod-{n}": Counts(requests=n + 1) for n in range(p.MAX_PODS + 20)}
    counts = p.PodCounts().update({}, many)
    assert len(counts.candidate) == p.MAX_PODS
    assert "pod-0" not in counts.candidate
    last = f"pod-{p.MAX_PODS + 19}"
    twice = counts.update({}, {last: Counts(requests=5, errors=1)})
    assert twice.candidate == {last: counts.candidate[last] + Counts(requests=5, errors=1)}
    assert p.PodCounts.model_validate_json(twice.to_json()) == twice


def test_a_pod_that_is_not_seen_any_more_does_not_speak_for_the_others():
    """Its counts are of before the harm."""
    counts = p.PodCounts().update(arm("stable", (900, 1)), arm("pod", (300, 0), (300, 0)))
    counts = counts.update(arm("stable", (900, 1)), {"pod-0": Counts(requests=90, errors=80)})
    assert counts.odd_pod == ""


ARMS = pytest.mark.parametrize(("stable", "candidate"), [(1, 10), (10, 1), (3, 3), (2, 2)])
DRAWS = 200


def blamed(rng, stable, candidate, *, spread=0.0, times=1.0):
    """Return how often the bundle is blamed, of draws in which 2 % of 3,000 a pod fail."""
    count = 0
    for _ in range(DRAWS):
        rates = 0.02 * np.exp(spread * rng.standard_normal(stable + candidate))
        rates[stable:] *= times
        errors = rng.binomial(3000, rates)
        pods = [(3000, int(each)) for each in errors]
        count += odd(pods[:stable], pods[stable:]) == ""
    return count


def test_an_arm_of_which_no_pod_is_seen_keeps_its_counts():
    counts = p.PodCounts().update(arm("stable", (900, 1), (900, 2)), arm("pod", (90, 0)))
    later = counts.update({}, arm("pod", (90, 80)))
    assert later.stable == counts.stable
    assert later.candidate == {"pod-0": Counts(requests=180, errors=80)}


@ARMS
def test_pods_that_differ_are_seldom_taken_for_a_worse_bundle(stable, candidate):
    count = blamed(np.random.default_rng(3), stable, candidate, spread=0.5)
    assert stats.binomtest(count, DRAWS, 0.05, alternative="greater").pvalue > 1e-3


@ARMS
def test_a_worse_bundle_on_equal_pods_is_blamed(stable, candidate):
    share = 0.7 if stable == candidate == 2 else 0.95  # of two pods little is known
    assert blamed(np.random.default_rng(4), stable, candidate, times=3.0) > share * DRAWS


def test_the_more_the_pods_differ_the_worse_a_bundle_has_to_be():
    rng = np.random.default_rng(5)
    counts = [blamed(rng, 3, 3, spread=spread, times=3.0) for spread in (0.0, 0.6)]
    assert counts[0] > 2 * counts[-1]


def test_pods_that_have_answered_little_differ_by_an_unknown_amount():
    """One pod of the stable, ten new ones: their errors can't show yet how much pods differ."""
    assert odd([(20_000, 200)], [(29, errors) for errors in (3, 0, 1, 2, 0, 0, 0, 1, 1, 0)])
    more = (90, 71, 80, 84, 75, 66, 79, 82, 91, 82)
    assert odd([(20_000, 200)], [(2900, errors) for errors in more]) == ""


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 60])
@pytest.mark.parametrize("probability", [p._SPREAD_QUANTILE, p._DIFFER_QUANTILE])
def test_the_quantile_of_chi_squared(freedom, probability):
    exact = stats.chi2.ppf(probability, freedom)
    assert 0.93 * exact < p._chi_squared(freedom, probability) < 1.02 * exact


def test_two_bad_pods_of_three_are_not_the_bundle():
    """Two clients that stick to a pod, and send only what fails."""
    assert odd([(3000, 3)] * 3, [(3000, 120), (3000, 120), (3000, 3)]).startswith("candidate")


# latency: a single pod may be on a slow node


def odd_by_speed(stable, candidate):
    counts = p.PodCounts().update(arm("stable", *stable), arm("candidate", *candidate))
    return counts.odd_pod_by_speed


@pytest.mark.parametrize(
    ("stable", "candidate", "odd_one"),
    [
        ([(1000, 10)], [(500, 30)], "candidate-0"),  # a node that is a third slower
        ([(1000, 10)], [(500, 60)], ""),  # a bundle that is half as slow again
        ([(1000, 0)], [(500, 30)], "candidate-0"),  # the least share that is expected is 1 %
        ([(1000, 10)] * 3, [(500, 30)], "candidate-0"),
        ([(1000, 10)], [(500, 30), (500, 90)], "stable-0"),
        ([(1000, 200)], [(500, 140)], "candidate-0"),  # 28 %
        ([(1000, 200)], [(500, 160)], ""),  # 32 %: no node explains it
        ([(1000, 10)], [(500, 60), (500, 90)], ""),
        ([(1000, 10)] * 2, [(500, 30)] * 2, ""),  # four nodes are not slow by chance
        ([(1000, 10)], [(29, 29)], ""),  # too few to say anything
        ([], [(500, 30)], ""),
    ],
)
def test_a_slow_node_explains_a_single_pod_only(stable, candidate, odd_one):
    assert odd_by_speed(stable, candidate) == odd_one


def test_hours_of_good_responses_do_not_hide_bad_ones():
    """After a day at 50 requests/s a bundle that is slow is beyond a slow node in 3 minutes."""
    counts = p.PodCounts()
    for _ in range(8640):
        counts = counts.update(arm("stable", (500, 5)), arm("candidate", (500, 5)))
    taken = 0
    while counts.odd_pod_by_speed:
        counts = counts.update(arm("stable", (500, 5)), arm("candidate", (500, 250)))
        taken += 1
    assert taken <= 18
    assert counts.candidate["candidate-0"].requests <= p.MAX_REQUESTS


@pytest.mark.parametrize(
    ("slow_fails", "tail_fails", "expected"),
    [(True, False, "candidate-0"), (False, True, ""), (True, True, ""), (False, False, "")],
)
def test_a_pod_has_to_explain_each_threshold_that_failed(slow_fails, tail_fails, expected):
    """A slow node explains the slow responses, and not those that take seconds."""
    start = LatencyEvidence.start(0.03)
    latency = start.replace(
        slow=_failing(start.slow, 10.0 if slow_fails else 0.0),
        tail=_failing(start.tail, 20.0 if tail_fails else 2.0),
    )
    evidence = Evidence(
        latency=latency,
        slow_by_pod=p.PodCounts(stable=arm("stable", (1000, 10)),
                                candidate=arm("candidate", (500, 30))),
        tail_by_pod=p.PodCounts(stable=arm("stable", (1000, 0)),
                                candidate=arm("candidate", (500, 10))),
    )  # fmt: skip
    assert odd_pod(Analysis(), evidence, "latency") == expected


def _failing(part, log_capital):
    harm = part.harm.replace(log_capitals=(log_capital,) * len(DELTAS), blocks=1)
    return part.replace(harm=harm)
