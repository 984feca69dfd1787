"""The cluster of ``run.sh``, and the load that runs all the time."""

from contextlib import contextmanager

import pytest

from tests.cluster.processes import ClusterFailed, eventually
from tests.kind.live.run import VERSION, Reference, first_bundle

_ORDER = {
    "test_policies": 1,
    "test_pipeline": 2,
    "test_canary": 3,
    "test_chaos": 4,
    "test_knative": 5,
}


def pytest_collection_modifyitems(items):
    """The pipeline first: the rollouts start with the candidates that it publishes."""
    items.sort(key=lambda item: _ORDER.get(item.path.stem, 0))


@pytest.fixture(scope="session")
def node():
    """The ``KindCluster``, with operator and runtime installed."""
    from tests.kind.live.cluster import of_environment

    try:
        found = of_environment()
    except ClusterFailed as error:
        pytest.fail(f"there is no cluster to test on: {error}", pytrace=False)
    try:
        yield found
        found.check()
    finally:
        found.end()


@pytest.fixture(scope="session")
def models(node):
    """The directory of the servers' volume."""
    from tests.kind.live.cluster import CLAIM, volume

    directory = node.volumes / "models"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)  # the pipeline's pod writes there
    node.apply(*volume(CLAIM, directory.name, "ReadWriteMany"))
    return directory


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The run on this machine that the run in pods is compared with, in the background."""
    with Reference(tmp_path_factory.mktemp("reference")) as found:
        yield found


@pytest.fixture(scope="session")
def in_pods(node):
    """Where the pipeline's steps run as pods."""
    from tests.kind.live.run import InPods

    return InPods(node, node.volumes / "pipeline-run")


@pytest.fixture(scope="session")
def trained(reference, in_pods):
    """The verdict of the gate on the run in pods; the reference runs at the same time."""
    return in_pods.train()


@pytest.fixture(scope="session")
def rollouts(node, models, request):
    """The bandwidth predictor's ModelRollout, with the first version live."""
    from tests.kind.live.rollouts import Rollouts

    return _with_first_version(Rollouts(node, models), request)


@pytest.fixture(scope="session")
def knative_rollouts(node, models, request):
    """A ModelRollout in Knative mode, with the first version live.

    A node of two CPUs has no room beside the models that the steps before have deployed.
    """
    from tests.kind.live.rollouts import KnativeRollouts

    node.remove_models()
    return _with_first_version(KnativeRollouts(node, models), request)


def _with_first_version(found, request):
    if not found.status():  # nothing was published: the step train was left out
        if not found.bundle(VERSION).exists():
            first_bundle(request.getfixturevalue("reference").result(), found.bundle(VERSION))
        found.apply(VERSION)
    found.until(VERSION, "Promoted")
    return found


@pytest.fixture(scope="session")
def traffic(rollouts, node, tmp_path_factory):
    """A load that runs from the first deployment to the end of the session."""
    with _load(rollouts, node, tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="session")
def knative_traffic(knative_rollouts, node, tmp_path_factory):
    """The same load on the model in Knative mode."""
    with _load(knative_rollouts, node, tmp_path_factory) as found:
        yield found


@contextmanager
def _load(rollouts, node, directories):
    from tests.kind.live.load import Traffic

    directory, services = directories.mktemp("traffic"), node.service_of_pods.service
    with Traffic(directory, services, rollouts.host()) as found:
        eventually(lambda: found.responses()[(rollouts.stable(), "2xx")], 60.0, alive=node.check)
        yield found
