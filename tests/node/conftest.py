"""The node of the session with everything installed, and the load that runs all the time."""

import os

import pytest

from tests.cluster.build import PROGRAMS, build
from tests.cluster.processes import ClusterFailed
from tests.node.run import Reference

_ORDER = {"test_shared": 1, "test_pipeline": 2, "test_canary": 3, "test_chaos": 4}


def pytest_collection_modifyitems(items):
    """The pipeline first: the rollouts start with the candidates that it publishes."""
    items.sort(key=lambda item: _ORDER.get(item.path.stem, 0))


@pytest.fixture(scope="session")
def inside():
    if "DWCP_NODE_INSIDE" not in os.environ:
        pytest.fail("a node needs namespaces of its own: run `make cluster-test`.", pytrace=False)


@pytest.fixture(scope="session")
def reference(inside, tmp_path_factory):
    """The run on this machine that the run in pods is compared with, in the background."""
    with Reference(tmp_path_factory.mktemp("reference")) as found:
        yield found


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The directory of the servers' volume."""
    directory = tmp_path_factory.mktemp("models")
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def bare(inside):
    """A ``NodeCluster`` with KServe, without the operator."""
    from tests.node.cluster import NodeCluster

    try:
        found = NodeCluster(build(modules=PROGRAMS))
    except ClusterFailed as error:
        pytest.fail(f"there is no node to test on: {error}", pytrace=False)
    try:
        yield found
        found.check()
    finally:
        try:
            found.keep_logs(os.environ["DWCP_NODE_LOGS"])
        finally:
            found.end()


@pytest.fixture(scope="session")
def node(bare, models):
    """The same with operator and runtime installed."""
    bare.install(models)
    return bare


@pytest.fixture(scope="session")
def in_pods(node, tmp_path_factory):
    """Where the pipeline's steps run as pods."""
    from tests.node.run import InPods

    return InPods(node, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def trained(reference, in_pods):
    """The verdict of the gate on the run in pods; the reference runs at the same time."""
    return in_pods.train()


@pytest.fixture(scope="session")
def rollouts(node, models, request):
    """The bandwidth predictor's ModelRollout, with the first version live."""
    from tests.node.rollouts import Rollouts
    from tests.node.run import VERSION, first_bundle

    found = Rollouts(node, models)
    if not found.status():  # test_pipeline was deselected, or failed
        if not found.bundle(VERSION).exists():
            first_bundle(request.getfixturevalue("reference").result(), found.bundle(VERSION))
        found.apply(VERSION)
    found.until(VERSION, "Promoted")
    return found


@pytest.fixture(scope="session")
def traffic(rollouts, node, tmp_path_factory):
    """A load that runs from the first deployment to the end of the session."""
    from tests.cluster.processes import eventually
    from tests.node.traffic import Traffic

    with Traffic(tmp_path_factory.mktemp("traffic"), node.service_of_pods.service) as found:
        eventually(lambda: found.responses()[(rollouts.stable(), "2xx")], 60.0, alive=node.check)
        yield found
