"""The interface of every model, and the context, progress and result of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import Epoch
from dwcp_ml.models.settings import ModelSettings

Predictions = dict[str, Array]
"""Output name -> array of shape ``(n, *tensor.shape)`` in the tensor's dtype."""


@dataclass(frozen=True)
class EpochProgress:
    """The progress of a training.

    Parameters
    ----------
    epoch, epochs
        The current epoch, from 1, and the maximum number.
    fraction
        Done share of the running epoch, 0 to 1.
    loss
        Mean training loss of the epoch so far.
    validation_loss
        Of the last whole epoch; ``None`` during the first.
    eta_seconds
        Time left if every epoch is run; ``None`` before the first measurement.
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

    Parameters
    ----------
    seed
        Seed of everything random: initial weights, order of the batches, dropout, trees.
    threads
        Threads of TensorFlow; fixed, because results depend on it.
    epochs
        Maximum number of epochs; ``None`` uses that of the settings.
    checkpoint_directory
        Directory of the checkpoint after each epoch, to continue after a kill; ``None``: none.
    progress
        Called about twenty times per epoch.
    """

    seed: int = 42
    threads: int = 1
    epochs: int | None = None
    checkpoint_directory: Path | None = None
    progress: Callable[[EpochProgress], None] = _ignore


@dataclass(frozen=True)
class FitResult:
    """The result of a training beside the model: its epochs, and the fitted values."""

    epochs: tuple[Epoch, ...] = ()
    fitted: dict[str, float] = field(default_factory=dict)


class Model(Protocol):
    """One of the four models, trained or not.

    Attributes
    ----------
    spec
        The contract: names, shapes and dtypes of input and outputs. Its window is that of the
        settings.
    form
        The form of the prediction.
    settings
        The hyperparameters.
    fitted
        Fitted values such as thresholds, by name; empty before ``fit``.
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
