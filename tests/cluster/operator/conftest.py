"""One operator for the tests of a module, and a story for each test."""

import contextlib

import pytest

from dwcp_ml.adapters.kube_client import connect
from tests.cluster.operator.history import History
from tests.cluster.operator.installed import USER, Installed, Story
from tests.cluster.operator.servers import PlayedPrometheus


@pytest.fixture(scope="session")
def installed(cluster, tmp_path_factory):
    if not cluster.is_played:
        pytest.skip("not on somebody's cluster")
    found = Installed(cluster, tmp_path_factory.mktemp("operator"))
    yield found
    forbidden = [
        call for call in cluster.calls(USER)
        if call.get("responseStatus", {}).get("code") == 403
    ]  # fmt: skip
    assert not forbidden, f"the operator was refused: {forbidden[:3]}"


@pytest.fixture(scope="session")
def history(cluster, installed):
    found = History(cluster.rest)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def prometheus():
    found = PlayedPrometheus()
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
    """Begin stories, all at the same time: ``told({name: how})`` returns name -> ``Story``.

    ``how`` is what ``Story`` takes, ``bad_at`` and ``when`` (see ``Servers``).
    """
    api = connect(cluster.kubeconfig)
    with contextlib.ExitStack() as stack:

        def story(*, bad_at=None, when=None, **how):
            namespace = stack.enter_context(cluster.namespace())
            found = Story(cluster, namespace, prometheus, api, **how)
            found.servers.bad_at = bad_at
            if when is not None:
                share, do = when
                found.servers.when = [(share, lambda: do(found))]
            return found

        def begin(stories):
            found = {name: story(**how) for name, how in stories.items()}
            for one in found.values():
                one.begin()
            return found

        yield begin
