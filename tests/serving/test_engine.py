"""What happens to a request between the protocols and the model."""

import asyncio

import numpy as np
import pytest

from dwcp_ml.serving.engine import Engine, Question
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.refusals import Failed, NotServed, Refused, Unavailable
from tests.serving.bundles import MODELS, VERSION, rows_for


@pytest.fixture
def spied(models, monkeypatch):
    """Note the rows of every run: a list of (model, rows)."""
    runs = []
    for name, model in models.items():

        def run(rows, name=name, real=model.run):
            runs.append((name, len(rows)))
            return real(rows)

        monkeypatch.setattr(model, "run", run)
    return runs


def ask(engine, name, rows, told):
    """Ask; the answer is appended to ``told`` as (rows, answer)."""
    model = engine.model(name)
    done = lambda answers: told.append((rows, answers))  # noqa: E731
    engine.ask(Question(model, rows, "id", None, None, "v1", done))


async def until(told, number):
    while len(told) < number:
        await asyncio.sleep(0)


def equal(models, name, told):
    for rows, answers in told:
        for output, values in models[name].run(rows).items():
            np.testing.assert_allclose(answers[output], values, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_asked_in_one_turn_is_one_run(make_engine, models, spied, run, name):
    engine, told = make_engine(), []

    async def go():
        for number in range(1, 9):
            ask(engine, name, rows_for(name, number, seed=number), told)
        assert told == []
        assert engine.in_flight == 8
        await until(told, 8)

    run(go())
    assert spied == [(name, 36)]
    assert engine.in_flight == 0
    assert [len(rows) for rows, _ in told] == list(range(1, 9))
    equal(models, name, told)


def test_each_model_has_a_run_of_its_own(make_engine, models, spied, run):
    engine = make_engine()
    told = {name: [] for name in MODELS}

    async def go():
        for number in range(3):
            for name in MODELS:
                ask(engine, name, rows_for(name, 1, seed=number), told[name])
        for answers in told.values():
            await until(answers, 3)

    run(go())
    assert sorted(spied) == sorted((name, 3) for name in MODELS)
    for name in MODELS:
        equal(models, name, told[name])


def test_the_next_turn_is_another_run(make_engine, spied, run):
    engine, told = make_engine(), []
    name = "reliability_detector"

    async def go():
        for number in range(3):
            ask(engine, name, rows_for(name, 1), told)
            await until(told, number + 1)

    run(go())
    assert spied == [(name, 1)] * 3


def test_a_run_holds_no_more_rows_than_it_may(make_engine, models, spied, run):
    engine, told = make_engine(Limits(batch_rows=10)), []
    name = "compression_selector"

    async def go():
        for number, size in enumerate((4, 6, 1, 20, 9, 1)):
            ask(engine, name, rows_for(name, size, seed=number), told)
        await until(told, 6)

    run(go())
    assert [rows for _, rows in spied] == [10, 1, 20, 10]
    equal(models, name, told)


def test_large_requests_go_to_the_thread_and_small_ones_pass_them(make_engine, models, run):
    engine, told = make_engine(Limits(inline_rows=4)), []
    name = "bandwidth_predictor"

    async def go():
        ask(engine, name, rows_for(name, 5), told)
        ask(engine, name, rows_for(name, 4), told)
        await until(told, 2)

    run(go())
    assert [len(rows) for rows, _ in told] == [4, 5]
    equal(models, name, told)


def test_large_requests_that_wait_are_bounded(make_engine, models, run):
    engine, told = make_engine(Limits(inline_rows=4, waiting_large=2)), []
    name = "reliability_detector"

    async def go():
        for _ in range(5):
            ask(engine, name, rows_for(name, 5), told)
        await until(told, 5)
        ask(engine, name, rows_for(name, 5), told)  # there is room again
        await until(told, 6)

    run(go())
    refused = [answers for _, answers in told if isinstance(answers, Refused)]
    assert len(refused) == 3
    assert all(isinstance(answers, Unavailable) for answers in refused)
    assert not isinstance(told[-1][1], Refused)
    assert engine.in_flight == 0


@pytest.mark.parametrize("rows", [1, 100])
def test_a_run_that_fails_is_told_to_each(make_engine, models, monkeypatch, run, rows, caplog):
    engine, told = make_engine(), []
    name = "consensus_latency"

    def broken(rows):
        raise RuntimeError("/a/secret/path")

    monkeypatch.setattr(models[name], "run", broken)

    async def go():
        for _ in range(3):
            ask(engine, name, rows_for(name, rows), told)
        await until(told, 3)

    run(go())
    for _, answers in told:
        assert isinstance(answers, Failed)
        assert str(answers) == f"{name} failed on this request (RuntimeError); see its log."
    assert "/a/secret/path" in caplog.text


def test_an_answer_that_is_not_finite_is_none(make_engine, models, monkeypatch, run):
    engine, told = make_engine(), []
    name = "bandwidth_predictor"
    answers = {"next_throughput_mbps": np.array([np.nan, 1.0], np.float32)}
    monkeypatch.setattr(models[name], "run", lambda rows: answers)

    async def go():
        ask(engine, name, rows_for(name, 1), told)
        ask(engine, name, rows_for(name, 1), told)
        await until(told, 2)

    run(go())
    assert isinstance(told[0][1], Failed)
    assert told[1][1]["next_throughput_mbps"].tolist() == [1.0]


@pytest.mark.parametrize("number", [1, 2])
def test_what_breaks_behind_an_answer_reaches_nobody_else(make_engine, run, caplog, number):
    class Broken:
        def add(self, *arguments):
            raise RuntimeError("the sketches broke")

    engine, told = make_engine(sketches=Broken()), []
    name = "reliability_detector"

    def broken_connection(answers):
        raise ConnectionError("gone")

    async def go():
        model = engine.model(name)
        gone = Question(model, rows_for(name, 1), "id", None, None, "v1", broken_connection)
        engine.ask(gone)
        for _ in range(number):
            ask(engine, name, rows_for(name, 1), told)
        await until(told, number)
        await asyncio.sleep(0)

    run(go())
    assert len(told) == number, "each is told once"
    assert not any(isinstance(answers, Refused) for _, answers in told)
    assert engine.in_flight == 0
    assert caplog.text.count("could not be observed") == number + 1


def test_a_model_is_found_by_its_name_and_version(make_engine, models):
    engine = make_engine()
    name = "reliability_detector"
    assert engine.model(name) is engine.model(name, VERSION) is models[name]
    with pytest.raises(NotServed, match="no model 'x' here, only bandwidth_predictor, "):
        engine.model("x")
    with pytest.raises(NotServed, match=f"served in version {VERSION}, not '1'"):
        engine.model(name, "1")


def test_a_cold_model_is_not_asked(make_engine, models, monkeypatch):
    engine: Engine = make_engine()
    assert engine.ready
    monkeypatch.setattr(models["reliability_detector"], "ready", False)
    assert not engine.ready
    with pytest.raises(Unavailable):
        engine.model("reliability_detector")
    monkeypatch.undo()
    engine.draining = True
    assert not engine.ready
