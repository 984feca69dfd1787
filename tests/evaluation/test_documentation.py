"""docs/evaluation.md names what the code reports."""

from pathlib import Path

import numpy as np
import pytest

from dwcp_ml.contract.evaluation import LeakKind
from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation import evaluate
from dwcp_ml.evaluation.labels import WORDINGS, is_error, is_share
from dwcp_ml.evaluation.leaks import foreknowledge, labels, rows

LIMITS = {
    LeakKind.FOREKNOWLEDGE: foreknowledge.MAX_EXCESS,
    LeakKind.LABEL_COPY: labels.MIN_PERSISTENCE,
    LeakKind.LABEL_THRESHOLD: labels.MAX_AREA,
    LeakKind.NUMBER_FORMAT: labels.MAX_FORMAT,
    LeakKind.ROW_NUMBER: rows.MAX_ROW_NUMBER,
    LeakKind.ROW_ORDER: rows.MAX_ORDER,
    LeakKind.SPLIT_COPY: rows.MAX_COPIES,
    LeakKind.QUARANTINE: rows.MAX_QUARANTINE,
}
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(MODELS))
def test_the_page_names_every_baseline_reference_and_target(name, build, examples, trained):
    spec = MODELS[name]
    truth = (
        np.arange(12) % 2 == 0 if name in ("reliability_detector", "consensus_latency") else None
    )
    truth = (np.arange(12) % 3).astype(float) + 1 if name == "bandwidth_predictor" else truth
    truth = np.arange(12) % 3 if truth is None else truth
    gains = np.ones((12, 10)) if name == "compression_selector" else None
    data = build(name, test=examples(np.ones((12, *spec.input.shape)), truth, gains=gains))
    outputs = spec.form().outputs
    predictions = {each.name: np.ones((12, *each.shape), each.dtype) for each in outputs}
    evaluation, _ = evaluate(data, predictions, trained(data), spec.form().targets)
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2] == f"`{evaluation.primary_metric}`"
    for target in (each.metric for each in evaluation.targets):
        assert f"`{target}`" in cells[3]
    assert set(cells[4].replace("`", "").split(", ")) == set(evaluation.baselines)
    assert set(cells[5].replace("`", "").split(", ")) - {""} == set(evaluation.references)
    assert set(evaluation.metrics) <= set(WORDINGS), "a metric has no words"


@pytest.mark.parametrize("kind", LeakKind)
def test_the_page_has_every_kind_of_leak_and_its_limit(kind):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}`"))
    assert str(LIMITS[kind]) in row.split("|")[4]


def test_metrics_are_either_better_high_or_better_low():
    assert not any(is_error(metric) and is_share(metric) for metric in WORDINGS)
