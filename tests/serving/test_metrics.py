"""The metrics of the server: names and labels that the rollout relies on, and their values."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.contract.bundle import contract_digest
from dwcp_ml.serving.metrics import SECONDS_BUCKETS, ServerMetrics
from tests.serving.bundles import MODELS, VERSION


@pytest.fixture
def metrics(models):
    made = ServerMetrics()
    made.serve(models.values())
    return made


def samples(metrics):
    text = generate_latest(metrics.registry).decode()
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def value(metrics, name, **labels):
    values = [s.value for s in samples(metrics) if s.name == name and s.labels == labels]
    assert len(values) <= 1
    return values[0] if values else None


def test_names_and_labels_are_those_that_others_rely_on(metrics):
    labels = {s.name: set(s.labels) for s in samples(metrics) if s.name.startswith("dwcp_")}
    assert labels["dwcp_requests_total"] == {"model", "version", "code"}
    assert labels["dwcp_request_seconds_bucket"] == {"model", "version", "le"}
    assert labels["dwcp_request_seconds_count"] == {"model", "version"}
    assert labels["dwcp_model_info"] == {"model", "version", "digest", "contract"}


def test_every_model_is_named_with_its_digest(metrics, models):
    for name in MODELS:
        model = models[name]
        assert len(model.digest) == len(model.contract) == 64
        assert model.contract == contract_digest(model.manifest)
        labels = {"model": name, "digest": model.digest, "contract": model.contract}
        assert value(metrics, "dwcp_model_info", version=VERSION, **labels) == 1


@pytest.mark.parametrize("code", ["200", "400", "500", "503"])
def test_series_begin_at_zero(metrics, code):
    for name in MODELS:
        labels = {"model": name, "version": VERSION}
        assert value(metrics, "dwcp_requests_total", **labels, code=code) == 0
        assert value(metrics, "dwcp_request_seconds_count", **labels) == 0


def test_an_answer_is_counted_once_with_its_seconds(metrics, models):
    name = "consensus_latency"
    labels = {"model": name, "version": VERSION}
    metrics.count(models[name], 200, 0.004)
    metrics.count(models[name], 413, 0.5)
    assert value(metrics, "dwcp_requests_total", **labels, code="200") == 1
    assert value(metrics, "dwcp_requests_total", **labels, code="413") == 1
    assert value(metrics, "dwcp_request_seconds_sum", **labels) == pytest.approx(0.504)
    assert value(metrics, "dwcp_request_seconds_bucket", **labels, le="0.003") == 0
    assert value(metrics, "dwcp_request_seconds_bucket", **labels, le="0.004") == 1


def test_thousands_of_requests_are_in_their_buckets(metrics, models):
    """More than are buffered, against Prometheus's own histogram."""
    name = "reliability_detector"
    reference = Histogram("seconds", "", buckets=SECONDS_BUCKETS, registry=CollectorRegistry())
    seconds = [*np.random.default_rng(0).lognormal(-6.0, 2.0, 10_000), *SECONDS_BUCKETS, 0.0]
    for each in seconds:
        metrics.count(models[name], 200, each)
        reference.observe(each)
    (family,) = reference.collect()
    for sample in family.samples:
        if sample.name in ("seconds_bucket", "seconds_count", "seconds_sum"):
            labels = {"model": name, "version": VERSION, **sample.labels}
            mine = value(metrics, sample.name.replace("seconds", "dwcp_request_seconds"), **labels)
            assert mine == pytest.approx(sample.value, rel=1e-12)


def test_a_copy_of_a_router_is_counted_apart(metrics, models):
    name = "consensus_latency"
    metrics.count(models[name], 200, 0.004, True)
    labels = {"model": name, "version": VERSION}
    assert value(metrics, "dwcp_mirrored_requests_total", **labels, code="200") == 1
    assert value(metrics, "dwcp_requests_total", **labels, code="200") == 0
    assert value(metrics, "dwcp_request_seconds_count", **labels) == 0


def test_what_is_not_served_is_one_series(metrics):
    for _ in range(3):
        metrics.count(None, 404, 0.0)
    unknown = {"model": "unknown", "version": "unknown"}
    assert value(metrics, "dwcp_requests_total", **unknown, code="404") == 3


def test_buckets_rise_and_tell_10_ms_apart():
    assert list(SECONDS_BUCKETS) == sorted(set(SECONDS_BUCKETS))
    assert 0.01 in SECONDS_BUCKETS


def test_the_log_tells_what_it_kept_and_dropped(metrics):
    class Log:
        written, dropped = 7, 2

    metrics.watch_log(Log())
    assert value(metrics, "dwcp_prediction_log_written") == 7
    Log.dropped = 3
    assert value(metrics, "dwcp_prediction_log_dropped") == 3
