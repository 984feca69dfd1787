"""The checkpoint of a training after an epoch, from which it continues with the same results.

It holds no random state: the order of the batches and the dropout of an epoch follow from the seed
and the epoch's number alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.records import Epoch
from dwcp_ml.files import write_bytes
from dwcp_ml.models.storage import pack, unpack

CHECKPOINT_NAME: Final = "checkpoint.npz"

Arrays = tuple[Floats32, ...]

_GROUPS: Final = ("weights", "first", "second", "average", "best")


@dataclass(frozen=True)
class State:
    """A training between two epochs.

    ``first`` and ``second`` are Adam's two moments of each weight, ``steps`` the batches seen,
    which its bias correction needs. ``average`` is what is evaluated: the moving average of the
    weights, or the weights. ``best`` is that after the epoch with the lowest validation loss.
    """

    weights: Arrays
    first: Arrays
    second: Arrays
    average: Arrays
    steps: int
    best: Arrays
    history: tuple[Epoch, ...] = ()

    @classmethod
    def initial(cls, weights: Iterable[Floats32]) -> State:
        """Return the state before the first epoch."""
        initial = tuple(weights)
        zeros = tuple(np.zeros_like(array) for array in initial)
        return cls(initial, zeros, zeros, initial, 0, initial)

    @property
    def best_epoch(self) -> Epoch | None:
        """The first epoch with the lowest validation loss; ``None`` before any."""
        return min(self.history, key=lambda epoch: epoch.validation_loss, default=None)

    def after(self, epoch: Epoch, moved: State) -> State:
        """Return the state after ``epoch``, whose steps led to ``moved``."""
        best = self.best_epoch
        better = best is None or epoch.validation_loss < best.validation_loss
        return replace(
            moved, best=moved.average if better else self.best, history=(*self.history, epoch)
        )


def fingerprint(*parts: Any) -> str:
    """Return a digest of everything that a training depends on: arrays and JSON values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def write(directory: Path, state: State, training: str) -> None:
    """Write the state of the training with that fingerprint, atomically."""
    meta = {
        "training": training,
        "steps": state.steps,
        "history": [epoch.model_dump() for epoch in state.history],
    }
    arrays: dict[str, Array] = {"meta": np.array(json.dumps(meta))}
    for name in _GROUPS:
        for place, array in enumerate(getattr(state, name)):
            arrays[f"{name}_{place}"] = array
    write_bytes(directory / CHECKPOINT_NAME, pack(arrays))


def read(directory: Path, training: str) -> State | None:
    """Return the state to continue from; ``None`` if there is none of this training."""
    try:
        arrays = unpack((directory / CHECKPOINT_NAME).read_bytes())
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError):
        return None
    if meta["training"] != training:
        return None
    count = sum(name.startswith("weights_") for name in arrays)
    groups = {
        group: tuple(arrays[f"{group}_{place}"] for place in range(count)) for group in _GROUPS
    }
    history = tuple(Epoch(**epoch) for epoch in meta["history"])
    return State(**groups, steps=meta["steps"], history=history)


def clear(directory: Path) -> None:
    """Remove the checkpoint of a finished training."""
    (directory / CHECKPOINT_NAME).unlink(missing_ok=True)
