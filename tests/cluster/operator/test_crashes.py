"""A crash before and after each write, on every path, on a real API server: the same end."""

import itertools

import pytest

from tests.cluster.operator.in_process import ClusterScenario
from tests.operator.faulty import FULL, PATHS, Strikes
from tests.operator.scenario import Crash

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

CRASHING = "first deployment that crashes"
_TRIED = 2  # of a path, where not all are


def _abort_when_unhealthy(play, number):
    if play.status.get("reason") == "FirstDeploymentUnhealthy":
        play.once("abort", lambda: play.edit(lambda one: one["spec"].update(abort=True)))


@pytest.fixture
def play(cluster, installed, history):
    def begin(path, namespace):
        spec = {}
        if path == CRASHING:
            spec["pods"] = "crash-looping"
        return ClusterScenario(cluster, namespace, first=path.startswith("first"), **spec)

    return begin


@pytest.mark.parametrize("path", PATHS)
def test_a_crash_before_or_after_any_write_changes_nothing(
    cluster, play, history, path, record_property
):
    along = _abort_when_unhealthy if path == CRASHING else PATHS[path][1]
    with cluster.namespace() as namespace:
        undisturbed = play(path, namespace)
        strikes = Strikes(undisturbed, ())
        expected = undisturbed.play(along)
        history.check(namespace)
    assert strikes.number >= 3, "nothing was written that a crash could strike"
    points = list(itertools.product(range(1, strikes.number + 1), ("before", "after")))
    # Spread over the path, another part of it for each path.
    chosen = points if FULL else points[len(path) % 5 :: max(1, len(points) // _TRIED)][:_TRIED]
    record_property("tried", len(chosen))
    for point in chosen:
        with cluster.namespace() as namespace:
            disturbed = play(path, namespace)
            Strikes(disturbed, [point], Crash)
            assert disturbed.play(along) == expected, point
            history.check(namespace)
