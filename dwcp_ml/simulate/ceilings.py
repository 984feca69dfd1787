"""The best possible metrics, and those of the naive baselines, on the test split of the models.

The oracles of `oracles.py`, `detection.py` and `episode_detection.py` are evaluated exactly as the
models are: same examples, same metrics, same baselines, same standard errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Array, Floats, Ints
from dwcp_ml.contract.errors import TrainingFailed
from dwcp_ml.contract.examples import BandwidthData, CompressionData, ModelData
from dwcp_ml.contract.models import MODELS, ModelSpec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.data.examples import SETTINGS, prepare
from dwcp_ml.data.features import REFERENCE_QUANTILE
from dwcp_ml.data.incidents import Incident
from dwcp_ml.data.oracle import compression_type
from dwcp_ml.evaluation.ceiling import NOT_COMPARED, Oracle
from dwcp_ml.evaluation.comparison import point, standard_error, time_blocks
from dwcp_ml.evaluation.evaluate import EVALUATORS
from dwcp_ml.evaluation.metrics import Metrics
from dwcp_ml.simulate import detection, episode_detection, oracles
from dwcp_ml.simulate.generation import SimulatedTelemetry, incident_records, node_names

Predictions = dict[str, Array]

FALSE_POSITIVE_RATE = 0.05
"""The recall of the reliability oracle is that at this share of flagged healthy rows."""

METRICS: dict[str, tuple[str, ...]] = {
    "next_throughput_mbps": ("correlation", "correlation_within_link_median", "mape_percent"),
    "bandwidth_class": ("accuracy",),
    "compression_level": ("accuracy",),
    "compression_type": ("accuracy",),
    "anomaly": ("recall", "pr_auc"),
    "high_latency": ("detection_accuracy",),
}
"""The metrics that have a ceiling: those with a target for which the oracle is optimal."""

HOW = {
    "next_throughput_mbps": "Forecast from the hidden load at t and the laws of what follows: "
    "its mean for the correlations, its 1/throughput-weighted median for MAPE.",
    "bandwidth_class": "The most probable class of the same forecast.",
    "compression_level": "The most probable best level, given the true payload class, the link's "
    "constants and the noisy compression counters of the row.",
    "compression_type": "The type of that level, by the row's own delta hit rate.",
    "anomaly": "Likelihood ratio of incident to health (benign bursts included), knowing the load "
    f"of the network; recall at a false-positive rate of {FALSE_POSITIVE_RATE}.",
}
HOW_HIGH_LATENCY = {
    "steps": "Probability that a step of the window lies in an episode, knowing the latency "
    "that the node would show without one; flagged above one half.",
    "published": "Probability that a step of the window lies in an episode, by a hidden Markov "
    "model of all kinds and of benign events that knows the quiet latency (changed routes "
    "included); flagged above one half.",
}
"""How the ceiling of `high_latency` is computed, by the profile of the episodes."""


@dataclass(frozen=True)
class _PreparedTelemetry:
    """The telemetry as `dwcp_ml.data` prepares it for the models."""

    telemetry: SimulatedTelemetry
    frame: pd.DataFrame
    incidents: list[Incident]

    def examples(self, spec: ModelSpec, form: str) -> ModelData:
        """Return the examples of one model, split as for training."""
        return prepare(
            spec,
            self.frame,
            SETTINGS[spec.name](),
            incidents=self.incidents,
            form=form,
            seed=self.telemetry.settings.seed,
        )

    def steps(self, data: ModelData) -> Ints:
        """Return the step of the last row of every test example, shape (n,)."""
        elapsed = data.test.timestamp - self.frame["timestamp"].iloc[0]
        steps: Ints = np.rint(elapsed / self.telemetry.settings.cadence_seconds).astype(np.int64)
        return steps

    def channels(self, data: ModelData) -> Ints:
        """Return the link (or node, for a model of nodes) of every test example, shape (n,)."""
        topology = self.telemetry.hidden.topology
        names = node_names(topology.nodes)
        if data.spec.series_key == ("node_id",):
            index = {name: position for position, name in enumerate(names)}
        else:
            pairs = zip(topology.node, topology.peer, strict=True)
            index = {f"{names[i]}->{names[j]}": k for k, (i, j) in enumerate(pairs)}
        return np.array([index[name] for name in data.series_names])[data.test.series]


def ceilings(telemetry: SimulatedTelemetry) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return ceilings and baselines of every form of every model, and the oracles' predictions.

    `models[name][form]` holds `ceiling` and `standard_error` (metric to value), `baselines` and
    `references` (name to metric to value), `test_set_size` and `how`. A form for which the
    telemetry is too short has `skipped`, the reason, instead, and no predictions.
    """
    # In the order of a validated dataset, which the stratified split depends on.
    order = ["timestamp", "node_id", "peer_id"]
    frame = telemetry.frame.sort_values(order, kind="stable", ignore_index=True)
    frame["timestamp"] = frame["timestamp"].to_numpy("datetime64[s]").astype(np.int64)
    incidents = [Incident.model_validate(record) for record in incident_records(telemetry)]
    prepared = _PreparedTelemetry(telemetry, frame, incidents)
    models: dict[str, dict[str, Any]] = {}
    rows = []
    for spec in MODELS.values():
        models[spec.name] = {}
        for form in spec.forms:
            entry, oracle = _entry(prepared, spec, form.name)
            models[spec.name][form.name] = entry
            if oracle is not None:
                rows.append(oracle.frame(form.name))
    described = {
        "seed": telemetry.settings.seed,
        "settings": telemetry.settings.model_dump(mode="json"),
        "models": models,
    }
    return described, pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"form": []})


