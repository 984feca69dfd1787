"""Hyperparameters: one YAML beside each model, checked by a typed class, open to overrides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.examples import DataSettings
from dwcp_ml.contract.record import Record

MAX_STREAM_BATCH: Final = 16_384
"""Maximum batch of a stream, half of the examples of its smallest buffer."""


class Section(Record):
    """A section of the settings."""


class ModelSettings(Section):
    """The settings that all four models share."""

    form: str = Field(description="form of the prediction, one of the contract's")
    data: DataSettings


RegressionLoss = Literal["mse", "mae", "huber"]
ClassifierLoss = Literal["sparse_categorical_crossentropy", "expected_regret"]
LossName = RegressionLoss | ClassifierLoss


class Training(Section):
    """How a network is trained: mini-batches, Adam, early stopping, annealed dropout."""

    epochs: int = Field(ge=1, le=1000, description="maximum number of epochs")
    batch_size: int = Field(ge=1, le=65536, description="examples per step")
    learning_rate: float = Field(gt=0, le=1, description="learning rate of Adam, at the start")
    schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="how the learning rate goes on: it stays, or falls to 0 along half a cosine "
        "until the last epoch (Loshchilov and Hutter 2017)",
    )
    patience: int = Field(
        ge=1, le=1000, description="epochs without a better validation loss before training stops"
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of the moving average of the weights that is evaluated and exported "
        "(Polyak and Juditsky 1992); 0 takes the weights as they are",
    )
    examples_per_epoch: int | None = Field(
        None,
        ge=1000,
        description="train on all rows, also beyond data.max_rows, in epochs of this many "
        "examples, which a stream reads from a temporary file; null trains on data.max_rows rows "
        "in memory",
    )
    anneal_from: float = Field(
        ge=0, le=1, description="share of the epochs after which dropout starts to fall"
    )
    anneal_to: float = Field(ge=0, le=1, description="share of the epochs after which it is 0")
    loss: LossName = Field(description="loss to minimise, on the scale of the network")

    @model_validator(mode="after")
    def _check_annealing(self) -> Training:
        if self.anneal_to < self.anneal_from:
            raise ValueError("anneal_to must not be less than anneal_from")
        return self

    @model_validator(mode="after")
    def _check_stream(self) -> Training:
        count = self.examples_per_epoch
        if count and self.batch_size > min(count // 2, MAX_STREAM_BATCH):
            raise ValueError(
                f"batch_size must not exceed half of examples_per_epoch, nor {MAX_STREAM_BATCH}"
            )
        return self

    def dropout_share(self, epoch: int, epochs: int) -> float:
        """Return the share of the full dropout rate in an epoch (from 1) of ``epochs``.

        It is 1 up to ``anneal_from`` of the epochs, falls linearly, and is 0 from ``anneal_to``.
        """
        place = (epoch - 1) / epochs
        if place >= self.anneal_to:
            return 0.0
        if place <= self.anneal_from:
            return 1.0
        return (self.anneal_to - place) / (self.anneal_to - self.anneal_from)


class RegressionTraining(Training):
    """How a network is trained that predicts a number or a sequence."""

    loss: RegressionLoss = Field(description="loss to minimise, on the scale of the network")


Settings = TypeVar("Settings", bound=ModelSettings)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file; ``UsageError`` if it can't be read or is no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"Can't read the settings {path}: {error.strerror}.",
            code=ErrorCode.CANT_READ,
            subject=path,
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            f"The settings {path} are not YAML: {first}.", code=ErrorCode.MALFORMED, subject=path
        ) from error
    if not isinstance(content, dict):
        raise UsageError(
            f"The settings {path} must be a mapping of names to values.",
            code=ErrorCode.WRONG_TYPE,
            subject=path,
        )
    return content


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``overrides``, section by section.

    >>> merged({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    result = dict(base)
    for key, value in overrides.items():
        inner = result.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[key] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def resolve(
    kind: type[Settings], defaults: Path, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings of a model: its YAML, with ``overrides`` on top, checked.

    Raises ``UsageError`` if a key is unknown (the message names the nearest one) or a value is out
    of its range.
    """
    values = merged(read_yaml(defaults), overrides or {})
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _invalid(kind, defaults.stem, error) from error


def _invalid(kind: type[BaseModel], model: str, error: ValidationError) -> UsageError:
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    first = (unknown or error.errors())[0]
    path = [str(part) for part in first["loc"]]
    if not unknown:
        path = [part for part in path if part.isidentifier()][:2]  # no members of a union
        alike = [e for e in error.errors() if list(e["loc"][: len(path)]) == path]
        reason = " or ".join(e["msg"].removeprefix("Value error, ") for e in alike)
        shown = f", got {first['input']!r}" if len(path) > 1 else ""
        return UsageError(
            f"the settings of {model} are wrong at '{'.'.join(path)}': {reason}{shown}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject=".".join(path),
        )
    names = _fields_at(kind, path[:-1])
    section = f" in section '{'.'.join(path[:-1])}'" if len(path) > 1 else ""
    return UsageError(
        f"{model} has no setting '{path[-1]}'{section}: {did_you_mean(path[-1], names)}.",
        code=ErrorCode.UNKNOWN_NAME,
        subject=".".join(path),
    )


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    fields: dict[str, FieldInfo] = kind.model_fields
    for part in path:
        inner = fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)
