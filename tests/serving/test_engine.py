"""The engine: batches, the thread for large requests, failures."""

import asyncio

import numpy as np
import pytest

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import ModelFailed, ModelNotFound, ModelUnavailable, RequestRejected
from dwcp_ml.serving.request import PredictRequest
from tests.serving.bundles import MODELS, VERSION, rows_for


@pytest.fixture
def runs(models, monkeypatch):
    """Record every run: a list of (model, rows)."""
    runs = []
    for name, model in models.items():

        def run(rows, name=name, real=model.run):
            runs.append((name, len(rows)))
            return real(rows)

        monkeypatch.setattr(model, "run", run)
    return runs


def submit(engine, name, rows, results):
    """Submit a request; its result is appended to ``results`` as (rows, result)."""
    model = engine.model(name)
    on_result = lambda result: results.append((rows, result))  # noqa: E731
    engine.submit(PredictRequest(model, rows, "id", None, None, "v1", on_result))


async def until(results, number):
    while len(results) < number:
        await asyncio.sleep(0)


def equal(models, name, results):
    for rows, result in results:
        for output, values in models[name].run(rows).items():
            np.testing.assert_allclose(result[output], values, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_requests_of_one_iteration_share_a_run(make_engine, models, runs, run, name):
    engine, results = make_engine(), []

    async def go():
        for number in range(1, 9):
            submit(engine, name, rows_for(name, number, seed=number), results)
        assert results == []
        assert engine.in_flight == 8
        await until(results, 8)

    run(go())
    assert runs == [(name, 36)]
    assert engine.in_flight == 0
    assert [len(rows) for rows, _ in results] == list(range(1, 9))
    equal(models, name, results)


def test_each_model_has_a_run_of_its_own(make_engine, models, runs, run):
    engine = make_engine()
    results = {name: [] for name in MODELS}

    async def go():
        for number in range(3):
            for name in MODELS:
                submit(engine, name, rows_for(name, 1, seed=number), results[name])
        for result in results.values():
            await until(result, 3)

    run(go())
    assert sorted(runs) == sorted((name, 3) for name in MODELS)
    for name in MODELS:
        equal(models, name, results[name])


def test_requests_of_the_next_iteration_are_another_run(make_engine, runs, run):
    engine, results = make_engine(), []
    name = "reliability_detector"

    async def go():
        for number in range(3):
            submit(engine, name, rows_for(name, 1), results)
            await until(results, number + 1)

    run(go())
    assert runs == [(name, 1)] * 3


def test_a_run_holds_no_more_rows_than_it_may(make_engine, models, runs, run):
    engine, results = make_engine(Limits(batch_rows=10)), []
    name = "compression_selector"

    async def go():
        for number, size in enumerate((4, 6, 1, 20, 9, 1)):
            submit(engine, name, rows_for(name, size, seed=number), results)
        await until(results, 6)

    run(go())
    assert [rows for _, rows in runs] == [10, 1, 20, 10]
    equal(models, name, results)


def test_large_requests_go_to_the_thread_and_small_ones_pass_them(make_engine, models, run):
    engine, results = make_engine(Limits(inline_rows=4)), []
    name = "bandwidth_predictor"

    async def go():
        submit(engine, name, rows_for(name, 5), results)
        submit(engine, name, rows_for(name, 4), results)
        await until(results, 2)

    run(go())
    assert [len(rows) for rows, _ in results] == [4, 5]
    equal(models, name, results)


def test_large_requests_that_wait_are_bounded(make_engine, models, run):
    engine, results = make_engine(Limits(inline_rows=4, waiting_large=2)), []
    name = "reliability_detector"

    async def go():
        for _ in range(5):
            submit(engine, name, rows_for(name, 5), results)
        await until(results, 5)
        submit(engine, name, rows_for(name, 5), results)  # the thread has finished the others
        await until(results, 6)

    run(go())
    rejected = [result for _, result in results if isinstance(result, RequestRejected)]
    assert len(rejected) == 3
    assert all(isinstance(result, ModelUnavailable) for result in rejected)
    assert not isinstance(results[-1][1], RequestRejected)
    assert engine.in_flight == 0


@pytest.mark.parametrize("rows", [1, 100])
def test_a_failed_run_is_reported_to_each_request(
    make_engine, models, monkeypatch, run, rows, caplog
):
    engine, results = make_engine(), []
    name = "consensus_latency"

    def broken(rows):
        raise RuntimeError("/a/secret/path")

    monkeypatch.setattr(models[name], "run", broken)

    async def go():
        for _ in range(3):
            submit(engine, name, rows_for(name, rows), results)
        await until(results, 3)

    run(go())
    for _, result in results:
        assert isinstance(result, ModelFailed)
        assert str(result) == f"{name} failed on this request (RuntimeError); see its log."
    assert "/a/secret/path" in caplog.text


def test_a_prediction_that_is_not_finite_is_an_error(make_engine, models, monkeypatch, run):
    engine, results = make_engine(), []
    name = "bandwidth_predictor"
    result = {"next_throughput_mbps": np.array([np.nan, 1.0], np.float32)}
    monkeypatch.setattr(models[name], "run", lambda rows: result)

    async def go():
        submit(engine, name, rows_for(name, 1), results)
        submit(engine, name, rows_for(name, 1), results)
        await until(results, 2)

    run(go())
    assert isinstance(results[0][1], ModelFailed)
    assert results[1][1]["next_throughput_mbps"].tolist() == [1.0]


@pytest.mark.parametrize("number", [1, 2])
def test_a_failing_observer_or_connection_affects_no_other(make_engine, run, caplog, number):
    class Broken:
        def add(self, *arguments):
            raise RuntimeError("the sketches broke")

    engine, results = make_engine(sketches=Broken()), []
    name = "reliability_detector"

    def broken_connection(result):
        raise ConnectionError("gone")

    async def go():
        model = engine.model(name)
        gone = PredictRequest(model, rows_for(name, 1), "id", None, None, "v1", broken_connection)
        engine.submit(gone)
        for _ in range(number):
            submit(engine, name, rows_for(name, 1), results)
        await until(results, number)
        await asyncio.sleep(0)

    run(go())
    assert len(results) == number, "each request gets one result"
    assert not any(isinstance(result, RequestRejected) for _, result in results)
    assert engine.in_flight == 0
    assert caplog.text.count("could not be recorded") == number + 1


def test_a_model_is_found_by_its_name_and_version(make_engine, models):
    engine = make_engine()
    name = "reliability_detector"
    assert engine.model(name) is engine.model(name, VERSION) is models[name]
    with pytest.raises(ModelNotFound, match="no model 'x' on this server, only bandwidth_"):
        engine.model("x")
    with pytest.raises(ModelNotFound, match=f"served in version {VERSION}, not '1'"):
        engine.model(name, "1")


def test_a_model_that_is_not_warm_is_unavailable(make_engine, models, monkeypatch):
    engine: Engine = make_engine()
    assert engine.ready
    monkeypatch.setattr(models["reliability_detector"], "ready", False)
    assert not engine.ready
    with pytest.raises(ModelUnavailable):
        engine.model("reliability_detector")
    monkeypatch.undo()
    engine.draining = True
    assert not engine.ready
