"""Outcomes that callers report: what is counted, once, by version; what is refused, and why."""

import json
import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.metrics_sources.samples import Expected, Sample, replica_of
from dwcp_ml.serving import outcomes as o
from dwcp_ml.serving.rejections import BadInput, TooLarge
from tests.serving.bundles import VERSION

BANDWIDTH = "bandwidth_predictor"
OTHER = "20260201-000000"


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def counted(models, registry):
    outcomes = o.Outcomes(models.values(), registry)

    def add(*items, model=BANDWIDTH):
        return outcomes.add(models[model], json.dumps({"outcomes": list(items)}).encode())

    return add


def outcome(prediction, truth, version=VERSION, **more):
    return {"version": version, "prediction": prediction, "outcome": truth, **more}


def samples(registry):
    return [
        Sample(one.name, one.labels, one.value)
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for one in family.samples
    ]


def value(registry, name, version=VERSION, model=BANDWIDTH):
    (found,) = [
        one.value
        for one in samples(registry)
        if one.name == name and one.labels["model"] == model and one.labels["version"] == version
    ]
    return found


def test_losses_are_relative_errors_of_each_version(counted, registry):
    reports = [(110.0, 100.0, VERSION), (50.0, 100.0, VERSION), (99.0, 100.0, OTHER)]
    assert counted(*(outcome(*one) for one in reports)) == (3, 0, 0)
    assert value(registry, "dwcp_reported_loss_count") == 2
    assert value(registry, "dwcp_reported_loss_sum") == pytest.approx(0.6)
    assert value(registry, "dwcp_reported_loss_squares_total") == pytest.approx(0.01 + 0.25)
    assert value(registry, "dwcp_reported_loss_sum", OTHER) == pytest.approx(0.01)


def test_one_report_can_not_hide_all_others(counted, registry):
    assert counted(outcome(3e38, 1.0)) == (1, 0, 0)
    assert value(registry, "dwcp_reported_loss_sum") == o.MAX_LOSS


def test_a_low_throughput_has_no_loss(counted, registry):
    assert counted(outcome(3.0, 0.5), outcome(3.0, 2.0)) == (1, 0, 1)
    assert value(registry, "dwcp_reported_loss_count") == 1


@pytest.mark.parametrize(
    ("model", "right", "wrong"),
    [
        ("compression_selector", (6, 6), (6, 3)),
        ("reliability_detector", (True, True), (False, True)),
        ("consensus_latency", (False, False), (True, False)),
    ],
)
def test_the_others_are_right_or_wrong(counted, registry, model, right, wrong):
    items = [outcome(*right), outcome(*right), outcome(*wrong)]
    assert counted(*items, model=model) == (3, 0, 0)
    assert value(registry, "dwcp_reported_loss_sum", model=model) == 1


def test_an_outcome_that_is_sent_again_counts_once(counted, registry):
    first, second = outcome(1.0, 2.0, id="a"), outcome(1.0, 2.0, id="b")
    assert counted(first, second) == (2, 0, 0)
    assert counted(first, outcome(1.0, 2.0, id="c")) == (1, 1, 0)
    assert counted(outcome(1.0, 2.0), outcome(1.0, 2.0)) == (2, 0, 0), "without ids all count"
    assert counted(outcome(1.0, 2.0, OTHER, id="a")) == (1, 0, 0), "another version's"
    assert value(registry, "dwcp_reported_loss_count") == 5


def test_ids_are_forgotten_and_memory_is_bounded(counted, monkeypatch):
    monkeypatch.setattr(o, "MAX_IDS", 3)
    assert counted(*(outcome(1.0, 2.0, id=str(n)) for n in range(5))) == (5, 0, 0)
    assert counted(outcome(1.0, 2.0, id="4"), outcome(1.0, 2.0, id="0")) == (1, 1, 0)


def test_the_version_that_was_reported_longest_ago_goes_and_never_the_own(counted, registry):
    for number in range(20):
        counted(outcome(1.0, 2.0, f"v{number}"))
    versions = {
        one.labels["version"]
        for one in samples(registry)
        if one.name == "dwcp_reported_loss_count" and one.labels["model"] == BANDWIDTH
    }
    assert versions == {VERSION, *(f"v{n}" for n in range(13, 20))}


