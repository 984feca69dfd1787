"""The metrics of both detectors: of rows, of whole incidents and episodes, and of alarms.

A recall of rows counts long incidents more than short ones; consecutive flagged rows are one alarm.
The scores are not adjusted by episode: to count all rows of an episode as detected because one is
would make a random detector look good (Kim et al., AAAI 2022, "Towards a rigorous evaluation of
time-series anomaly detection").
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Floats, Mask
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.evaluation import comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.metrics import Metrics

MIN_POSITIVES: Final = 50
"""With fewer positive examples, each one changes a recall by over 2 %."""

SECONDS_A_DAY: Final = 86_400.0


def detection(
    data: ModelData, score: Floats, flagged: Mask, blocks: Blocks, *, of_events: str
) -> Metrics:
    """Return the metrics of scores and flags, of shape (n,), on the positives of the test split.

    ``of_events`` names the share of incidents or episodes with a flagged row.
    """
    truth = data.test.truth.astype(bool)
    hits = flagged & truth
    return Metrics(
        statistics={
            "recall": comparison.ratio(hits, truth, blocks),
            "precision": comparison.ratio(hits, flagged, blocks),
            "pr_auc": comparison.pr_auc(truth, score, blocks),
            "false_positive_rate": comparison.ratio(flagged & ~truth, ~truth, blocks),
            "prevalence": comparison.mean(truth, blocks),
        },
        plain={
            of_events: event_recall(data.test, flagged),
            "false_alarms_per_day": false_alarms_per_day(data, flagged),
        },
    )


def event_recall(examples: Examples, flagged: Mask) -> float:
    """Return the share of the incidents or episodes with at least one row of ``flagged``, (n,).

    NaN if the test split has none; ``event`` of the examples names the incident of each positive
    row.
    """
    events = np.unique(examples.event[examples.event >= 0])
    if not len(events):
        return float("nan")
    detected = np.unique(examples.event[flagged & (examples.event >= 0)])
    return len(detected) / len(events)


def false_alarms_per_day(data: ModelData, flagged: Mask) -> float:
    """Return the number of false alarms per day over all links or nodes of the test split.

    It is the number per day of one link, times the number of links with a row in the test split.
    So it states what a network that is observed all the time has, also where the rows are a sample
    (``data.max_rows``) or have gaps.
    """
    return false_alarms_per_link_day(data, flagged) * len(np.unique(data.test.series))


def false_alarms_per_link_day(data: ModelData, flagged: Mask) -> float:
    """Return the number of false alarms in the test split per observed day of one link or node.

    A row is one usual step of its own series of observation, so links with few rows count for
    little. NaN if there is none.
    """
    observed = float(data.step(data.test.series).sum())
    if not observed:
        return float("nan")
    return false_alarms(data, flagged) * SECONDS_A_DAY / observed


def false_alarms(data: ModelData, flagged: Mask) -> int:
    """Return the number of runs of flagged rows outside incidents, of one series, without a gap."""
    examples = data.test
    alarm = flagged & ~examples.truth.astype(bool)
    order = np.lexsort((examples.timestamp, examples.series))
    alarm, series = alarm[order], examples.series[order]
    step = np.diff(examples.timestamp[order])
    goes_on = (series[1:] == series[:-1]) & (step <= data.max_step(series[1:])) & alarm[:-1]
    starts = alarm.copy()
    starts[1:] &= ~goes_on
    return int(starts.sum())


def few_positives(data: ModelData) -> list[str]:
    """Return a note if the test split has too few positives for an exact recall."""
    positives = int(data.test.truth.sum())
    if positives >= MIN_POSITIVES:
        return []
    events = len(np.unique(data.test.event[data.test.event >= 0]))
    return [
        f"Only {positives} of {len(data.test)} test examples are positive, out of {events} "
        "incidents or episodes: recall, precision and PR-AUC are rough estimates."
    ]
