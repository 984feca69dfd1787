"""The interface of every model, and the context, progress and result of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.data_use import LeftOut
from dwcp_ml.contract.examples import ExampleStream, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import Epoch, ThresholdSource
from dwcp_ml.models.settings import ModelSettings

Predictions = dict[str, Array]
"""Output name -> array of shape ``(n, *tensor.shape)`` in the tensor's dtype."""


@dataclass(frozen=True)
class EpochProgress:
    """The progress of a training, in epoch ``epoch`` (from 1) of at most ``epochs``.

    ``fraction`` of the running epoch is done, 0 to 1, and ``loss`` is its mean training loss so
    far. ``validation_loss`` is that of the last whole epoch, ``None`` during the first;
    ``eta_seconds`` the time left if every epoch is run, ``None`` before the first measurement.
    """

    epoch: int
    epochs: int
    fraction: float
    loss: float
    validation_loss: float | None = None
    eta_seconds: float | None = None

    @property
    def done(self) -> float:
        """Done share of the whole training, 0 to 1."""
        return (self.epoch - 1 + self.fraction) / self.epochs

    def describe(self) -> str:
        """Return the progress in a few words.

        >>> EpochProgress(2, 12, 0.5, 0.031, 0.029, 14.2).describe()
        'epoch 2/12, loss 0.0310, validation 0.0290, 14 s left'
        """
        words = [f"epoch {self.epoch}/{self.epochs}, loss {self.loss:.4f}"]
        if self.validation_loss is not None:
            words.append(f"validation {self.validation_loss:.4f}")
        if self.eta_seconds is not None:
            words.append(f"{self.eta_seconds:.0f} s left")
        return ", ".join(words)


def _ignore(_progress: EpochProgress) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class FitContext:
    """The context of a training, which holds no hyperparameter.

    ``seed`` is that of everything random: initial weights, order of the batches, dropout, trees.
    The ``threads`` of TensorFlow are fixed, because results depend on them. ``epochs`` replaces the
    maximum of the settings. The ``checkpoint_directory`` holds the state after each epoch, to
    continue after a kill. ``progress`` is called about twenty times per epoch. With a ``stream``
    a network learns from its examples instead of ``data.train``, to which its scaling is fitted.
    """

    seed: int = 42
    threads: int = 1
    epochs: int | None = None
    checkpoint_directory: Path | None = None
    progress: Callable[[EpochProgress], None] = _ignore
    stream: ExampleStream | None = None


@dataclass(frozen=True)
class FitResult:
    """The result of a training beside the model: its epochs, and the fitted values.

    ``left_out`` counts the examples of the training split that it was not trained on.
    ``threshold_source`` says what the reliability detector's threshold was chosen by.
    """

    epochs: tuple[Epoch, ...] = ()
    fitted: dict[str, float] = field(default_factory=dict)
    left_out: dict[LeftOut, int] = field(default_factory=dict)
    threshold_source: ThresholdSource | None = None


class Model(Protocol):
    """One of the four models, trained or not.

    ``spec`` is the contract (names, shapes and dtypes of input and outputs; its window is that of
    the ``settings``), ``form`` the form of the prediction. ``fitted`` holds values such as
    thresholds by name, and is empty before ``fit``.
    """

    spec: ModelSpec
    form: str
    settings: ModelSettings
    fitted: dict[str, float]

    def fit(self, data: ModelData, context: FitContext) -> FitResult:
        """Train on ``data.train``; choose epochs and thresholds on ``data.validation`` only.

        Raises ``TrainingFailed`` if no model can be trained on this data; the message says why.
        """

    def predict(self, inputs: Floats32) -> Predictions:
        """Predict raw inputs of shape ``(n, *spec.input.shape)``.

        Raises ``DataRefused`` if the shape is wrong or a number is not finite, and ``DwcpError`` if
        the model was not trained.
        """

    def save(self, directory: Path) -> None:
        """Write the trained model into ``directory``, each file atomically."""

    def restore(self, directory: Path, stored: Mapping[str, Any]) -> None:
        """Load what ``save`` wrote; ``stored`` is the content of its ``model.json``."""
