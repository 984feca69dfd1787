"""Four small bundles for every test of the server, and servers in processes of their own."""

import asyncio

import pytest

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.observers import Observers
from dwcp_ml.serving.repository import load_models
from tests.serving.bundles import MODELS, make_bundle
from tests.serving.running import Server


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A directory with one bundle of each model."""
    directory = tmp_path_factory.mktemp("bundles")
    for name in MODELS:
        make_bundle(directory, name)
    return directory


@pytest.fixture(scope="session")
def models(model_dir):
    """The same, loaded: full name to ``ServedModel``."""
    return load_models(model_dir)


@pytest.fixture
def make_engine(models):
    """Return an engine of the models: ``make_engine(limits=..., sketches=..., log=...)``."""
    made = []

    def make(limits=None, **observers):
        metrics = ServerMetrics()
        metrics.serve(models.values())
        engine = Engine(models, limits or Limits(), Observers(metrics, **observers))
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def run():
    """Run a coroutine to its end, 10 seconds at most."""

    def until_done(coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 10.0))

    return until_done


def _served(model_dir, place, *words):
    running = Server(model_dir, place, *words)
    try:
        yield running
        assert running.process.poll() is None, running.log()
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    finally:
        running.kill()


@pytest.fixture(scope="session")
def server(model_dir, tmp_path_factory):
    """A server with the default options."""
    yield from _served(model_dir, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def pb():
    """The messages of the Open Inference Protocol, as KServe's SDK has them."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    return pb


@pytest.fixture(scope="session")
def stub(server):
    """A gRPC client of the server."""
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield stubs.GRPCInferenceServiceStub(channel)
