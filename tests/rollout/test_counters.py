"""Differences of cumulative counters: restarts, resets, replicas that come and go."""

from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.rollout.counters import MAX_GONE, ArmCounters, WarmUp, since
from dwcp_ml.rollout.observation import ArmSample, BucketCounts, Histogram, ReplicaSample

BEGAN = 1000.0


def replica(requests, errors=0, *, name="a", started=BEGAN + 1, latency=None):
    return ReplicaSample(
        replica=name, started_at=started, requests=requests, errors=errors, latency=latency
    )


NO_WARM_UP = WarmUp(seconds=0.0, requests=5, tick=10.0)


def poll(last, *replicas, warm_up=NO_WARM_UP):
    return since(last, ArmSample(version="1", replicas=replicas), BEGAN, warm_up)


def histogram(*counts, edges=(0.01, 0.1)):
    return Histogram(edges=edges, counts=counts)


def test_a_young_replica_counts_from_its_start_and_an_old_one_from_now():
    young, _ = poll(ArmCounters(), replica(30, 2))
    old, counters = poll(ArmCounters(), replica(3000, 20, started=BEGAN - 1))
    assert (young.requests, young.errors) == (30, 2)
    assert (old.requests, old.errors) == (0, 0)
    later, _ = poll(counters, replica(3040, 21, started=BEGAN - 1))
    assert (later.requests, later.errors) == (40, 1)


def test_a_restarted_replica_begins_again_at_zero():
    _, counters = poll(ArmCounters(), replica(100, 5))
    block, _ = poll(counters, replica(120, 1, started=BEGAN + 50))
    assert (block.requests, block.errors) == (120, 1)


def test_a_counter_that_fell_without_a_restart_was_reset():
    _, counters = poll(ArmCounters(), replica(100, 5))
    block, _ = poll(counters, replica(7, 0))
    assert (block.requests, block.errors) == (7, 0)
    block, _ = poll(counters, replica(120, 1))
    assert (block.requests, block.errors) == (120, 1), "errors never decrease"
    block, _ = poll(counters, replica(110, 60))
    assert (block.requests, block.errors) == (110, 60), "more errors than requests: another life"


def test_a_replica_that_is_gone_takes_nothing_back():
    _, counters = poll(ArmCounters(), replica(100), replica(50, name="b"))
    block, counters = poll(counters, replica(110))
    assert block.requests == 10
    again, _ = poll(counters, replica(110), replica(53, name="b"))
    assert again.requests == 3, "one that comes back is not counted twice"


def test_of_the_replicas_that_are_gone_only_the_newest_are_remembered():
    counters = ArmCounters()
    for number in range(40):
        _, counters = poll(counters, replica(1, name=str(number)))
    assert set(counters.replicas) == {str(number) for number in range(39 - MAX_GONE, 40)}


def test_histograms_are_subtracted_and_added_bucket_by_bucket():
    first = histogram(5, 8, 9)
    _, counters = poll(
        ArmCounters(), replica(9, latency=first), replica(9, name="b", latency=first)
    )
    block, _ = poll(
        counters,
        replica(12, latency=histogram(6, 10, 12)),
        replica(10, name="b", latency=histogram(5, 8, 10)),
    )
    assert block.latency == histogram(1, 2, 4)


def test_other_buckets_are_not_added_up():
    block, _ = poll(
        ArmCounters(),
        replica(1, latency=histogram(1, 1, 1)),
        replica(1, name="b", latency=histogram(1, 1, 1, edges=(0.02, 0.2))),
        replica(1, name="c", latency=histogram(1, 1, 1)),
    )
    assert block.unequal_buckets
    assert block.latency is None
    assert block.requests == 3, "the requests and errors of all of them still count"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=20))
def test_every_request_is_counted_once_whatever_restarts(history):
    """Against a plain sum: the polls see all that was counted, if each life is seen at its end."""
    counters, seen, total, counted, errors, life = ArmCounters(), [0, 0], [0, 0], 0, 0, 0
    for good, bad, restart in history:
        if restart:
            life, counted, errors = life + 1, 0, 0
        counted, errors = counted + good + bad, errors + bad
        total = [total[0] + good + bad, total[1] + bad]
        block, counters = poll(counters, replica(counted, errors, started=BEGAN + 1 + life))
        seen = [seen[0] + block.requests, seen[1] + block.errors]
    assert seen == total


