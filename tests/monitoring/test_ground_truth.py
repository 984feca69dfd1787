"""The ground truth of each prediction, against a reference that reads every row for each."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dwcp_ml.contract.columns import GAIN_COLUMNS
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.incidents import Incident
from dwcp_ml.data.windows import cadence, one_row_a_node
from dwcp_ml.monitoring.ground_truth import KNOWN, REASONS, TelemetryTable, find_ground_truth
from dwcp_ml.monitoring.predictions import collect
from dwcp_ml.monitoring.records import Unmatched
from dwcp_ml.prediction_log.log import LogRecord

pytestmark = pytest.mark.slow

LINKS = [("a", "b"), ("a", "c"), ("b", "a"), ("a/b", "c")]
NAMES = [*(f"{node}/{peer}" for node, peer in LINKS), "a", "b", "b/unseen", "x/y", "", None]

moments = st.one_of(st.integers(-100, 1500), st.floats(-100, 1500, allow_nan=False))
requested = st.lists(st.tuples(st.sampled_from(NAMES), moments), min_size=1, max_size=25)


@st.composite
def telemetry(draw):
    """Rows of a few links on a grid of 60 s that jitters and has holes."""
    rows = []
    for node, peer in draw(st.lists(st.sampled_from(LINKS), min_size=1, unique=True)):
        ticks = draw(st.lists(st.integers(0, 20), min_size=1, max_size=21, unique=True))
        for tick in ticks:
            rows.append((60 * tick + draw(st.integers(-3, 3)), node, peer))  # noqa: PERF401
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    frame = pd.DataFrame(rows, columns=["timestamp", "node_id", "peer_id"])
    frame["throughput_mbps"] = rng.uniform(0.1, 100, len(frame))
    frame[list(GAIN_COLUMNS)] = rng.normal(size=(len(frame), 10))
    # Rows of a node at one time agree, as validation sees to.
    moment = frame.groupby(["node_id", "timestamp"]).ngroup()
    frame["consensus_latency_ms"] = rng.uniform(1, 9, moment.max() + 1)[moment]
    frame["is_high_latency"] = (rng.random(moment.max() + 1) < 0.2)[moment].astype(float)
    return frame.sort_values(["timestamp", "node_id", "peer_id"], ignore_index=True)


OUTPUTS = {
    "bandwidth_predictor": {"next_throughput_mbps": 5.0},
    "compression_selector": {"compression_level": 3},
    "reliability_detector": {"is_anomaly": True, "anomaly_score": 0.7},
    "consensus_latency": {"is_high_latency": False, "reconstruction_error": 0.1},
}


def predictions_of(name, requests, steps=3):
    shape = (steps, 7) if name == "bandwidth_predictor" else (6,)
    shape = (steps,) if name == "consensus_latency" else shape
    (found,) = collect(
        LogRecord(name, "1", "d", f"r{i}", 0, link, moment, 0.0, "", np.zeros(shape, np.float32),
               OUTPUTS[name])
        for i, (link, moment) in enumerate(requests)
    )  # fmt: skip
    return found


def compare(found, expected_truths):
    for i, (reason, truth) in enumerate(expected_truths):
        code = found.reason[i]
        assert (None if code == KNOWN else REASONS[code]) == reason
        if reason is None:
            assert found.values[i] == truth


def step_of(frame, columns):
    series = frame.groupby(columns).ngroup().to_numpy()
    return cadence(frame["timestamp"].to_numpy(), series)


def rows_of(frame, link):
    return [r for r in frame.to_dict("records") if f"{r['node_id']}/{r['peer_id']}" == link]


def node_of(frame, name):
    nodes = set(frame["node_id"])
    links = {f"{r['node_id']}/{r['peer_id']}": r["node_id"] for r in frame.to_dict("records")}
    if name in nodes:
        return name
    return links.get(name, name.split("/")[0] if name.split("/")[0] in nodes else None)


def rows_of_node(frame, link):
    node = node_of(frame, link)
    return [r for r in frame.to_dict("records") if r["node_id"] == node]


def at(rows, moment, step, end):
    """The row that was the newest at a moment, or why there is none."""
    if moment > end:
        return Unmatched.PENDING, None
    before = [r for r in rows if r["timestamp"] <= moment]
    newest = max(before, key=lambda r: r["timestamp"], default=None)
    if newest is None:
        return Unmatched.NO_OBSERVATION, None
    age = moment - newest["timestamp"]
    return (None, newest) if age == 0 or age < step else (Unmatched.NO_OBSERVATION, None)


def whole_milliseconds(moment):
    """Return a moment as the telemetry's times are, halves to even."""
    return float(np.rint(1000.0 * moment)) / 1000.0


def expected(requests, rows_for, ground_truth_of):
    """What each prediction is compared with: the rows of its link, at its time."""
    expected_truths = []
    for link, exact in requests:
        moment = whole_milliseconds(exact)
        rows = [] if link is None else rows_for(link)
        nowhere = Unmatched.NO_LINK if link is None else Unmatched.UNKNOWN_LINK
        expected_truths.append(ground_truth_of(rows, moment) if rows else (nowhere, None))
    return expected_truths


@given(telemetry(), requested)
def test_the_next_throughput_of_the_link(frame, requests):
    step, end = step_of(frame, ["node_id", "peer_id"]), frame["timestamp"].max()

    def ground_truth_of(rows, moment):
        later = [r for r in rows if r["timestamp"] > moment]
        following = min(later, key=lambda r: r["timestamp"], default=None)
        if following is not None and following["timestamp"] - moment <= GAP_FACTOR * step:
            return None, following["throughput_mbps"]
        if following is None and moment + GAP_FACTOR * step > end:
            return Unmatched.PENDING, None
        return Unmatched.NO_OBSERVATION, None

    expected_truths = expected(requests, lambda link: rows_of(frame, link), ground_truth_of)
    compare(
        find_ground_truth(predictions_of("bandwidth_predictor", requests), TelemetryTable(frame)),
        expected_truths,
    )


