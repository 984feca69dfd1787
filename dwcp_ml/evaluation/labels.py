"""Names, units and digits of the metrics in reports and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_ml.contract.evaluation import Finding
from dwcp_ml.contract.models import Target


@dataclass(frozen=True)
class Wording:
    """The name, the unit and the number of decimals of one metric.

    Lower values of an error are better; a share of right predictions is 0 to 1.
    """

    label: str
    unit: str = ""
    digits: int = 4
    is_error: bool = False
    is_share: bool = False


WORDINGS: Final[dict[str, Wording]] = {
    "correlation": Wording("correlation"),
    "correlation_within_link_median": Wording("correlation within a link (median)"),
    "mape_percent": Wording("MAPE", "%", 2, is_error=True),
    "mae_mbps": Wording("mean absolute error", "Mbit/s", 2, is_error=True),
    "rmse_mbps": Wording("root mean square error", "Mbit/s", 2, is_error=True),
    "interval_coverage": Wording("coverage of the intervals", is_share=True),
    "mape_excluded_rows": Wording("rows under 1 Mbit/s, excluded from MAPE", "", 0),
    "accuracy": Wording("accuracy", is_share=True),
    "balanced_accuracy": Wording("balanced accuracy", is_share=True),
    "throughput_gain": Wording("throughput gain over no compression"),
    "gain_over_best_fixed": Wording("throughput gain over the best fixed level"),
    "agreement_within_1_percent": Wording(
        "agreement within 1 % of the oracle's gain", is_share=True
    ),
    "regret": Wording("regret against the oracle", is_error=True),
    "near_tie_share": Wording("share of near ties (1 %)"),
    "recall": Wording("recall", is_share=True),
    "precision": Wording("precision", is_share=True),
    "pr_auc": Wording("PR-AUC", is_share=True),
    "event_recall": Wording("incidents detected", is_share=True),
    "false_alarms_per_day": Wording("false alarms per day", "", 2, is_error=True),
    "false_alarms_per_link_day": Wording("false alarms per link and day", "", 2, is_error=True),
    "recall_at_auto": Wording("recall at the threshold auto", is_share=True),
    "precision_at_auto": Wording("precision at the threshold auto", is_share=True),
    "false_alarms_per_day_at_auto": Wording(
        "false alarms per day at the threshold auto", "", 2, is_error=True
    ),
    "prevalence": Wording("share of positives"),
    "flagged_share": Wording("share flagged"),
    "detection_accuracy": Wording("detection accuracy", is_share=True),
    "detection_accuracy_at_98": Wording("detection accuracy at the 98th percentile", is_share=True),
    "episode_recall": Wording("episodes detected", is_share=True),
    "false_positive_rate": Wording("false-positive rate", is_error=True),
    "reconstruction_mae": Wording("reconstruction MAE, normal windows", is_error=True),
}
"""Every metric of a report; a metric that is not listed is shown under its own name."""


def is_error(metric: str) -> bool:
    """Return whether lower values of the metric are better."""
    return metric in WORDINGS and WORDINGS[metric].is_error


def is_share(metric: str) -> bool:
    """Return whether the metric is a share of right predictions, 0 to 1."""
    return metric in WORDINGS and WORDINGS[metric].is_share


def label(metric: str) -> str:
    """Return the name of a metric in words.

    >>> label("mape_percent")
    'MAPE'
    """
    return WORDINGS[metric].label if metric in WORDINGS else metric.replace("_", " ")


def quantity(metric: str, value: float | None, digits: int | None = None) -> str:
    """Return a value of a metric with its unit; ``n/a`` where it is not defined.

    >>> quantity("mape_percent", 4.617)
    '4.62 %'
    """
    if value is None or math.isnan(value):
        return "n/a"
    wording = WORDINGS.get(metric, Wording(metric))
    text = f"{value:z.{wording.digits if digits is None else digits}f}"
    return f"{text} {wording.unit}".rstrip()


def capitalized(text: str) -> str:
    """Return a text with a capital as its first letter.

    >>> capitalized("p99 latency"), capitalized("MAPE")
    ('P99 latency', 'MAPE')
    """
    return text[:1].upper() + text[1:]


def distinct(metric: str, value: float | None, limit: float) -> str:
    """Return a value with as many decimals as it takes to show that it differs from ``limit``.

    >>> distinct("accuracy", 0.97999, 0.98)
    '0.97999'
    """
    usual = WORDINGS.get(metric, Wording(metric)).digits
    for digits in range(usual, 13):
        text = quantity(metric, value, digits)
        if text != quantity(metric, limit, digits) or value == limit:
            return text
    return f"{value!r}"


def findings_label(findings: Sequence[Finding]) -> str:
    """Return findings in a few words; empty without any.

    >>> findings_label([Finding(rule="ridge", metric="recall", improvement=0, lower=0, upper=0)])
    'no better than ridge on recall'
    """
    if not findings:
        return ""
    rules = [finding.rule for finding in findings]
    names = " and ".join(filter(None, (", ".join(rules[:-1]), rules[-1])))
    metrics = ", ".join(dict.fromkeys(label(finding.metric) for finding in findings))
    return f"no better than {names} on {metrics}"


def finding_sentence(finding: Finding) -> str:
    """Return one finding with its numbers, as a sentence."""
    metric = finding.metric
    return (
        f"The model is no better than {finding.rule} on {label(metric)}: the improvement is "
        f"{quantity(metric, finding.improvement)}, with a 95 % interval of "
        f"{quantity(metric, finding.lower)} to {quantity(metric, finding.upper)}."
    )


def target_label(target: Target) -> str:
    """Return a target for a reader, with the unit of its metric.

    >>> target_label(Target("mape_percent", "<", 5.0))
    '< 5 %'
    >>> target_label(Target("accuracy", ">=", 0.98))
    '≥ 0.98'
    """
    unit = WORDINGS.get(target.metric, Wording(target.metric)).unit
    sign = target.direction.replace(">=", "≥").replace("<=", "≤")
    return f"{sign} {target.value:.6g} {unit}".rstrip()
