"""The cluster of a test session; ``--kubeconfig`` or DWCP_CLUSTER_KUBECONFIG names another one."""

import os
import sys

import pytest
import yaml

from docs.generators.crd import crd_files
from dwcp_ml.training_run.go_client_check import GoMissing
from tests.cluster.build import build
from tests.cluster.processes import ClusterFailed

_VARIABLE = "DWCP_CLUSTER_KUBECONFIG"
_BUILT = pytest.StashKey()
_FAILED = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--kubeconfig", default=None, help="run the cluster tests on this cluster, not on our own"
    )


def pytest_collection_finish(session):
    """Build before the first test: its time limit is for the test."""
    desired = any(item.get_closest_marker("cluster") for item in session.items)
    if not desired or _existing(session.config) or session.config.option.collectonly:
        return
    try:
        session.config.stash[_BUILT] = build(lambda line: _say(session.config, line))
    except (ClusterFailed, GoMissing) as error:
        session.config.stash[_BUILT] = error


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    """A cluster for the whole session: ``tests.cluster.cluster.Cluster``."""
    from tests.cluster.cluster import ExistingCluster
    from tests.cluster.own import KwokCluster

    existing = _existing(request.config)
    if existing:
        found = ExistingCluster(existing)
        yield found
        found.end()
        return
    built = request.config.stash[_BUILT]
    if isinstance(built, Exception):
        pytest.fail(f"there is no cluster to test on: {built}", pytrace=False)
    found = KwokCluster(built)
    try:
        yield found
        found.check()
    except BaseException:
        request.config.stash[_FAILED] = True
        raise
    finally:
        if request.config.stash.get(_FAILED, False):
            target = tmp_path_factory.mktemp("cluster-logs")
            found.keep_logs(target)
            _say(request.config, f"cluster tests: the logs of the programs are in {target}")
        found.end()


@pytest.fixture
def local_cluster(cluster):
    """The same, for a test that stops programs or needs a fake controller."""
    if not cluster.is_local:
        pytest.skip("only on a cluster that the tests start")
    yield cluster
    cluster.check()


@pytest.fixture(scope="session")
def definitions(cluster):
    """Our own definitions, served: name -> document.

    On somebody's cluster those that were not there go again. Our own goes with the tests, and all
    of them need the definitions until then.
    """
    ours = {one["metadata"]["name"]: one for one in map(yaml.safe_load, crd_files().values())}
    made = cluster.define(ours.values())
    yield ours
    cluster.undefine([] if cluster.is_local else made)


@pytest.fixture
def namespace(cluster):
    """A new namespace that is deleted after the test."""
    with cluster.namespace() as name:
        yield name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and item.get_closest_marker("cluster"):
        item.config.stash[_FAILED] = True
    return report


def _existing(config):
    return config.getoption("kubeconfig", None) or os.environ.get(_VARIABLE)


def _say(config, line):
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(line, flush=True, file=sys.stderr)
