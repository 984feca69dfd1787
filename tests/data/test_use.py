"""Every row of a file ends an example, is merged, or is lost to a named cause."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.data_use import DataUse, DataWarningCode, LeftOut, LossCause
from dwcp_ml.contract.errors import TrainingFailed
from dwcp_ml.contract.examples import BandwidthData, CompressionData, LatencyData
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.use import with_training
from tests.matrix import examples

START = 1_704_067_200


def clean(make, **options):
    frame = make(**options)
    frame["timestamp"] = frame["timestamp"].astype("int64") // 10**9 * 1.0
    return frame


def accounted(use):
    return use.examples + use.merged_rows + sum(use.lost.values())


def test_each_cause_has_its_rows(make):
    frame = clean(make, links=2, steps=400)
    frame = frame[~frame["timestamp"].between(START + 60 * 100, START + 60 * 104)]
    use = prepare(BANDWIDTH, frame, BandwidthData(), quarantined=7).use
    assert use.lost == {
        LossCause.QUARANTINED: 7,
        LossCause.SERIES_START: 2 * 10,
        LossCause.GAP: 2 * 10,
        LossCause.SPLIT_BOUNDARY: 2 * 2 * 10,
    }
    assert use.rows == len(frame) + 7 == accounted(use)
    assert use.rows_used == len(frame)


def test_rows_of_peers_are_merged_and_not_lost(make):
    frame = clean(make, links=2, steps=400)
    data = prepare(LATENCY, frame, LatencyData())
    assert data.use.merged_rows == 400
    assert data.use.examples == sum(data.rows.values())
    assert accounted(data.use) == data.use.rows == data.use.rows_used == 800
    assert data.use.share_lost == pytest.approx(3 * 19 / 400)


def test_links_and_nodes_without_training_rows_are_counted(make):
    frame = clean(make, links=4, steps=400, labels=False)
    late = frame[(frame["node_id"] != "n1") | (frame["timestamp"] >= START + 60 * 370)]
    for spec, chosen, form, windows in (
        (BANDWIDTH, BandwidthData(), "bandwidth_class", 2 * 20),
        (LATENCY, LatencyData(), None, 11),
    ):
        data = prepare(spec, late, chosen, form=form)
        assert data.use.lost[LossCause.NOT_IN_TRAINING] == windows
        assert data.use.rows_used < data.use.rows == accounted(data.use)


def test_a_model_of_rows_loses_only_the_quarantined_ones(make):
    use = prepare(COMPRESSION, clean(make, steps=200), CompressionData(), quarantined=5).use
    assert use.lost == {LossCause.QUARANTINED: 5}
    assert (use.rows, use.rows_used, use.examples) == (605, 600, 600)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200)), min_size=60, max_size=200),
    st.sampled_from([1.0, 1.5, 2.5, 20.0]),
)
def test_no_row_is_lost_without_a_cause(cells, factor):
    cells = sorted(set(cells), key=lambda cell: cell[1])
    rows = len(cells)
    frame = pd.DataFrame({
        "timestamp": [START + 10.0 * moment for _, moment in cells],
        "node_id": [str(node) for node, _ in cells],
        "peer_id": "p",
        "consensus_latency_ms": np.arange(rows) + 1.0,
    })  # fmt: skip
    try:
        data = prepare(LATENCY, frame, LatencyData(window=3, gap_factor=factor))
    except TrainingFailed:
        return
    use = data.use
    assert use.rows == rows == accounted(use)
    assert use.examples == sum(data.rows.values()) <= use.rows_used <= rows
    assert all(count > 0 for count in use.lost.values())


def test_over_a_fifth_of_the_rows_lost_is_a_warning():
    def codes(lost, settings=None, train=5000, left_out=None):
        use = DataUse(rows=100, rows_used=100, examples=100 - lost, lost={LossCause.GAP: lost})
        chosen = settings or BandwidthData()
        result = with_training(use, BANDWIDTH, chosen, train, left_out or {})
        assert result.trained_examples == train - sum((left_out or {}).values())
        return [warning.code for warning in result.warnings]

    assert codes(20) == []
    assert codes(21) == [DataWarningCode.ROWS_LOST]
    assert codes(0, train=1000) == []
    assert codes(0, train=999) == [DataWarningCode.FEW_EXAMPLES]
    assert codes(0, train=1000, left_out={LeftOut.STRIDE: 1}) == [DataWarningCode.FEW_EXAMPLES]
    assert codes(0, BandwidthData(min_training_examples=10), train=11) == []


def test_a_slow_link_keeps_its_windows(make):
    fast, slow = clean(make, links=1, steps=1200, cadence=10), clean(make, links=1, steps=200)
    slow["node_id"] = "slow"
    data = prepare(BANDWIDTH, pd.concat([fast, slow]), BandwidthData())
    by_link = np.bincount(np.concatenate([data.train.series, data.test.series]), minlength=2)
    assert dict(zip(data.series_names, by_link > 0, strict=True)) == {
        "n0->p0": True,
        "slow->p0": True,
    }
    assert data.cadences.tolist() == [10.0, 60.0]
    assert data.max_step(np.array([1, 0])).tolist() == [150.0, 25.0]
    assert LossCause.GAP not in data.use.lost
