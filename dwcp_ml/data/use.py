"""What became of the rows of a file: the examples of one model, and what was lost to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats, Ints, Mask
from dwcp_ml.contract.data_use import DataUse, DataWarning, DataWarningCode, LeftOut, LossCause
from dwcp_ml.contract.examples import DataSettings
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.data.windows import run_lengths

MAX_LOST_SHARE: Final = 0.2
"""Above this share of lost rows the report and the log warn."""


def rows_in_use(examples: int) -> DataUse:
    """Return the use of rows of which each is one example."""
    return DataUse(rows=examples, rows_used=examples, examples=examples)


def windows_in_use(
    windows: Ints,
    known: Mask,
    runs: tuple[Floats, Ints, Array, Floats],
    observed_rows: Ints | None = None,
) -> DataUse:
    """Return the use of the rows of windows; each row is the last one of a window, or is lost.

    Parameters
    ----------
    windows
        The rows of each window, int64 (m, length), before some are left out.
    known
        Which windows are examples, (m,); the others belong to a link or node without a training
        row.
    runs
        Time, series and split of each row, (n,), and the longest step of each series that is no
        gap, as :func:`dwcp_ml.data.windows.run_lengths` takes them.
    observed_rows
        How many rows of the file are one observation, (n,): those of a node's peers.
    """
    timestamp, series, split_id, max_step = runs
    length, one_split = windows.shape[1], np.zeros(len(timestamp), np.int8)
    _, whole = run_lengths(timestamp, series, one_split, np.full(len(max_step), np.inf))
    _, without_split = run_lengths(timestamp, series, one_split, max_step)
    _, complete = run_lengths(timestamp, series, split_id, max_step)
    lost = {
        LossCause.SERIES_START: int((whole < length).sum()),
        LossCause.GAP: int(((whole >= length) & (without_split < length)).sum()),
        LossCause.SPLIT_BOUNDARY: int(((without_split >= length) & (complete < length)).sum()),
        LossCause.NOT_IN_TRAINING: int((~known).sum()),
    }
    weights = np.ones(len(timestamp), np.int64) if observed_rows is None else observed_rows
    used = np.zeros(len(timestamp), np.bool_)
    used[windows[known]] = True
    return DataUse(
        rows=int(weights.sum()),
        rows_used=int(weights[used].sum()),
        merged_rows=int(weights.sum()) - len(weights),
        examples=int(known.sum()),
        lost={cause: count for cause, count in lost.items() if count},
    )


def with_unread(use: DataUse, quarantined: int, not_drawn: int) -> DataUse:
    """Return the use of all rows of the file, of which some were quarantined or not drawn."""
    unread = {LossCause.QUARANTINED: quarantined, LossCause.NOT_DRAWN: not_drawn}
    lost = {cause: count for cause, count in unread.items() if count}
    return use.replace(rows=use.rows + sum(lost.values()), lost={**lost, **use.lost})


def with_training(
    use: DataUse,
    spec: ModelSpec,
    settings: DataSettings,
    train: int,
    left_out: Mapping[LeftOut, int],
    streamed: int | None = None,
) -> DataUse:
    """Return the use with what the training saw, and the warnings that follow.

    Parameters
    ----------
    train
        The examples of the training split, or those that were read of a stream.
    left_out
        How many of them the model was not trained on, by reason.
    streamed
        The examples of the stream; ``None`` without one.
    """
    trained = train - sum(left_out.values())
    use = use.replace(trained_examples=trained, streamed_examples=streamed, left_out=dict(left_out))
    warnings = []
    if use.share_lost > MAX_LOST_SHARE:
        causes = ", ".join(f"{count:,} {cause.words}" for cause, count in use.lost.items())
        warnings.append(
            DataWarning(
                code=DataWarningCode.ROWS_LOST,
                message=f"{spec.name} has no example of {use.share_lost:.0%} of the rows "
                f"({causes}): the metrics are about the rest.",
            )
        )
    if trained < settings.min_training_examples:
        warnings.append(
            DataWarning(
                code=DataWarningCode.FEW_EXAMPLES,
                message=f"{spec.name} was trained on {trained:,} examples, and needs about "
                f"{settings.min_training_examples:,}: provide telemetry of a longer time or of "
                "more links.",
            )
        )
    return use.replace(warnings=tuple(warnings))
