"""What live accuracy is written as: typed JSON."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from dwcp_ml.contract.models import Target
from dwcp_ml.contract.records import DataReport, Record


class Unmatched(StrEnum):
    """Why an answer has no truth."""

    OTHER_FORM = "another form of the answer than the default one"
    INVALID = "the answer is no number of its range"
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
    """One version of one model, held against what came true."""

    model_name: str
    version: str
    digests: tuple[str, ...] = Field(description="SHA-256 of the bundles that answered")
    logged: int = Field(ge=0, description="answers in the log, each once")
    duplicates: int = Field(ge=0, description="retries of a request, beyond those")
    joined: int = Field(ge=0, description="answers whose truth is known")
    unmatched: dict[str, int] = Field(description="reason -> answers; sums up to the others")
    first_moment: str | None = Field(description="of the joined answers, ISO 8601, UTC")
    last_moment: str | None
    label_source: str | None = None
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    def figure(self, metric: str) -> Figure | None:
        """Return one metric, or None if it is not among the figures."""
        return next((each for each in self.figures if each.metric == metric), None)


class LiveAccuracy(Record):
    """A prediction log, held against telemetry that came later."""

    log: str
    results: tuple[VersionResult, ...]
    data: DataReport | None = Field(description="the telemetry; null where the log held nothing")
