import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.columns import GAIN_COLUMNS
from dwcp_ml.data.oracle import (
    BURST_MBIT,
    COMPRESS_MBPS,
    DECOMPRESS_MBPS,
    EXCESS_RATIO,
    FILL_MBIT,
    HIT_SPEED_UP,
    best_level,
    compression_gains,
    compression_type,
    cost_model_gains,
)


def gains_of(throughput, rtt, ratio, hits):
    return cost_model_gains(*(np.array([float(value)]) for value in (throughput, rtt, ratio, hits)))


@given(
    st.floats(0.1, 40_000),
    st.floats(0.1, 500),
    st.floats(1, 12),
    st.floats(0, 1),
    st.integers(1, 9),
)
def test_the_cost_model_is_the_documented_formula(throughput, rtt, ratio, hits, level):
    speed = COMPRESS_MBPS[level - 1] / (1 - hits + hits / HIT_SPEED_UP)
    level_ratio = 1 + (ratio - 1) * EXCESS_RATIO[level - 1]
    rate = min(speed, throughput * level_ratio, DECOMPRESS_MBPS[level - 1])
    fill = FILL_MBIT / speed + FILL_MBIT / DECOMPRESS_MBPS[level - 1]
    seconds = BURST_MBIT / rate + fill + rtt / 2000
    expected = (BURST_MBIT / throughput + rtt / 2000) / seconds - 1
    assert gains_of(throughput, rtt, ratio, hits)[0, level] == pytest.approx(expected)


def test_a_fast_link_is_not_compressed_and_a_slow_one_is():
    assert best_level(gains_of(40_000, 0.5, 3, 0))[0] == 0
    assert best_level(gains_of(10, 50, 3, 0))[0] == 9
    assert best_level(gains_of(10, 50, 1, 0))[0] == 0


def test_in_between_the_level_falls_with_the_rate_of_the_line():
    levels = [best_level(gains_of(rate, 1, 3, 0))[0] for rate in (10, 200, 400, 800, 5000, 40_000)]
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) > 3


def test_a_link_that_carries_nothing_gains_nothing():
    assert (gains_of(0, 10, 4, 0.5) == 0).all()


def test_measured_gains_are_used_where_they_are_whole(telemetry):
    gains, source = compression_gains(telemetry)
    assert source == "measured"
    assert np.array_equal(gains, telemetry[list(GAIN_COLUMNS)].to_numpy())
    for broken in (
        telemetry.drop(columns="throughput_gain_4"),
        telemetry.assign(throughput_gain_4=np.nan),
    ):
        assert compression_gains(broken)[1] == "cost_model"


def test_ties_go_to_the_lower_level():
    assert best_level(np.array([[0.0, 0.5, 0.5, 0.1]])).tolist() == [1]


def test_types_follow_level_and_hit_rate():
    level, hits = np.array([0, 3, 3, 9]), np.array([0.9, 0.5, 0.51, 0.0])
    assert compression_type(level, hits, 0.5).tolist() == [0, 2, 1, 2]


def test_the_oracle_reads_what_the_frame_calls_its_columns():
    frame = pd.DataFrame(
        {
            "throughput_mbps": [10.0, 40_000.0],
            "rtt_ms": [50.0, 0.5],
            "hde_compression_ratio": [3.0, 3.0],
            "hde_delta_hit_rate": [0.0, 0.0],
        }
    )
    assert best_level(compression_gains(frame)[0]).tolist() == [9, 0]
