"""One suite for all four models: what the protocol promises."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dwcp_ml.contract.errors import DataRefused, DwcpError, ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples
from dwcp_ml.contract.models import MODELS
from dwcp_ml.models import EpochProgress, FitContext, create, load
from tests.errors import about

pytestmark = pytest.mark.train

NETWORKS = [name for name in MODELS if name != "reliability_detector"]


def learned(model: Any) -> list[np.ndarray]:
    """Everything that training put into a model, as arrays."""
    fitted = [np.array([model.fitted[key] for key in sorted(model.fitted)])]
    if hasattr(model, "arrays"):
        return [*fitted, *model.forest().as_dict().values()]
    numbers = dataclasses.asdict(model.scaling).values()
    return [*fitted, *(np.asarray(value) for value in numbers), *model.weights]


def assert_same(one: Any, other: Any) -> None:
    pairs = list(zip(learned(one), learned(other), strict=True))
    assert len(pairs) > 5
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_answers_keep_the_contract(trained):
    answers = trained.model.predict(trained.data.test.inputs)
    outputs = trained.model.spec.form(trained.model.form).outputs
    assert list(answers) == [tensor.name for tensor in outputs]
    for tensor in outputs:
        answer = answers[tensor.name]
        assert answer.shape == (len(trained.data.test), *tensor.shape)
        assert answer.dtype == tensor.dtype
        assert np.isfinite(answer).all()
        assert tensor.minimum is None or answer.min() >= tensor.minimum
        assert tensor.maximum is None or answer.max() <= tensor.maximum
        assert len(np.unique(answer)) > 1, "it answers every row alike"


def test_no_rows_give_no_answers(trained):
    empty = trained.data.test.inputs[:0]
    for tensor in trained.model.spec.form(trained.model.form).outputs:
        answer = trained.model.predict(empty)[tensor.name]
        assert (answer.shape, answer.dtype) == ((0, *tensor.shape), tensor.dtype)


def test_probabilities_and_decision_agree(trained):
    answers = trained.model.predict(trained.data.test.inputs)
    first, *rest = answers.values()
    if "probabilities" in answers:
        np.testing.assert_allclose(answers["probabilities"].sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_array_equal(first, answers["probabilities"].argmax(axis=1))
    elif rest:
        threshold = np.float32(trained.model.fitted["threshold"])
        np.testing.assert_array_equal(rest[0], first >= threshold)


def test_one_row_is_answered_like_many(trained):
    rows = trained.data.test.inputs[:7]
    together = trained.model.predict(rows)
    for number in range(len(rows)):
        alone = trained.model.predict(rows[number : number + 1])
        for name, answer in alone.items():
            np.testing.assert_allclose(
                answer[0].astype(float), together[name][number].astype(float), rtol=1e-5, atol=1e-6
            )


def test_saved_and_loaded_it_answers_the_same(trained, tmp_path):
    trained.model.save(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.spec, loaded.form) == (trained.model.spec, trained.model.form)
    assert loaded.settings == trained.model.settings
    assert_same(loaded, trained.model)
    inputs = trained.data.test.inputs
    for name, answer in loaded.predict(inputs).items():
        np.testing.assert_array_equal(answer, trained.model.predict(inputs)[name])


def test_files_are_whole_or_refused(default, tmp_path):
    default.model.save(tmp_path)
    assert not list(tmp_path.glob(".*")), "a temporary file was left behind"
    arrays = tmp_path / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:-10])
    with pytest.raises(DwcpError, check=about(ErrorCode.INCOMPLETE, "arrays.npz")):
        load(tmp_path)


def test_the_same_seed_gives_the_same_model(default):
    again = create(default.model.spec.name)
    result = again.fit(default.data, FitContext(epochs=3))
    assert_same(again, default.model)
    assert result == default.result


def test_another_seed_gives_another_model(default):
    other = create(default.model.spec.name)
    other.fit(default.data, FitContext(epochs=1, seed=7))
    assert any(
        a.shape != b.shape or (a != b).any()
        for a, b in zip(learned(other), learned(default.model), strict=True)
    )


def test_training_leaves_its_data_alone(default):
    def arrays() -> list[np.ndarray]:
        splits = (default.data.train, default.data.validation, default.data.test)
        return [a for e in splits for a in (e.inputs, e.truth, e.timestamp, e.series, e.event)]

    before = [array.copy() for array in arrays()]
    for array in arrays():
        array.flags.writeable = False
    try:
        create(default.model.spec.name).fit(default.data, FitContext(epochs=1))
    finally:
        for array in arrays():
            array.flags.writeable = True
    for array, copy in zip(arrays(), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def poisoned(examples: Examples) -> Examples:
    """The same examples with every third input a thousand times as large."""
    inputs = examples.inputs.copy()
    inputs[::3] *= 1000
    return dataclasses.replace(examples, inputs=inputs)


def test_test_rows_change_nothing(default):
    data = dataclasses.replace(default.data, test=poisoned(default.data.test))
    model = create(default.model.spec.name)
    model.fit(data, FitContext(epochs=3))
    assert_same(model, default.model)


def test_validation_rows_fit_no_scaler(default):
    data = dataclasses.replace(default.data, validation=poisoned(default.data.validation))
    model = create(default.model.spec.name)
    model.fit(data, FitContext(epochs=1))
    if hasattr(model, "arrays"):
        assert_same(model, default.model)
    else:
        assert model.scaling == default.model.scaling
        for name in ("target_mean", "target_deviation"):
            assert model.fitted.get(name) == default.model.fitted.get(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_goes_on_where_it_was_interrupted(name, train_once, tmp_path):
    whole = train_once(name, MODELS[name].forms[0].name)
    seen: list[EpochProgress] = []

    def interrupt(progress: EpochProgress) -> None:
        if progress.epoch == 2 and progress.fraction > 0.4:
            raise KeyboardInterrupt

    first = create(name)
    with pytest.raises(KeyboardInterrupt):
        first.fit(
            whole.data, FitContext(epochs=3, checkpoint_directory=tmp_path, progress=interrupt)
        )
    second = create(name)
    result = second.fit(
        whole.data, FitContext(epochs=3, checkpoint_directory=tmp_path, progress=seen.append)
    )
    assert seen[0].epoch == 2, "it began again instead of going on"
    assert result == whole.result
    assert_same(second, whole.model)
    assert not list(tmp_path.iterdir()), "a finished training leaves no checkpoint"


def test_progress_reaches_the_end(default):
    seen: list[EpochProgress] = []
    create(default.model.spec.name).fit(default.data, FitContext(epochs=2, progress=seen.append))
    assert seen[-1].done == 1.0
    assert all(a.done < b.done for a, b in itertools.pairwise(seen))
    assert all(p.eta_seconds is not None and p.eta_seconds >= 0 for p in seen)
    if default.result.epochs:
        assert any(0 < p.fraction < 1 for p in seen)
        assert seen[-1].validation_loss is not None


def test_wrong_inputs_are_refused_in_one_sentence(default):
    inputs = default.data.test.inputs
    with pytest.raises(DataRefused, check=about(ErrorCode.WRONG_SHAPE, inputs[..., :-1].shape)):
        default.model.predict(inputs[..., :-1])
    with pytest.raises(DataRefused, check=about(ErrorCode.WRONG_SHAPE, inputs[0].shape)):
        default.model.predict(inputs[0])
    for bad in (np.nan, np.inf, -np.inf):
        broken = inputs[:3].copy()
        broken[1, ..., 0] = bad
        with pytest.raises(DataRefused, check=about(ErrorCode.NOT_FINITE, "row 1")):
            default.model.predict(broken)


def test_extremes_of_the_contract_have_finite_answers(trained):
    """Zero, one and the largest numbers that a counter or a gauge may show."""
    shape = trained.model.spec.input.shape
    values = (0.0, 1e-30, 1.0, 1e4, 1e9, 3e38)
    inputs = np.stack([np.full(shape, value, np.float32) for value in values])
    with np.errstate(over="raise", invalid="raise"):
        answers = trained.model.predict(inputs)
    for answer in answers.values():
        assert np.isfinite(answer).all()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_a_reason(default, split):
    nothing = getattr(default.data, split).take(np.array([], dtype=np.int64))
    data = dataclasses.replace(default.data, **{split: nothing})
    if split == "validation" and default.model.spec.name == "reliability_detector":
        forest = create("reliability")
        forest.fit(data, FitContext())  # it needs no validation
        assert_same(forest, default.model)
        return
    word = {"train": "training"}.get(split, split)
    with pytest.raises(TrainingFailed, check=about(ErrorCode.NO_DATA, word)):
        create(default.model.spec.name).fit(data, FitContext(epochs=1))


def test_broken_training_data_is_a_reason(default):
    inputs = default.data.train.inputs.copy()
    inputs[5] = np.nan
    data = dataclasses.replace(
        default.data, train=dataclasses.replace(default.data.train, inputs=inputs)
    )
    with pytest.raises(TrainingFailed, check=about(ErrorCode.CONTRACT, "training, row 5")):
        create(default.model.spec.name).fit(data, FitContext(epochs=1))


def test_data_of_another_form_is_refused(default):
    data = dataclasses.replace(default.data, form="something_else")
    with pytest.raises(TrainingFailed, check=about(ErrorCode.MISMATCH, "something_else")):
        create(default.model.spec.name).fit(data, FitContext(epochs=1))


def test_an_untrained_model_says_so(default, tmp_path):
    model = create(default.model.spec.name)
    with pytest.raises(DwcpError, check=about(ErrorCode.NOT_TRAINED)):
        model.predict(default.data.test.inputs)
    with pytest.raises(DwcpError, check=about(ErrorCode.NOT_TRAINED)):
        model.save(tmp_path)
    assert not list(Path(tmp_path).iterdir())
