"""What became of the rows of the telemetry for one model."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from dwcp_ml.contract.record import Record


class LossCause(StrEnum):
    """Why no example ends at a row of the file."""

    QUARANTINED = "quarantined"
    NOT_DRAWN = "not_drawn"
    SERIES_START = "series_start"
    GAP = "gap"
    SPLIT_BOUNDARY = "split_boundary"
    NOT_IN_TRAINING = "not_in_training"

    @property
    def words(self) -> str:
        """What such rows are, after their number."""
        return _WORDS[self]


class LeftOut(StrEnum):
    """Why a model is not trained on an example of the training split."""

    ABNORMAL = "abnormal"
    STRIDE = "stride"

    @property
    def words(self) -> str:
        """What such examples are, after their number."""
        return _WORDS[self]


_WORDS: dict[StrEnum, str] = {
    LossCause.QUARANTINED: "quarantined",
    LossCause.NOT_DRAWN: "not drawn, beyond data.max_rows",
    LossCause.SERIES_START: "at the start of a series",
    LossCause.GAP: "after a gap",
    LossCause.SPLIT_BOUNDARY: "after the start of a split",
    LossCause.NOT_IN_TRAINING: "of a link or node without training rows",
    LeftOut.ABNORMAL: "in an episode",
    LeftOut.STRIDE: "between strides",
}


class DataWarningCode(StrEnum):
    """What is doubtful about the use of the data."""

    ROWS_LOST = "RowsLost"
    FEW_EXAMPLES = "FewTrainingExamples"


class DataWarning(Record):
    """A reason to doubt the metrics of a model, which does not stop its training."""

    code: DataWarningCode
    message: str


class DataUse(Record):
    """What became of the rows of the telemetry for one model.

    Each row ends an example, is merged with another one, or is lost:
    ``rows = examples + merged_rows + sum(lost.values())``.
    """

    rows: int = Field(ge=0, description="rows of the file")
    rows_used: int = Field(ge=0, description="rows that are part of at least one example")
    merged_rows: int = Field(
        default=0, ge=0, description="rows of further peers, which are one observation of a node"
    )
    examples: int = Field(ge=0, description="examples of all splits: rows, or windows of rows")
    lost: dict[LossCause, int] = Field(
        default_factory=dict, description="rows at which no example ends, by cause"
    )
    trained_examples: int | None = Field(
        default=None, ge=0, description="examples that the model was trained on"
    )
    streamed_examples: int | None = Field(
        default=None, ge=0,
        description="examples of the stream that the model was trained from: of all rows of the "
        "training split, also those not drawn; null without a stream",
    )  # fmt: skip
    left_out: dict[LeftOut, int] = Field(
        default_factory=dict, description="examples of the training split it was not trained on"
    )
    warnings: tuple[DataWarning, ...] = ()

    @property
    def share_lost(self) -> float:
        """The share of the rows, or of the observations of a node, at which no example ends.

        Rows that were not drawn at random are left out of both: the others stand for them.
        """
        not_drawn = self.lost.get(LossCause.NOT_DRAWN, 0)
        lost = sum(self.lost.values()) - not_drawn
        return lost / max(1, self.rows - self.merged_rows - not_drawn)
