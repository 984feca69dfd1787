"""The engine: batches, the thread for large requests, failures."""

import asyncio
import gzip
import threading

import numpy as np
import orjson
import pytest

from dwcp_ml.serving.engine import Engine, unpacked
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import (
    BadInput,
    ModelFailed,
    ModelNotFound,
    ModelUnavailable,
    RequestRejected,
    TooLarge,
)
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.tensors import Cells, Form
from dwcp_ml.serving.v1 import V1
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


class Arrays:
    """A codec whose requests and responses are arrays."""

    protocol = "arrays"

    def __init__(self, rows):
        self.rows = rows

    def decode(self, body, model, limits):
        return Cells(Form.ARRAY, self.rows, len(self.rows))

    @staticmethod
    def columns(outputs):
        return outputs

    def encode(self, columns, start, stop, request):
        return {name: values[start:stop] for name, values in columns.items()}


def submit(engine, name, rows, results):
    """Submit a request; its result is appended to ``results`` as (rows, result)."""
    on_result = lambda result: results.append((rows, result))  # noqa: E731
    engine.submit(request(engine, name, rows, on_result))


def request(engine, name, rows, on_result, codec=None, body=b"", **more):
    model = engine.model(name)
    return PredictRequest(model, codec or Arrays(rows), body, "id", None, None, on_result, **more)


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
        engine.submit(request(engine, name, rows_for(name, 1), broken_connection))
        for _ in range(number):
            submit(engine, name, rows_for(name, 1), results)
        await until(results, number)
        await asyncio.sleep(0)

    run(go())
    assert len(results) == number, "each request gets one result"
    assert not any(isinstance(result, RequestRejected) for _, result in results)
    assert engine.in_flight == 0
    assert caplog.text.count("could not be recorded") == 1


def test_a_wrong_request_does_not_disturb_its_neighbours(make_engine, models, runs, run):
    engine, results = make_engine(), []
    name = "reliability_detector"
    bodies = [
        b'{"instances": [[1,2,3,4,5,6]]}',
        b'{"instances": [[1,2,3,4,5]]}',
        b'{"instances": [[1,2,3,4,5,7]]}',
        b'{"instances": [[1,2,3,4,5,"6"]]}',
        b'{"instances": [[1,2,3,4,5,1e39]]}',
        b'{"instances": ',
        b'{"instances": [[1,2,3,4,5,8]]}',
    ]

    async def go():
        for number, body in enumerate(bodies):
            on_result = lambda result, n=number: results.append((n, result))  # noqa: E731
            engine.submit(request(engine, name, None, on_result, V1(), body))
        await until(results, len(bodies))

    run(go())
    got = dict(results)
    assert [n for n in got if isinstance(got[n], BadInput)] == [5, 1, 3, 4]
    assert runs == [(name, 3)]
    for number, last in ((0, 6), (2, 7), (6, 8)):
        rows = np.array([[1, 2, 3, 4, 5, last]], np.float32)
        (prediction,) = orjson.loads(got[number].body)["predictions"]
        expected = models[name].run(rows)["anomaly_score"][0]
        assert prediction["anomaly_score"] == pytest.approx(expected, rel=1e-6)
    assert engine.in_flight == 0


def test_protocols_share_a_run(make_engine, models, runs, run):
    engine, results = make_engine(), []
    name = "reliability_detector"

    async def go():
        for rows in (rows_for(name, 1, seed=1), rows_for(name, 2, seed=2)):
            submit(engine, name, rows, results)
            body = orjson.dumps({"instances": rows.astype(float).tolist()})
            on_result = lambda result, rows=rows: results.append(  # noqa: E731
                (
                    rows,
                    {
                        output: np.array([row[output] for row in loads(result)])
                        for output in ("anomaly_score", "is_anomaly")
                    },
                )
            )
            engine.submit(request(engine, name, rows, on_result, V1(), body))
        await until(results, 4)

    def loads(result):
        return orjson.loads(result.body)["predictions"]

    run(go())
    assert runs == [(name, 6)]
    equal(models, name, results)


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_body_is_decoded_in_the_thread(make_engine, models, run, packed):
    engine, results = make_engine(), []
    name = "reliability_detector"
    threads = []

    class Watched(V1):
        def decode(self, body, model, limits):
            threads.append(threading.current_thread().name)
            return super().decode(body, model, limits)

    rows = rows_for(name, 1000)
    body = orjson.dumps({"instances": rows.astype(float).tolist()})
    assert len(body) > engine.limits.inline_bytes

    async def go():
        engine.submit(
            request(
                engine, name, rows, results.append, Watched(),
                gzip.compress(body) if packed else body, packed=packed,
            )
        )  # fmt: skip
        await until(results, 1)

    run(go())
    assert [thread.split("_")[0] for thread in threads] == ["large-requests"]
    assert len(orjson.loads(results[0].body)["predictions"]) == 1000


def test_bytes_in_flight_are_bounded(make_engine):
    engine = make_engine(Limits(bytes_in_flight=100))
    engine.take(60)
    with pytest.raises(ModelUnavailable):
        engine.take(60)
    engine.release(60)
    engine.release(60)
    engine.take(100)


@pytest.mark.parametrize(
    ("packed", "error"),
    [
        (gzip.compress(b"a" * 1000, mtime=0), None),
        (gzip.compress(b"a" * 1_100_000, mtime=0), TooLarge),
        (gzip.compress(b"a" * 10, mtime=0)[:-1], BadInput),
        (gzip.compress(b"a", mtime=0) * 2, BadInput),
        (b"a" * 10, BadInput),
        (b"", BadInput),
    ],
    ids=["good", "large", "cut", "two", "none", "empty"],
)
def test_what_is_packed_is_bounded_by_its_size(packed, error):
    if error is None:
        assert unpacked(packed, Limits()) == b"a" * 1000
        return
    with pytest.raises(error):
        unpacked(packed, Limits())


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


class Firsts:
    """Sketches that only note which rows are the first of a request."""

    def __init__(self):
        self.seen = []

    def add(self, model, rows, outputs, firsts):
        self.seen.append((len(rows), firsts))


def test_the_observers_learn_the_first_row_of_each_request(make_engine, run):
    sketches = Firsts()
    engine, results = make_engine(sketches=sketches), []

    async def main():
        for count in (2, 1, 3):
            submit(engine, "reliability_detector", rows_for("reliability_detector", count), results)
        while len(results) < 3:
            await asyncio.sleep(0)

    run(main())
    assert sketches.seen == [(6, [0, 2, 3])]


def test_the_first_rows_are_those_of_valid_requests(make_engine, models, monkeypatch, run):
    """The second request and the second row of the third have no finite prediction."""
    name = "bandwidth_predictor"
    real = models[name].run

    def broken(rows):
        outputs = real(rows)
        outputs["next_throughput_mbps"][[2, 4]] = np.nan
        return outputs

    monkeypatch.setattr(models[name], "run", broken)
    sketches = Firsts()
    engine, results = make_engine(sketches=sketches), []

    async def main():
        for count in (2, 1, 3):
            submit(engine, name, rows_for(name, count), results)
        while len(results) < 3:
            await asyncio.sleep(0)

    run(main())
    assert sketches.seen == [(4, [0, 2])], "rows 0, 1, 3 and 5 are left"
