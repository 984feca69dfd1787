"""The file that describes a retraining: a template of TrainingRuns, and when one is started."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import TRAINING_RUN, Object
from dwcp_ml.operator.api.parts import GROUP, Part, timestamp
from dwcp_ml.operator.api.training_run import TrainingRunSpec

LABEL: Final = f"{GROUP}/retraining"
"""The label of the TrainingRuns of a retraining; its value is the retraining's name."""

MAX_NAME: Final = 40
"""Characters of a name: those of its runs have a number after it."""

_HOUR: Final = 3600
_TIMES: Final = {"startTime", "endTime", "start_time", "end_time"}


class Window(NamedTuple):
    """A span of time of the telemetry; ``start`` is inside, ``end`` is not."""

    start: datetime
    end: datetime

    def new_share(self, before: Window) -> float:
        """Return the share of this window, 0 to 1, that lies outside an earlier one."""
        common = min(self.end, before.end) - max(self.start, before.start)
        return 1.0 - max(common, timedelta()) / (self.end - self.start)


class Template(Part):
    """The TrainingRuns to create, without a name, a window and a trigger."""

    labels: dict[str, str] = Field(default_factory=dict, description="labels of the runs")
    annotations: dict[str, str] = Field(default_factory=dict, description="annotations of the runs")
    spec: dict[str, Any] = Field(
        description="spec of the runs, without data.startTime, data.endTime and trigger, which "
        "each run gets"
    )

    @field_validator("spec")
    @classmethod
    def _is_a_training_run(cls, spec: dict[str, Any]) -> dict[str, Any]:
        data = spec.get("data")
        times = data.keys() & _TIMES if isinstance(data, dict) else set()
        if given := sorted([*(spec.keys() & {"trigger"}), *(f"data.{name}" for name in times)]):
            raise ValueError(f"leave out {' and '.join(given)}: each run gets its own")
        whole = TrainingRunSpec.model_validate(spec)
        if whole.data.simulated:
            raise ValueError("data.simulated: simulated telemetry has no dates to choose from")
        return whole.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


class Retraining(Part):
    """When a training run is started, and on which data."""

    name: str = Field(
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        max_length=MAX_NAME,
        description="name of the retraining; its runs are named after it",
    )
    window_days: float = Field(
        default=14,
        ge=1 / 24,
        le=3660,
        description="days of telemetry that a run is trained on; an hour at least",
    )
    delay_minutes: float = Field(
        default=60,
        ge=0,
        le=525_600,
        description="minutes until telemetry is complete; the window ends that long before now, at "
        "a full hour",
    )
    cooldown_hours: float = Field(
        default=24, ge=0, le=87_600, description="hours from the start of a run to the next one"
    )
    minimum_new_data: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the window that the last run which reached a verdict has not seen",
    )
    minimum_new_data_after_rollback: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the same, if a model of that run was rolled back from live traffic, or is no "
        "longer the candidate",
    )
    suspend: bool = Field(default=False, description="start no run")
    history_limit: int = Field(
        default=30, ge=1, le=1000, description="ended runs to keep; older ones are deleted"
    )
    template: Template = Field(description="the TrainingRuns to create")

    @property
    def models(self) -> tuple[str, ...]:
        """The full names of the models that a run trains."""
        return tuple(self.template.spec.get("models", MODELS))

    def window_at(self, now: datetime) -> Window:
        """Return the window of a run that is started at a moment."""
        complete = (now - timedelta(minutes=self.delay_minutes)).timestamp()
        end = datetime.fromtimestamp(complete // _HOUR * _HOUR, UTC)
        return Window(end - timedelta(days=self.window_days), end)

    def training_run(self, namespace: str, number: int, window: Window, trigger: str) -> Object:
        """Return the TrainingRun to create.

        Parameters
        ----------
        namespace
            Of the run, and of the ModelRollouts that it publishes candidates for.
        number
            The run's number, above that of all others.
        """
        spec = self.template.spec
        times = {"startTime": timestamp(window.start), "endTime": timestamp(window.end)}
        return {
            "apiVersion": TRAINING_RUN.api_version,
            "kind": TRAINING_RUN.kind,
            "metadata": {
                "name": f"{self.name}-{number}",
                "namespace": namespace,
                "labels": {**self.template.labels, LABEL: self.name},
                "annotations": self.template.annotations,
            },
            "spec": {**spec, "data": {**spec["data"], **times}, "trigger": trigger},
        }


def read_retraining(path: Path) -> Retraining:
    """Read a retraining from a YAML file.

    Raises
    ------
    UsageError
        If it can't be read, or is not a retraining.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Retraining.model_validate(content)
    except OSError as error:
        raise UsageError(
            f"Can't read {path}: {error.strerror}.", code=ErrorCode.CANT_READ, subject=path
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not YAML: {' '.join(str(error).split())}.",
            code=ErrorCode.MALFORMED,
            subject=path,
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        what = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{path} does not describe a retraining: {place}: {what}.",
            code=ErrorCode.MALFORMED,
            subject=f"{path}: {place}",
        ) from error


def read_retrainings(path: Path) -> dict[str, Retraining]:
    """Read a file, or each ``.yaml`` file of a directory; retrainings by name.

    Raises
    ------
    UsageError
        If there is none, one is invalid, or two have the same name.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    found: dict[str, Retraining] = {}
    for file in files:
        retraining = read_retraining(file)
        if retraining.name in found:
            raise UsageError(f"{file}: another file describes a retraining {retraining.name}, too.")
        found[retraining.name] = retraining
    if not found:
        raise UsageError(
            f"{path} has no .yaml file that describes a retraining.",
            code=ErrorCode.MISSING,
            subject=path,
        )
    return found


def chosen(retrainings: Mapping[str, Retraining], name: str | None) -> Retraining:
    """Return the retraining of a name; without a name, the only one.

    Raises
    ------
    UsageError
        If there is none of the name, or several without one.
    """
    if name is None and len(retrainings) == 1:
        return next(iter(retrainings.values()))
    if name is None:
        raise UsageError(f"Name one of the retrainings: {', '.join(sorted(retrainings))}.")
    if name not in retrainings:
        raise UsageError(
            f"There is no retraining '{name}': {did_you_mean(name, retrainings)}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=name,
        )
    return retrainings[name]
