from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dwcp_ml.contract.examples import Examples
from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation import (
    evaluate,
    gate_model,
    gate_session,
    model_html,
    session_html,
    session_markdown,
)
from dwcp_ml.evaluation.report.pages import gauges
from tests.evaluation.cases import oracle_comparison

pytestmark = pytest.mark.slow

EVIL = "</title><script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Counts what a page holds, and checks that its elements close in order."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def binary_case(n=600, window=None, seed=0):
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) // 20) % 10 == 0
    shape = (n, window) if window else (n, 6)
    inputs = np.exp(rng.normal(3, 0.2, shape))
    inputs[truth] *= 4
    return Examples(
        inputs.astype(np.float32),
        truth,
        np.arange(n) // 2 * 60,
        np.arange(n) % 2,
        np.where(truth, np.arange(n) // 200, -1),
    )


@pytest.fixture
def case(records, build, bandwidth, trained, worse):
    """Report and plot_data of one good model of each kind, evaluated on synthetic examples."""

    def make(name, form=None, **changes):
        rng = np.random.default_rng(1)
        if name == "bandwidth_predictor" and form is None:
            data, prediction = bandwidth
            predictions = {"next_throughput_mbps": prediction}
        elif name in ("bandwidth_predictor", "compression_selector"):
            rows = binary_case()
            classes = 3 if form else 10
            gains = rng.random((600, 10))
            truth = gains.argmax(axis=1) if classes == 10 else rng.integers(0, classes, 600)
            inputs = bandwidth[0].test.inputs if name == "bandwidth_predictor" else rows.inputs
            inputs = np.resize(inputs, (600, *inputs.shape[1:]))
            test = Examples(inputs, truth, rows.timestamp, rows.series, rows.event, gains)
            data = build(name, form, test=test)
            chosen = np.where(rng.random(600) < 0.9, truth, 0)
            predictions = {data.form: chosen}
        elif name == "reliability_detector":
            data = build(name, test=binary_case())
            score = np.clip(0.3 + 0.4 * data.test.truth + rng.normal(0, 0.1, 600), 0, 1)
            predictions = {"anomaly_score": score, "is_anomaly": score >= 0.5}
        else:
            data = build(name, test=binary_case(window=20))
            error = np.exp(rng.normal(-2, 0.5, 600) + 3 * data.test.truth)
            predictions = {"reconstruction_error": error, "is_high_latency": error >= 0.6}
        training = trained(data, threshold=0.5, threshold_at_98=0.4, threshold_percentile=99.0)
        training = worse(training, **changes.pop("training", {}))
        if name == "reliability_detector":
            training = worse(training, epochs=())
        form_spec = data.spec.form(data.form)
        evaluation, plot_data = evaluate(data, predictions, training, form_spec.targets)
        evaluation = worse(evaluation, **changes.pop("evaluation", {}))
        _, _, export, report = records(name)
        report = worse(report, **changes.pop("data", {}))
        return gate_model(training, evaluation, export, report), plot_data

    return make


CASES = {
    "bandwidth_predictor": ("truth", "excerpt", "residuals", "learning"),
    "compression_selector": ("confusion", "regret", "learning"),
    "reliability_detector": ("precision-recall", "distributions"),
    "consensus_latency": ("errors", "distributions", "learning"),
}


def assert_self_contained(text):
    page = Page(text)
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            if value is not None:
                assert re.match(r"(#|data:image/png;base64,|models/)", value), value
    # Nothing is loaded by the style either, and no address stands anywhere.
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids)), "an id occurs twice"
    return page


@pytest.mark.parametrize("name", CASES)
def test_the_page_of_each_model_shows_verdict_metrics_and_plots(case, name):
    report, plot_data = case(name)
    text = model_html(report, plot_data)
    page = assert_self_contained(text)
    assert text.lower().startswith("<!doctype html>")
    assert page.text.index(report.verdict) < page.text.index("achieved")
    for target in (each.metric for each in report.evaluation.targets):
        assert any(gauge.achieved in page.text for gauge in gauges(report.evaluation)), target
    titles = [a["id"] for a in page.all("h3") if a.get("id")]
    assert titles == [f"{plot}-title" for plot in CASES[name]]
    drawings = [a for a in page.all("div") if a.get("role") == "img"]
    assert len(drawings) == len(page.all("figure")) == len(page.all("svg")) == len(CASES[name])
    for drawing in drawings:
        assert len(drawing["aria-label"]) > 40
    # Each drawing holds lines or areas, and text that is real text.
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert svg.count("<path") > 5
        assert "<text" in svg
        assert 'viewBox="' in svg
        assert "var(--ink)" in svg
    assert len(text) < 1_000_000


