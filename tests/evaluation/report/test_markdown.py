from __future__ import annotations

import re

from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation import gate_model, gate_session, model_markdown, session_markdown


def tables_of(markdown: str) -> list[list[str]]:
    """Every table as its lines."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)]


def columns(line: str) -> int:
    return len(re.split(r"(?<!\\)\|", line)) - 2


def test_the_report_of_a_model_begins_with_the_verdict_and_has_the_metrics(records):
    text = model_markdown(gate_model(*records()))
    assert text.startswith("# bandwidth_predictor 20260101-000000: APPROVED\n")
    assert "| MAPE | \\< 5 % | 4.60 % | 5.50 % (last_value) | 4.20 % | met |" in text
    assert "d41d8cd98f00b204e9800998ecf8427e" in text
    assert "numpy 2.0" in text
    assert '"batch_size": 32' in text
    for block in tables_of(text):
        assert len({columns(line) for line in block}) == 1, block


def test_the_reasons_come_before_the_numbers(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(training, evaluation, worse(export, latency_p99_ms=12.0), data)
    text = model_markdown(report)
    assert text.index("REJECTED") < text.index("- The p99 latency") < text.index("## On the test")


def test_a_model_that_was_not_trained_has_a_report_too(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(
        worse(training, success=False, reason="Longest run 3.", training_date="", epochs=()),
        worse(evaluation, success=False, metrics={}, comparisons=(), baselines={}),
        worse(export, success=False, formats=(), parity={}, model_size_mb=None),
        data,
    )
    text = model_markdown(report)
    assert "- Not trained: Longest run 3." in text
    assert "On the test split" not in text


def test_the_run_links_to_its_models(records):
    reports = [gate_model(*records(name)) for name in MODELS]
    text = session_markdown(gate_session("20260101-000000", reports, reports[0].data))
    assert text.startswith("# Run 20260101-000000: APPROVED")
    assert "4 of 4 models approved, 4 trained, in 246 s." in text
    for name in MODELS:
        assert f"[{name}](models/{name}/20260101-000000/report.md): APPROVED" in text
    for block in tables_of(text):
        assert len({columns(line) for line in block}) == 1


def test_untrusted_text_can_break_neither_a_table_nor_the_page(records, worse):
    evil = "a|b\n# <script>alert(1)</script> [x](http://evil)"
    training, evaluation, export, data = records()
    report = gate_model(
        worse(training, hyperparameters={"x": "```\n# out"}),
        worse(evaluation, notes=(evil,)),
        export,
        worse(
            data,
            path=evil,
            defects=(
                {
                    "code": "c",
                    "column": evil,
                    "count": 1,
                    "examples": (),
                    "verdict": "warning",
                    "message": evil,
                },
            ),
        ),
    )
    session = gate_session(evil, [report], report.data)
    for text in (model_markdown(report), session_markdown(session)):
        outside = re.sub(r"(?s)(`{3,})json\n.*?\n\1", "", text)
        assert "<script" not in outside.replace("\\<script", "")
        assert not re.search(r"(?<!\\)\[x", outside)
        assert "\n# <" not in text.replace("\\", "")[5:]
        for block in tables_of(outside):
            assert len({columns(line) for line in block}) == 1, block
    # The fence of the hyperparameters can't be closed from inside.
    assert "````json" in model_markdown(report) or "\n```\n# out" not in model_markdown(report)
