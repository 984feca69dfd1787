"""The log that a server would write for a test split, and the offline report on it."""

import numpy as np
import pandas as pd

from dwcp_ml.contract.examples import BandwidthData, CompressionData, LatencyData, ReliabilityData
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.incidents import read_incidents
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import validate
from dwcp_ml.evaluation import evaluate
from dwcp_ml.monitoring import Sources
from dwcp_ml.prediction_log.log import PredictionLog

SETTINGS = {
    "bandwidth_predictor": BandwidthData(),
    "compression_selector": CompressionData(),
    "reliability_detector": ReliabilityData(),
    "consensus_latency": LatencyData(),
}
VERSION = "20260101-000000"


def prepared(files, tmp_path, name, drop=()):
    """Return the data of one model as the offline report sees them."""
    spec = MODELS[name]
    telemetry, incidents = files
    if drop:
        frame = pd.read_csv(telemetry).drop(columns=list(drop))
        frame.to_csv(telemetry, index=False)
    clean = tmp_path / "clean"
    validate(telemetry, specs=[spec], incidents_path=incidents, output=clean)
    labels = [label for label in spec.labels if label not in drop]
    frame = load(clean / "telemetry.parquet", [*spec.needed_columns, *labels])
    return prepare(spec, frame, SETTINGS[name], incidents=read_incidents(incidents))


def fake_predictions(data, seed=3):
    """Return predictions of some quality, with all outputs of the default form."""
    rng, test = np.random.default_rng(seed), data.test
    n = len(test)
    if data.spec.short_name == "bandwidth":
        # The baseline last value, and a little noise.
        last = test.inputs[:, -1, data.spec.features.index("throughput_mbps")]
        return {"next_throughput_mbps": (last * rng.normal(1, 0.01, n)).astype(np.float32)}
    if data.spec.short_name == "compression":
        level = np.where(rng.random(n) < 0.8, test.truth, rng.integers(0, 10, n))
        return {"compression_level": level, "probabilities": rng.random((n, 10), np.float32)}
    score = np.clip(0.6 * test.truth + rng.normal(0.2, 0.2, n), 0, 1).astype(np.float32)
    flag, error = ("is_anomaly", "anomaly_score")
    if data.spec.short_name == "latency":
        flag, error = ("is_high_latency", "reconstruction_error")
    return {flag: score >= 0.5, error: score}


def link_of(data, series):
    return data.series_names[series].replace("->", "/")


def replay(directory, data, predictions, version=VERSION, prefix="r", **changes):
    """Write the log that a server would: one request for each example of the test split."""
    log = PredictionLog(directory, queue_length=1_000_000, clock=lambda: 1e9)
    test = data.test
    for i in range(len(test)):
        fields = {
            "model": data.spec.name,
            "version": version,
            "digest": "d" * 64,
            "request_id": f"{prefix}{i}",
            "link": link_of(data, test.series[i]),
            "observed_at": float(test.timestamp[i]),
            "inputs": test.inputs[i : i + 1],
            "outputs": {name: values[i : i + 1] for name, values in predictions.items()},
        }
        fields |= {key: change(i) for key, change in changes.items()}
        log.offer(**fields)
    log.close(60)
    assert (log.written, log.dropped) == (len(test), 0)


def offline(data, predictions):
    record = TrainingRecord(
        model_name=data.spec.name,
        version=VERSION,
        form=data.form,
        success=True,
        training_date="2026-01-01T00:00:00+00:00",
        training_time_seconds=1.0,
        hyperparameters={},
        seed=42,
        threads=1,
    )
    return evaluate(data, predictions, record, data.spec.form().targets)[0]


def sources(files, tmp_path, **fields):
    paths = (tmp_path / "log", *files)
    defaults = dict(zip(("log", "data_path", "incidents_path"), map(str, paths), strict=True))
    return Sources(**{**defaults, **fields})
