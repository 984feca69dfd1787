"""Files of models and checkpoints: whole or not there."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.records import Epoch
from dwcp_ml.models import checkpoint, storage
from dwcp_ml.models.checkpoint import State
from tests.errors import about


def epoch(number: int, validation_loss: float) -> Epoch:
    return Epoch(epoch=number, loss=1.0, validation_loss=validation_loss, dropout=0.0)


def state(value: float = 1.0) -> State:
    return State.initial([np.full((2, 3), value, np.float32), np.full(3, value, np.float32)])


def test_arrays_survive():
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([1.5], np.float32)}
    back = storage.unpack(storage.pack(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_objects_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.pack({"a": np.array([{}], dtype=object)})
    path = tmp_path / "objects.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.unpack(path.read_bytes())


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.write_bytes(path, b"old")

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.Path, "replace", full)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, path)):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_description_names_the_digest_of_its_arrays(tmp_path):
    storage.write_model(tmp_path, {"name": "x"}, {"a": np.arange(3)})
    stored = storage.read_description(tmp_path)
    assert stored["name"] == "x"
    np.testing.assert_array_equal(storage.read_arrays(tmp_path, stored)["a"], np.arange(3))
    storage.write_bytes(tmp_path / storage.ARRAYS_NAME, storage.pack({"a": np.arange(4)}))
    with pytest.raises(DwcpError, check=about(ErrorCode.INCOMPLETE, "arrays.npz")):
        storage.read_arrays(tmp_path, stored)


def test_the_best_epoch_is_kept():
    now = state(0)
    for number, loss in enumerate((3.0, 1.0, 2.0, 1.0), start=1):
        now = now.after(epoch(number, loss), state(number))
    assert now.best_epoch == now.history[1]
    assert now.best[0][0, 0] == 2
    assert now.weights[0][0, 0] == 4
    assert [e.epoch for e in now.history] == [1, 2, 3, 4]


def test_a_checkpoint_is_of_one_training_only(tmp_path):
    now = state().after(epoch(1, 0.5), state(2))
    checkpoint.write(tmp_path, now, "this")
    back = checkpoint.read(tmp_path, "this")
    assert back is not None
    assert (back.steps, back.history) == (now.steps, now.history)
    for group in ("weights", "first", "second", "best"):
        for a, b in zip(getattr(back, group), getattr(now, group), strict=True):
            np.testing.assert_array_equal(a, b)
    assert checkpoint.read(tmp_path, "another") is None
    checkpoint.clear(tmp_path)
    assert checkpoint.read(tmp_path, "this") is None


def test_a_damaged_checkpoint_is_ignored(tmp_path):
    checkpoint.write(tmp_path, state(), "this")
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-40])
    assert checkpoint.read(tmp_path, "this") is None
    path.write_bytes(b"")
    assert checkpoint.read(tmp_path, "this") is None


def test_a_fingerprint_tells_trainings_apart():
    array = np.arange(6, dtype=np.float32)
    seen = {
        checkpoint.fingerprint({"a": 1}, array),
        checkpoint.fingerprint({"a": 2}, array),
        checkpoint.fingerprint({"a": 1}, array + 1),
        checkpoint.fingerprint({"a": 1}, array.reshape(2, 3)),
        checkpoint.fingerprint({"a": 1}, array.astype(np.float64)),
    }
    assert len(seen) == 5
    assert checkpoint.fingerprint({"a": 1}, array) in seen
