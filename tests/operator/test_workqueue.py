"""The queue of what is due, the pauses after a failure, and the workers, by themselves."""

import threading

from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.operator.workqueue import IN_A_ROW, MAX_PAUSE_SECONDS, Pauses, Queue, work
from tests.operator.scenario import KEY

ITEM = (MODEL_ROLLOUT.kind, KEY)


def test_an_object_is_with_one_worker_at_a_time_and_nothing_is_forgotten():
    now = [0.0]
    queue = Queue(lambda: now[0])
    queue.add(ITEM)
    assert queue.take(0) == ITEM
    queue.add(ITEM)
    assert queue.take(0) is None, "it is busy"
    queue.done(ITEM, 10.0)
    assert queue.take(0) == ITEM, "what came in the meantime was not forgotten"
    queue.done(ITEM, 10.0)
    assert queue.take(0) is None
    now[0] = 10.0
    assert queue.take(0) == ITEM
    queue.done(ITEM, None)
    now[0] = 1e6
    assert queue.take(0) is None
    assert queue.items() == set()


def test_an_event_moves_a_look_forward_and_never_back():
    now = [0.0]
    queue = Queue(lambda: now[0])
    queue.add(ITEM, 5.0)
    queue.add(ITEM, 50.0)
    now[0] = 5.0
    assert queue.take(0) == ITEM
    queue.done(ITEM, 50.0)
    queue.add(ITEM, 1.0)
    now[0] = 6.0
    assert queue.due() == 1
    assert queue.take(0) == ITEM
    queue.done(ITEM, None)
    now[0] = 100.0
    assert queue.take(0) is None, "the reconciliation that was moved forward is not made again"


def test_what_is_preferred_goes_before_what_has_been_due_for_longer():
    now = [0.0]
    queue = Queue(lambda: now[0])
    usual = [(MODEL_ROLLOUT.kind, ("space", f"usual-{number}")) for number in range(3)]
    for one in (*usual, ITEM):
        queue.add(one)
        now[0] += 0.01
    assert [queue.take(0) for _ in range(4)] == [*usual, ITEM]
    queue.prefer(ITEM, True)
    for one in usual:
        queue.done(one, 1.0)
        now[0] += 0.01
    queue.done(ITEM, 1.5)
    now[0] = 1.2
    assert queue.take(0) == usual[0], "the preferred one is not due yet"
    now[0] = 2.0
    assert [queue.take(0) for _ in range(3)] == [ITEM, *usual[1:]]
    queue.prefer(ITEM, False)
    queue.done(usual[1], 0.0)
    now[0] += 0.01
    queue.done(ITEM, 0.0)
    assert [queue.take(0) for _ in range(2)] == [usual[1], ITEM]


def test_what_is_preferred_never_keeps_the_others_waiting_for_ever():
    now = [0.0]
    queue = Queue(lambda: now[0])
    first = [(MODEL_ROLLOUT.kind, ("space", f"first-{number}")) for number in range(5)]
    usual = [(MODEL_ROLLOUT.kind, ("space", f"usual-{number}")) for number in range(2)]
    for one in first:
        queue.prefer(one, True)
    for one in (*first, *usual):
        queue.add(one)
    taken = []
    for _ in range(12):  # more is always due than can be reconciled
        now[0] += 1.0
        taken.append(queue.take(0))
        queue.done(taken[-1], 0.0)
    assert set(taken) == {*first, *usual}
    assert sum(one in usual for one in taken) == 12 // (IN_A_ROW + 1)


def test_a_preference_ends_with_its_object():
    now = [0.0]
    queue = Queue(lambda: now[0])
    other = (MODEL_ROLLOUT.kind, ("space", "other"))
    queue.prefer(ITEM, True)
    queue.add(ITEM)
    assert queue.take(0) == ITEM
    queue.done(ITEM, None)
    queue.add(other)
    now[0] += 0.01
    queue.add(ITEM)
    now[0] += 0.01
    assert queue.take(0) == other, "another object of that name is not preferred"


def test_pauses_grow_and_are_bounded():
    pauses = Pauses()
    found = [pauses.after_failure(ITEM) for _ in range(10)]
    assert found[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(found) == MAX_PAUSE_SECONDS
    assert pauses.after_failure(ITEM, 90.0) == 90.0
    pauses.forget(ITEM)
    assert pauses.after_failure(ITEM) == 1.0


def test_no_error_ends_a_worker():
    queue, processed = Queue(), []

    def reconcile(item):
        processed.append(item)
        if len(processed) == 3:
            queue.close()
        raise ValueError("a bug")

    queue.add(ITEM)
    thread = threading.Thread(target=work, args=(queue, reconcile, lambda item, error: 0.0))
    thread.start()
    thread.join(20)
    assert len(processed) == 3


# the pages