@given(telemetry(), requested)
def test_the_oracles_level_at_the_moment(frame, requests):
    step, end = step_of(frame, ["node_id", "peer_id"]), frame["timestamp"].max()

    def ground_truth_of(rows, moment):
        reason, row = at(rows, moment, step, end)
        return reason, None if row is None else int(np.argmax([row[name] for name in GAIN_COLUMNS]))

    expected_truths = expected(requests, lambda link: rows_of(frame, link), ground_truth_of)
    compare(
        find_ground_truth(predictions_of("compression_selector", requests), TelemetryTable(frame)),
        expected_truths,
    )


ROW_OF_0 = pd.DataFrame([{"timestamp": 0, "node_id": "a", "peer_id": "b", "throughput_mbps": 1.0,
                          "consensus_latency_ms": 1.0, "is_high_latency": 0.0,
                          **dict.fromkeys(GAIN_COLUMNS, 0.0)}])  # fmt: skip


@given(telemetry(), requested, st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1200))))
@example(frame=ROW_OF_0, requests=[("a/b", -1e-190), ("a/b", 4e-4), ("a/b", 5e-4)], starts=[])
def test_whether_the_node_is_in_an_incident(frame, requests, starts):
    incidents = [
        Incident(timestamp=s, node_id=node, incident_type="crash", start=s, end=s + 200)
        for node, s in starts
    ]
    step, end = step_of(frame, ["node_id", "peer_id"]), frame["timestamp"].max()

    def ground_truth_of(rows, moment):
        reason, row = at(rows, moment, step, end)
        return reason, row is not None and any(
            whose == row["node_id"] and s <= row["timestamp"] <= s + 200 for whose, s in starts
        )

    expected_truths = expected(
        requests, lambda link: rows_of(frame, link) or rows_of_node(frame, link), ground_truth_of
    )
    found = find_ground_truth(
        predictions_of("reliability_detector", requests), TelemetryTable(frame, incidents=incidents)
    )
    compare(found, expected_truths)


@given(telemetry(), requested, st.integers(1, 4))
def test_whether_the_window_overlaps_an_episode(frame, requests, steps):
    nodes = frame.groupby(["timestamp", "node_id"], as_index=False).first()
    observations, _ = one_row_a_node(frame)  # has tests of its own: tests/data/test_subsecond.py
    labels = ["consensus_latency_ms", "is_high_latency"]
    nodes = nodes.drop(columns=labels).merge(observations, on=["timestamp", "node_id"])
    step, end = step_of(nodes, ["node_id"]), frame["timestamp"].max()

    def ground_truth_of(rows, moment):
        reason, row = at(rows, moment, step, end)
        if reason is not None:
            return reason, None
        place = rows.index(row)
        window = rows[max(0, place - steps + 1) : place + 1]
        gaps = np.diff([r["timestamp"] for r in window])
        if len(window) < steps or (gaps > GAP_FACTOR * step).any():
            return Unmatched.WINDOW_GAP, None
        return None, any(r["is_high_latency"] for r in window)

    predictions = predictions_of("consensus_latency", requests, steps)
    expected_truths = expected(requests, lambda link: rows_of_node(nodes, link), ground_truth_of)
    compare(find_ground_truth(predictions, TelemetryTable(frame)), expected_truths)


@given(telemetry(), requested)
@example(frame=ROW_OF_0, requests=[("a/b", 1e-190)])
def test_a_tolerance_that_is_given_holds(frame, requests):
    for name in ("bandwidth_predictor", "compression_selector"):
        none = find_ground_truth(
            predictions_of(name, requests), TelemetryTable(frame, tolerance_seconds=0.0)
        )
        for i, (link, moment) in enumerate(requests):
            if none.reason[i] == KNOWN:
                times = [r["timestamp"] for r in rows_of(frame, link)]
                assert whole_milliseconds(moment) in times
        wide = find_ground_truth(
            predictions_of(name, requests), TelemetryTable(frame, tolerance_seconds=1e9)
        )
        assert REASONS.index(Unmatched.NO_OBSERVATION) not in [
            wide.reason[i]
            for i, (link, moment) in enumerate(requests)
            if any(r["timestamp"] <= moment for r in rows_of(frame, str(link)))
        ]


@pytest.mark.parametrize(("factor", "known"), [(1.5, False), (2.5, True)])
def test_the_gap_factor_and_the_links_own_cadence_set_the_tolerance(factor, known):
    """A fast and a slow link; each lacks one row after the moment."""
    times = [("f", 10.0 * k) for k in range(200)] + [("s", 60.0 * k) for k in range(40)]
    rows = [cell for cell in times if cell not in (("f", 610.0), ("s", 660.0))]
    frame = pd.DataFrame({
        "timestamp": [time for _, time in rows], "node_id": [node for node, _ in rows],
        "peer_id": "p", "throughput_mbps": np.arange(len(rows)) * 1.0,
    })  # fmt: skip
    predictions = predictions_of("bandwidth_predictor", [("f/p", 600.0), ("s/p", 600.0)])
    found = find_ground_truth(predictions, TelemetryTable(frame, gap_factor=factor))
    reason = KNOWN if known else REASONS.index(Unmatched.NO_OBSERVATION)
    assert found.reason.tolist() == [reason, reason]
    assert (found.cadences.tolist(), found.gap_factor) == ([10.0, 60.0], factor)


def test_every_model_has_a_ground_truth():
    assert set(OUTPUTS) == set(MODELS)