@pytest.mark.parametrize(
    ("item", "subject"),
    [
        ("x", "outcomes[0]"),
        ({"version": VERSION, "prediction": 1.0}, "outcomes[0]"),
        (outcome(1.0, 2.0, more=1), "outcomes[0]"),
        (outcome(1.0, 2.0, id=7), "outcomes[0]"),
        (outcome(1.0, 2.0, id="x" * 129), "outcomes[0]"),
        (outcome(1.0, 2.0, ""), "outcomes[0]"),
        (outcome(1.0, 2.0, "v 1"), "outcomes[0]"),
        (outcome(1.0, 2.0, None), "outcomes[0]"),
        (outcome("1", 2.0), "outcomes[0]"),
        (outcome([1.0], 2.0), "outcomes[0]"),
        (outcome(-1.0, 2.0), "outcomes[0]"),
        (outcome(1.0, 1e400), "body"),
        (outcome(1.0, None), "outcomes[0]"),
    ],
)
def test_a_wrong_outcome_is_refused_with_all_of_its_report(counted, registry, item, subject):
    with pytest.raises(BadInput) as refusal:
        counted(item, outcome(1.0, 2.0))
    assert refusal.value.subject == subject
    assert value(registry, "dwcp_reported_loss_count") == 0


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        ("compression_selector", (10, 6)),
        ("compression_selector", (6, -1)),
        ("compression_selector", (6.5, 6)),
        ("reliability_detector", (2, True)),
        ("consensus_latency", (0.5, True)),
    ],
)
def test_what_a_model_can_not_predict_is_refused(counted, model, wrong):
    with pytest.raises(BadInput):
        counted(outcome(*wrong), model=model)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"outcomes": []}', b'{"outcomes": 1}',
                                  b'{"outcomes": [1], "more": 1}', b"x"])  # fmt: skip
def test_what_is_no_report_is_refused(models, registry, body):
    with pytest.raises(BadInput):
        o.Outcomes(models.values(), registry).add(models[BANDWIDTH], body)


def test_reports_are_bounded(counted, models):
    with pytest.raises(TooLarge):
        counted(*[outcome(1.0, 2.0)] * (o.MAX_OUTCOMES + 1))
    with pytest.raises(TooLarge):
        o.Outcomes(models.values(), CollectorRegistry()).add(
            models[BANDWIDTH], b" " * (o.MAX_BYTES + 1)
        )


def test_a_rollout_reads_the_losses_of_every_version_from_any_replica(counted, registry, models):
    rng = np.random.default_rng(0)
    truth = rng.uniform(10.0, 100.0, 300)
    for version, spread in ((VERSION, 0.05), (OTHER, 0.1)):
        predicted = truth * np.exp(rng.normal(0.0, spread, 300))
        counted(*(outcome(p, t, version) for p, t in zip(predicted.tolist(), truth.tolist(),
                                                          strict=True)))  # fmt: skip
    page = [
        *samples(registry),
        Sample("process_start_time_seconds", {}, 1.0),
        Sample("dwcp_model_info", {"model": BANDWIDTH, "version": VERSION}, 1.0),
        Sample("dwcp_requests_total", {"model": BANDWIDTH, "version": VERSION, "code": "200"}, 0.0),
        Sample("dwcp_request_seconds_bucket",
               {"model": BANDWIDTH, "version": VERSION, "le": "+Inf"}, 0.0),
    ]  # fmt: skip
    replica = replica_of("one", page, Expected(BANDWIDTH, VERSION))
    assert replica.error == ""
    losses = replica.sample.losses
    assert {version: sum(one.counts.values()) for version, one in losses.items()} == {
        VERSION: 300, OTHER: 300,
    }  # fmt: skip
    large = {
        version: sum(n for bound, n in one.counts.items() if float(bound) > 0.1)
        for version, one in losses.items()
    }
    assert 0 < large[VERSION] < 0.5 * large[OTHER]
    assert math.isclose(value(registry, "dwcp_reported_loss_count", OTHER), 300)
