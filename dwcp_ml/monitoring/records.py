"""The records of live accuracy, as they are written to JSON."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from dwcp_ml.contract.models import Target
from dwcp_ml.contract.record import Record
from dwcp_ml.contract.records import DataReport


class Unmatched(StrEnum):
    """Why the ground truth of a prediction is unknown."""

    OTHER_FORM = "the prediction is not in the default form"
    INVALID = "the prediction is not a number in its range"
    NO_LINK = "no link named"
    UNKNOWN_LINK = "the link is not in the telemetry"
    PENDING = "after the end of the telemetry"
    NO_OBSERVATION = "no observation within tolerance"
    WINDOW_GAP = "a gap in the window"
    NO_LABEL = "label missing"


class Figure(Record):
    """One metric of one model version on live traffic."""

    metric: str
    value: float | None = Field(description="null where it is not defined")
    lower: float | None = Field(description="95 % interval; null with too few blocks of time")
    upper: float | None
    target: Target | None = Field(description="null where the metric has no target")
    met: bool | None = Field(description="null without a target")


class VersionResult(Record):
    """One version of one model, compared with the ground truth."""

    model_name: str
    version: str
    digests: tuple[str, ...] = Field(description="SHA-256 of the bundles that made the predictions")
    logged: int = Field(ge=0, description="predictions in the log, each once")
    duplicates: int = Field(ge=0, description="further records of the same request, from retries")
    joined: int = Field(ge=0, description="predictions whose ground truth is known")
    unmatched: dict[str, int] = Field(
        description="reason -> predictions; their sum is logged - joined"
    )
    first_moment: str | None = Field(description="of the joined predictions, ISO 8601, UTC")
    last_moment: str | None
    label_source: str | None = None
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    def figure(self, metric: str) -> Figure | None:
        """Return one metric, or None if it is not among the figures."""
        return next((each for each in self.figures if each.metric == metric), None)


class LiveAccuracy(Record):
    """A prediction log, compared with telemetry that came later."""

    log: str
    results: tuple[VersionResult, ...]
    data: DataReport | None = Field(description="the telemetry; null if the log is empty")
