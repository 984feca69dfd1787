"""Many rollouts at once through an API server that restarts, refuses, and answers too late."""

import contextlib
import threading
import time

import pytest

from dwcp_ml.kube.client import connect
from dwcp_ml.operator.app import Operator
from dwcp_ml.operator.settings import Intervals, OperatorSettings
from tests.cluster.operator.faulty_api import faulty
from tests.cluster.operator.installed import begin
from tests.operator.fake_servers import digest_of
from tests.operator.faulty import count
from tests.operator.rules import ENDED
from tests.operator.scenario import digest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(7200),
    # Of a server that was killed; our end of such a connection goes with its last reference.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
    ),
]

_AT_ONCE = 50
_FAULTS = 0.1
_PLOTS = (
    {}, {"bad_at": 10}, {"first": True}, {"bad_at": 100}, {"mode": "Knative"},
    {}, {"bad_at": 50}, {"mode": "Knative", "bad_at": 10}, {}, {"bad_at": 10},
)  # fmt: skip


def plot(number):
    return {"shares": (10, 50, 100), **_PLOTS[number % len(_PLOTS)]}


@contextlib.contextmanager
def running(installed, prometheus, api):
    """Run an operator in this process, over an API of ours; lists take the place of watches."""
    settings = OperatorSettings(
        identity="many", port=0, prometheus=prometheus.address,
        intervals=Intervals(reconcile_seconds=1.0, conflict_seconds=0.2),
    )  # fmt: skip
    operator = Operator(settings, api)
    operator.begin()

    def keep_listing():
        while not operator.stop.wait(1.0):
            operator.list_all()

    threading.Thread(target=keep_listing, daemon=True).start()
    try:
        yield operator
    finally:
        operator.end()


def test_rollouts_end_as_they_should_though_one_request_in_ten_fails(
    cluster, installed, prometheus, history, record_property
):
    total = count(1000)
    own = connect(installed.kubeconfig)
    with faulty(own._client, _FAULTS) as (api, session), running(installed, prometheus, api):
        for first in range(0, total, _AT_ONCE):
            with contextlib.ExitStack() as stack:
                plots = {
                    number: plot(number) for number in range(first, min(total, first + _AT_ONCE))
                }
                stories = begin(plots, cluster, prometheus, stack)
                time.sleep(3.0)
                cluster.restart_api_server()
                for number, story in stories.items():
                    _check(story, plots[number], history)
    assert all(session.failed.values()), session.failed
    record_property("tried", total)
    record_property("requests", session.requests)
    record_property("failed", sum(session.failed.values()))


def _check(story, how, history):
    phase = "RolledBack" if "bad_at" in how else "Promoted"
    assert story.until(*ENDED, seconds=300.0)["phase"] == phase, how
    if how.get("mode") != "Knative":
        expected = digest(1) if phase == "RolledBack" else digest(2)
        assert digest_of(story.service["spec"]["predictor"]) == expected
        assert not story.service["spec"].get("canary")
    history.check(story.namespace)
