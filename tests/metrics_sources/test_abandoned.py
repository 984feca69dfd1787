"""Requests that the gateway gave up count against the candidate, from the page to the roll-back."""

import pytest

from dwcp_ml.metrics_sources.samples import Expected, arm_of, replica_of
from dwcp_ml.metrics_sources.scrape import parse
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.status import Phase
from tests.metrics_sources.metrics import MODEL, VERSION, lines, page
from tests.rollout.histories import Run

EXPECTED = Expected(MODEL, VERSION)
SERIES = f'dwcp_requests_total{{model="{MODEL}",version="{VERSION}",code="%d"}} %d'


def read(content, name="a"):
    replica = replica_of(name, list(parse(content)), EXPECTED)
    assert replica.error == ""
    return replica


def test_an_abandoned_request_counts_like_a_4xx_and_is_no_error():
    sample = read(page(codes=[200] * 5 + [499] * 3 + [500] + [404] * 2)).sample
    assert (sample.requests, sample.errors, sample.rejected) == (11, 1, 5)
    assert sample.latency.counts[-1] == 11


def pages_of(arm, abandoned):
    """Return an arm whose counters come from pages; a share of its requests was abandoned."""
    replicas = []
    for each in arm.replicas:
        lost = int(each.requests * abandoned)
        series = {"ok": SERIES % (200, each.requests - lost), "bad": SERIES % (499, lost)}
        histogram = f'dwcp_request_seconds_bucket{{model="{MODEL}",version="{VERSION}",le="%s"}} %d'
        series["low"] = histogram % ("0.01", each.requests - lost)
        series["inf"] = histogram % ("+Inf", each.requests)
        started = f"process_start_time_seconds {each.started_at}"
        replicas.append(read(lines(started=started, **series), each.replica))
    return arm.replace(replicas=arm_of(replicas, EXPECTED).replicas)


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_a_candidate_that_hangs_until_the_gateway_gives_up_is_rolled_back(share):
    run = Run(traffic=Traffic(stable_errors=0.0, candidate_errors=0.0))
    for _ in range(100):
        run.world.pass_time(10.0)
        seen = run.world.observe()
        run.reconcile(
            seen.replace(
                stable=pages_of(seen.stable, 0.0), candidate=pages_of(seen.candidate, share)
            ),
            seconds=0.0,
        )
        if run.status.ended:
            break
    assert run.status.phase is Phase.ROLLED_BACK
    assert (run.status.cause.reason, run.status.cause.test) == (
        Reason.TEST_FAILED,
        "rejection_rate",
    )
    assert run.world.live_percent == 0


def test_a_gateway_that_gives_both_arms_up_alike_rolls_nothing_back():
    run = Run(traffic=Traffic(stable_errors=0.0, candidate_errors=0.0))
    for _ in range(60):
        run.world.pass_time(10.0)
        seen = run.world.observe()
        run.reconcile(
            seen.replace(
                stable=pages_of(seen.stable, 0.05), candidate=pages_of(seen.candidate, 0.05)
            ),
            seconds=0.0,
        )
    assert run.status.phase is not Phase.ROLLED_BACK