@given(st.lists(st.integers(0, 100), min_size=1, max_size=10), st.data())
def test_a_look_that_was_lost_comes_back_as_one_larger_block(steps, data):
    kept = data.draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
    counters, seen, counted = ArmCounters(), 0, 0
    for step, stored in zip(steps, [*kept[:-1], True], strict=True):
        counted += step
        block, after = poll(counters, replica(counted))
        if stored:
            counters, seen = after, seen + block.requests
    assert seen == counted


def counted(*samples, warm_up, last=None):
    """Return the requests that count of each sample of one replica, 10 s apart."""
    counters, blocks = last or ArmCounters(), []
    for sample in samples:
        block, counters = poll(counters, sample, warm_up=warm_up)
        blocks.append((block.requests, block.warm_up_requests))
    return blocks


WARM_UP = WarmUp(seconds=20.0, requests=5, tick=10.0)


def test_a_new_replica_counts_from_20_s_after_its_first_response():
    samples = [replica(total) for total in (0, 0, 3, 40, 90, 100)]
    blocks = counted(*samples, warm_up=WARM_UP)
    assert blocks == [(0, 0), (0, 0), (0, 3), (0, 37), (0, 50), (10, 0)]


def test_a_new_replica_with_little_traffic_counts_from_its_sixth_response():
    samples = [replica(total) for total in (1, 2, 3, 4, 5, 6, 8)]
    assert counted(*samples, warm_up=WARM_UP)[-3:] == [(0, 1), (1, 0), (2, 0)]


def test_a_replica_that_is_older_than_the_rollout_is_warm():
    samples = [replica(total, started=BEGAN - 1) for total in (7000, 7010)]
    assert counted(*samples, warm_up=WARM_UP) == [(0, 0), (10, 0)]


def test_a_replica_that_restarted_warms_up_again():
    warm = [replica(total) for total in (10, 20, 30, 40)]
    cold = [replica(total, started=BEGAN + 60) for total in (10, 20, 30, 40)]
    blocks = counted(*warm, *cold, warm_up=WARM_UP)
    assert blocks == [(0, 10), (0, 10), (0, 10), (10, 0)] * 2


def test_of_two_replicas_only_the_warm_one_counts():
    last = ArmCounters()
    for total in (10, 20, 30):
        _, last = poll(last, replica(total), warm_up=WARM_UP)
    block, last = poll(last, replica(40, 1), replica(9, 9, name="b"), warm_up=WARM_UP)
    assert (block.requests, block.errors, block.warm_up_requests) == (10, 1, 9)
    assert not last.is_warming
    _, only = poll(ArmCounters(), replica(9, name="b"), warm_up=WARM_UP)
    assert only.is_warming


def test_rejected_requests_are_counted_apart():
    one = replica(10).replace(rejected=2)
    block, counters = poll(ArmCounters(), one)
    assert (block.refused.errors, block.failed.errors) == (2, 0)
    block, _ = poll(counters, replica(20, 1).replace(rejected=9))
    assert (block.requests, block.errors, block.rejected) == (10, 1, 7)


def predicting(requests, **counts):
    predictions = BucketCounts(buckets="b", counts=counts)
    return replica(requests).replace(predictions=predictions)


def test_predictions_are_those_since_the_last_reconciliation():
    _, counters = poll(ArmCounters(), predicting(10, one=4, two=6))
    block, _ = poll(counters, predicting(15, one=4, two=9, three=2))
    assert block.predictions == BucketCounts(buckets="b", counts={"two": 3, "three": 2})


def test_fewer_predictions_in_a_bucket_are_those_of_a_new_process():
    _, counters = poll(ArmCounters(), predicting(10, one=4, two=6))
    block, _ = poll(counters, predicting(15, one=3, two=12))
    assert (block.requests, block.predictions.counts) == (15, {"one": 3, "two": 12})


def test_the_predictions_of_replicas_add_up_if_all_report_them_in_the_same_buckets():
    first, second = predicting(3, one=3), predicting(4, one=1, two=3).replace(replica="b")
    block, _ = poll(ArmCounters(), first, second)
    assert block.predictions.counts == {"one": 4, "two": 3}
    assert dict(block.pods)["b"].predictions.counts == {"one": 1, "two": 3}
    for other in (second.replace(predictions=None),
                  second.replace(predictions=BucketCounts(buckets="c"))):  # fmt: skip
        block, _ = poll(ArmCounters(), first, other)
        assert block.predictions is None


def test_what_a_replica_predicts_while_it_warms_up_does_not_count():
    warm_up = WarmUp(seconds=20.0, requests=5, tick=10.0)
    block, _ = poll(ArmCounters(), predicting(3, one=3), warm_up=warm_up)
    assert block.predictions == BucketCounts(buckets="b")
