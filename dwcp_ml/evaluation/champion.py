"""Compare a challenger with the champion, the bundle that was live when it was trained. Pure.

Both have predicted the challenger's test split. The comparison is the paired block bootstrap of the
references, on the primary metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.contract.champion import (
    SCORES,
    ChampionRecord,
    ChampionRule,
    Lineage,
    difference_record,
)
from dwcp_ml.contract.comparison import Comparison, ReferenceKind, Requirement
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import COMPARED_OUTPUTS
from dwcp_ml.evaluation.comparison import blocks_for, sampled
from dwcp_ml.evaluation.evaluate import METRICS, Predictions, paired_comparison

_REQUIREMENTS: Final[dict[ChampionRule, Requirement]] = {
    "not_worse": Requirement.NOT_WORSE,
    "better": Requirement.BETTER,
    "off": Requirement.NONE,
}


@dataclass(frozen=True)
class Champion:
    """The champion's version and digest, and its predictions of the challenger's test split."""

    version: str
    digest: str
    predictions: Predictions


def with_champion(
    data: ModelData, predictions: Predictions, champion: Champion, rule: ChampionRule
) -> tuple[ChampionRecord, Comparison] | None:
    """Return how the champion predicts the test split, and the comparison on the primary metric.

    None if one of the two has an output that is not a finite number for every example.

    Parameters
    ----------
    predictions
        The challenger's: output name -> values of shape (n, ...) for ``data.test.inputs``.
    """
    if not all(_complete(each, len(data.test)) for each in (predictions, champion.predictions)):
        return None
    form, blocks = data.spec.form(data.form), blocks_for(data)
    own, theirs = (
        METRICS[form.name](data, each, blocks) for each in (predictions, champion.predictions)
    )
    (output,) = set(COMPARED_OUTPUTS[data.spec.name]) & {tensor.name for tensor in form.outputs}
    score = SCORES.get(output)
    scores = None if score is None else (champion.predictions[score], predictions[score])
    record = ChampionRecord(
        version=champion.version,
        digest=champion.digest,
        metrics=theirs.values(blocks),
        difference=difference_record(
            output,
            champion.predictions[output],
            predictions[output],
            data.test.series,
            data.test.timestamp,
            scores,
        ),
    )
    metric = form.primary_metric
    of_own, of_theirs = (sampled(each.statistics[metric], blocks) for each in (own, theirs))
    required = (champion.version, ReferenceKind.CHAMPION, metric, _REQUIREMENTS[rule])
    return record, paired_comparison(required, of_own, of_theirs, blocks)


def overlap_note(data: ModelData, lineage: Lineage | None) -> str:
    """Return a note if the champion may have been trained on rows of the test split, else empty.

    A bundle without lineage does not say which data it was trained on.
    """
    if lineage is None or lineage.data_first is None or lineage.data_last is None:
        return ""
    first, last = (float(end(data.test.timestamp)) for end in (np.min, np.max))
    if last < lineage.data_first.timestamp() or first > lineage.data_last.timestamp():
        return ""
    return (
        "The champion may have been trained on rows of this test split, because its telemetry "
        f"({lineage.data_first:%Y-%m-%d %H:%M} to {lineage.data_last:%Y-%m-%d %H:%M} UTC) overlaps "
        "it: its metrics may be better than on new data, and the challenger looks worse beside it."
    )


def _complete(predictions: Predictions, count: int) -> bool:
    return all(len(each) == count and np.isfinite(each).all() for each in predictions.values())
