"""One operator for the tests of a module, and a story for each test."""

import contextlib
from datetime import datetime

import pytest

from tests.cluster.operator.history import History
from tests.cluster.operator.installed import USER, Installed, begin
from tests.cluster.operator.servers import FakePrometheus


@pytest.fixture(scope="session")
def installed(cluster, tmp_path_factory):
    if not cluster.is_local:
        pytest.skip("only on a cluster that the tests start")
    found = Installed(cluster, tmp_path_factory.mktemp("operator"))
    yield found
    forbidden = [call["requestURI"] for call in cluster.calls(USER) if _is_refused(cluster, call)]
    assert not forbidden, f"the operator was refused: {forbidden[:5]}"


def _is_refused(cluster, call):
    status = call.get("responseStatus", {})
    if status.get("code") != 403 or "is being terminated" in status.get("message", ""):
        return False
    at = datetime.fromisoformat(call["requestReceivedTimestamp"])
    return not any(began <= at <= over for began, over in cluster.restarts)


@pytest.fixture(scope="session")
def history(cluster, installed):
    found = History(cluster.rest)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def prometheus():
    found = FakePrometheus()
    yield found
    found.end()


@pytest.fixture(scope="module")
def operator(installed, prometheus):
    """The name of a process, and the port of its pages."""
    name, port = installed.start("operator", prometheus.address)
    yield name, port
    assert installed.stop(name) == 0, "it did not end when it was told to"


@pytest.fixture(scope="module")
def told(cluster, installed, prometheus, history):
    """Begin stories, all at the same time: see ``begin``."""
    with contextlib.ExitStack() as stack:
        yield lambda stories: begin(stories, cluster, prometheus, stack)