def _entry(
    prepared: _PreparedTelemetry, spec: ModelSpec, form: str
) -> tuple[dict[str, Any], Oracle | None]:
    """Evaluate the oracle of one form, or return why it can't be evaluated."""
    try:
        data = prepared.examples(spec, form)
    except TrainingFailed as error:
        return {"skipped": str(error)}, None
    blocks = time_blocks(data.test.timestamp)
    training = _no_training(spec, form)
    entry: dict[str, Any] = {"ceiling": {}, "standard_error": {}}
    compared = {}
    for metrics, predictions in _ORACLES[form](prepared, data):
        result = EVALUATORS[form](data, predictions, training, blocks)
        for metric in metrics:
            if metric not in NOT_COMPARED:
                compared[metric] = predictions
            statistic = result.model.statistics[metric]
            entry["ceiling"][metric] = _number(point(statistic, blocks))
            entry["standard_error"][metric] = _number(standard_error(statistic, blocks))
        for kind in ("baselines", "references"):
            others: dict[str, Metrics] = getattr(result, kind)
            entry[kind] = {
                name: {metric: _number(each.values(blocks)[metric]) for metric in METRICS[form]}
                for name, each in others.items()
            }
    how = HOW | {"high_latency": HOW_HIGH_LATENCY[prepared.telemetry.settings.latency_episodes]}
    entry |= {"test_set_size": len(data.test), "how": how[form]}
    return entry, Oracle.of(data, compared)