@pytest.mark.parametrize(
    ("name", "form"),
    [("bandwidth_predictor", "bandwidth_class"), ("compression_selector", "compression_type")],
)
def test_the_alternative_forms_name_their_classes(case, name, form):
    report, plot_data = case(name, form)
    text = model_html(report, plot_data)
    assert_self_contained(text)
    words = ("good", "degraded", "bad") if form == "bandwidth_class" else ("none", "hde", "zstd")
    for word in words:
        assert f">{word}</text>" in text


def test_two_renderings_are_equal(case):
    report, plot_data = case("consensus_latency")
    assert model_html(report, plot_data) == model_html(report, plot_data)


def test_without_plot_data_only_the_learning_curve_is_drawn(case):
    report, _ = case("bandwidth_predictor")
    page = assert_self_contained(model_html(report, None))
    assert len(page.all("svg")) == 1


def test_a_model_that_was_not_trained_has_a_page(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(
        worse(training, success=False, reason="Longest run 3.", epochs=()),
        worse(
            evaluation,
            success=False,
            metrics={},
            baselines={},
            comparisons=(),
            ceiling=None,
        ),
        worse(
            export, success=False, formats=(), parity={}, model_size_mb=None, latency_p99_ms=None
        ),
        data,
    )
    page = assert_self_contained(model_html(report, None))
    assert "Not trained: Longest run 3." in page.text
    assert "REJECTED" in page.text
    assert not page.all("svg")


def test_untrusted_text_is_escaped(case, worse):
    defect = {
        "code": EVIL,
        "column": EVIL,
        "count": 1,
        "examples": (),
        "verdict": "warning",
        "message": EVIL,
    }
    report, plot_data = case(
        "bandwidth_predictor",
        training={"hyperparameters": {EVIL: EVIL}, "libraries": {EVIL: EVIL}, "version": EVIL},
        evaluation={"notes": (EVIL,), "baselines": {EVIL: {"mape_percent": 9.0}}},
        data={"path": EVIL, "defects": (defect,)},
    )
    plot_data.arrays["excerpt_name"] = np.array(EVIL)
    text = model_html(report, plot_data)
    page = assert_self_contained(text)
    assert not page.all("img")
    assert page.text.count("onerror") >= 6
    session = gate_session(EVIL, [report], report.data, unchecked={EVIL: EVIL})
    text = session_html(session)
    assert "<script" not in text
    assert "<img" not in text


def test_the_page_of_a_run_links_to_its_models(records):
    reports = [gate_model(*records(name)) for name in MODELS]
    session = gate_session("20260101-000000", reports, reports[0].data)
    page = assert_self_contained(session_html(session))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == [f"models/{name}/20260101-000000/report.html" for name in MODELS]
    assert "4 of 4 models approved" in page.text
    assert page.text.count("APPROVED") >= 5
    assert "it was not requested" in page.text
    assert "Not checked: integration tests passed, go api compatibility." in page.text


def test_an_approval_claims_no_comparison_with_an_oracle_that_was_not_made(records, worse):
    training, evaluation, export, data = records()
    compared = worse(
        evaluation,
        comparisons=(*evaluation.comparisons, oracle_comparison(lower=-0.6, improvement=-0.4)),
    )
    known = model_html(gate_model(training, compared, export, data))
    unknown = model_html(gate_model(training, evaluation, export, data))
    assert "no metric is better than that of the oracle" in known
    assert "no metric is better than that of the oracle" not in unknown
    assert "the model was not compared with an oracle" in unknown


def test_an_approval_warns_of_ground_truth_that_was_not_labelled(records, worse):
    training, evaluation, export, data = records("consensus_latency")
    for source, words in (("derived", "derived by a rule"), ("labelled", "")):
        report = gate_model(training, worse(evaluation, label_source=source), export, data)
        session = gate_session("s", [report], data)
        for text in (model_html(report), session_html(session), session_markdown(session)):
            assert ("The ground truth is derived" in text) == bool(words)
            assert words in text


def test_the_page_of_a_rejected_run_begins_with_the_reasons(records, worse):
    training, evaluation, export, data = records()
    report = gate_model(training, evaluation, worse(export, latency_p99_ms=12.0), data)
    page = Page(session_html(gate_session("s", [report], data)))
    assert page.text.index("bandwidth_predictor: The p99 latency") < page.text.index(
        "best baseline"
    )


def test_the_scale_runs_from_worse_to_better(records, worse):
    found = {gauge.name: {m.kind: m.place for m in gauge.marks} for gauge in gauges(records()[1])}
    # MAPE: baseline 5.5, target 5, model 4.6, ceiling 4.2; the best stands on the right.
    places = found["MAPE"]
    assert places["baseline"] < places["target"] < places["model"] < places["ceiling"]
    assert (places["baseline"], places["ceiling"]) == (6.0, 94.0)
    assert places["model"] == pytest.approx(6 + 88 * (5.5 - 4.6) / 1.3, abs=0.01)
    # Correlation: target .98, baseline .99, model .995.
    places = found["correlation"]
    assert places["target"] < places["baseline"] < places["model"]
    assert gauges(worse(records()[1], metrics={}))[0].marks == ()
