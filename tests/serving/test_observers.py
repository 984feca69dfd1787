"""Observers record predictions, and the time in a header is parsed."""

import time

import pytest

from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.observers import Observers, epoch_seconds
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.v1 import V1
from tests.serving.bundles import VERSION, rows_for


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1760000000", 1760000000.0),
        ("1760000000.25", 1760000000.25),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2026-01-01 00:00:00.5+00:00", 1767225600.5),
    ],
)
def test_a_time_is_epoch_seconds(text, seconds):
    assert epoch_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        None, "", "yesterday", "nan", "inf", "-inf", "1e999", "-5", "0", "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
        "1" * 100_000, "2" * 12,
    ],
)  # fmt: skip
def test_an_invalid_time_is_ignored(text):
    assert epoch_seconds(text) is None


def test_tomorrow_is_a_time():
    assert epoch_seconds(str(time.time() + 86400)) is not None


class Log:
    def __init__(self):
        self.offers = []

    def offer(self, *values, **more):
        self.offers.append((values, more))


def test_the_log_receives_rows_and_predictions(models):
    log = Log()
    model = models["reliability_detector"]
    rows = rows_for(model.name, 2)
    outputs = model.run(rows)
    request = PredictRequest(model, V1(), b"", "id-1", "n1/n2", "1760000000", print)
    Observers(ServerMetrics(), None, log).log_request(request, rows, outputs)
    ((values, more),) = log.offers
    assert values[:6] == (model.name, VERSION, model.digest, "id-1", "n1/n2", 1760000000.0)
    assert values[6] is rows
    assert values[7] is outputs
    assert more == {"protocol": "v1"}