def _number(value: float | None) -> float | None:
    """Return a value with six significant digits; None where it is not defined."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def _no_training(spec: ModelSpec, form: str) -> TrainingRecord:
    """Return the training record of an oracle, from which the evaluation reads the thresholds."""
    return TrainingRecord(
        model_name=spec.name,
        version="oracle",
        form=form,
        success=True,
        training_date="",
        training_time_seconds=0.0,
        hyperparameters={"data": SETTINGS[spec.name]().model_dump()},
        seed=42,
        threads=1,
    )


OraclePredictions = list[tuple[tuple[str, ...], Predictions]]
"""Predictions of an oracle, each with the metrics for which it is optimal."""


def _bandwidth(prepared: _PreparedTelemetry, data: ModelData) -> OraclePredictions:
    step, link = prepared.steps(data), prepared.channels(data)
    limits = _class_limits(prepared, data)
    settings, hidden = prepared.telemetry.settings, prepared.telemetry.hidden
    forecast = oracles.forecast_throughput(settings, hidden, step, link, limits)
    if data.form == "bandwidth_class":
        chosen = forecast.class_probability.argmax(axis=1)
        return [(("accuracy",), {"bandwidth_class": chosen})]
    correlations = ("correlation", "correlation_within_link_median")
    return [
        (correlations, {"next_throughput_mbps": forecast.mean_mbps}),
        (("mape_percent",), {"next_throughput_mbps": forecast.mape_optimal_mbps}),
    ]


def _class_limits(prepared: _PreparedTelemetry, data: ModelData) -> Floats:
    """Throughput from which each test example is good, and degraded, shape (n, 2)."""
    settings = BandwidthData()
    trained = prepared.frame["timestamp"] < data.facts["validation_starts"]
    names = prepared.frame["node_id"] + "->" + prepared.frame["peer_id"]
    reference = prepared.frame["throughput_mbps"][trained].groupby(names[trained])
    of_link = reference.quantile(REFERENCE_QUANTILE).reindex(list(data.series_names)).to_numpy()
    shares = np.array([settings.good_share, settings.degraded_share])
    return np.asarray(of_link[data.test.series][:, None] * shares)


def _compression(prepared: _PreparedTelemetry, data: ModelData) -> OraclePredictions:
    step, link = prepared.steps(data), prepared.channels(data)
    names = data.spec.features
    inputs = data.test.inputs.astype(np.float64)
    ratio = inputs[:, names.index("hde_compression_ratio")]
    rate = inputs[:, names.index("amst_transfer_rate")]
    settings, hidden = prepared.telemetry.settings, prepared.telemetry.hidden
    level = oracles.choose_level(settings, hidden, step, link, (ratio, rate))
    if data.form == "compression_type":
        hit_rate = inputs[:, names.index("hde_delta_hit_rate")]
        cutoff = CompressionData().hde_hit_rate_cutoff
        return [(("accuracy",), {data.form: compression_type(level, hit_rate, cutoff)})]
    return [(("accuracy",), {data.form: level})]


def _reliability(prepared: _PreparedTelemetry, data: ModelData) -> OraclePredictions:
    step, link = prepared.steps(data), prepared.channels(data)
    names = ("uptime_pct", "failure_rate", "error_budget_burn_rate", "rtt_ms")
    readings = data.test.inputs[:, [data.spec.features.index(name) for name in names]]
    settings, hidden = prepared.telemetry.settings, prepared.telemetry.hidden
    score = detection.incident_log_odds(settings, hidden, step, link, readings.astype(np.float64))
    healthy = score[~data.test.truth.astype(bool)]
    limit = np.quantile(healthy, 1 - FALSE_POSITIVE_RATE)
    predictions = {"anomaly_score": score, "is_anomaly": score >= limit}
    return [(("recall", "pr_auc"), predictions)]


def _latency(prepared: _PreparedTelemetry, data: ModelData) -> OraclePredictions:
    window = np.arange(1 - data.test.inputs.shape[1], 1)
    step = prepared.steps(data)[:, None] + window
    node = np.broadcast_to(prepared.channels(data)[:, None], step.shape)
    settings, state = prepared.telemetry.settings, prepared.telemetry.hidden.consensus
    latency = data.test.inputs.astype(np.float64)
    odds = episode_detection.episode_log_odds(settings, state, step, node, latency)
    # minus the log of the probability that no step lies in an episode
    predictions = {"reconstruction_error": np.logaddexp(0, odds), "is_high_latency": odds > 0}
    return [(("detection_accuracy",), predictions)]


_ORACLES: dict[str, Callable[[_PreparedTelemetry, ModelData], OraclePredictions]] = {
    "next_throughput_mbps": _bandwidth,
    "bandwidth_class": _bandwidth,
    "compression_level": _compression,
    "compression_type": _compression,
    "anomaly": _reliability,
    "high_latency": _latency,
}
