"""A sample of more rows than a model may read: whole blocks of a node, drawn at random."""

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.data_use import LossCause
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.data.examples import BandwidthData, prepare
from dwcp_ml.data.partitions import open_telemetry
from dwcp_ml.data.reading import Sampling, load, load_sample
from dwcp_ml.data.sampling import BLOCK_STEPS, draw_rows
from tests.data.conftest import START, make_telemetry

STEP = 60.0
BLOCKS = 30


@pytest.fixture(scope="module")
def frame():
    """Six links of three nodes; each node has 30 blocks of 400 rows."""
    first = -START % (BLOCK_STEPS * 60)  # seconds until the next block
    frame = make_telemetry(links=6, steps=BLOCKS * BLOCK_STEPS, labels=False)
    return frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(seconds=first))


@pytest.fixture(scope="module")
def path(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "telemetry.parquet"
    frame.to_parquet(path, index=False)
    return path


def blocks_of(rows):
    return rows["timestamp"] // (BLOCK_STEPS * STEP)


def drawn(path, most, seed=42, columns=()):
    return load_sample(path, list(columns), Sampling(most, STEP, seed))


def test_a_file_of_so_many_rows_is_read_whole(path, frame):
    for most in (len(frame), len(frame) + 1):
        sample, left_out = drawn(path, most)
        assert left_out == 0
        pd.testing.assert_frame_equal(sample, load(path, []))


@pytest.mark.parametrize("most", [1000, 4321, 35_999])
def test_a_sample_has_whole_blocks_and_as_many_rows_as_fit(path, frame, most):
    sample, left_out = drawn(path, most)
    assert len(sample) + left_out == len(frame)
    assert most - 2 * BLOCK_STEPS < len(sample) <= most
    sizes = sample.groupby(["node_id", blocks_of(sample)]).size()
    assert set(sizes) == {2 * BLOCK_STEPS}
    everything = load(path, [])
    inside = pd.MultiIndex.from_arrays([everything["node_id"], blocks_of(everything)])
    expected = everything[inside.isin(sizes.index)].reset_index(drop=True)
    pd.testing.assert_frame_equal(sample, expected)


def test_the_sample_depends_on_the_seed_and_not_on_how_the_rows_are_stored(path, frame, tmp_path):
    sample, _ = drawn(path, 5000)
    pd.testing.assert_frame_equal(sample, drawn(path, 5000)[0])
    assert not sample.equals(drawn(path, 5000, seed=43)[0])
    mixed = frame.iloc[np.random.default_rng(0).permutation(len(frame))]
    for index in range(3):
        mixed.iloc[index::3].to_parquet(tmp_path / f"{index}.parquet", index=False)
    pd.testing.assert_frame_equal(sample, drawn(tmp_path, 5000)[0])


def test_every_block_has_the_same_chance(path):
    source, rows, draws = open_telemetry(path), load(path, []), 60
    batches = list(source.scan(("timestamp", "node_id")))
    chosen = np.zeros(len(rows))
    for seed in range(draws):
        sample = draw_rows(source, 12_000, STEP, seed)
        chosen += np.concatenate([sample.holds(batch) for batch in batches])
    # The file is in the order of `load`, so the rows of a block are those of its node and time.
    share = pd.Series(chosen / draws).groupby([rows["node_id"], blocks_of(rows)])
    assert (share.min() == share.max()).all()
    assert abs(share.mean().mean() - 1 / 3) < 0.02
    assert (abs(share.mean() - 1 / 3) < 4.5 * np.sqrt(2 / 9 / draws)).all()


def test_no_window_spans_a_block_that_was_not_drawn_and_every_row_is_accounted_for(path, frame):
    sample, left_out = drawn(path, 6000, columns=BANDWIDTH.needed_columns)
    data = prepare(BANDWIDTH, sample, BandwidthData(), quarantined=3, not_drawn=left_out)
    for examples in (data.train, data.validation, data.test):
        spans = examples.span[:, 1] - examples.span[:, 0]
        assert (spans == 10 * STEP).all()
    use = data.use
    assert use.rows == len(frame) + 3
    assert use.rows == use.examples + sum(use.lost.values())
    assert use.lost[LossCause.NOT_DRAWN] == left_out
    # Of each block of a link at most the first ten rows are lost, beside those of the splits.
    assert use.share_lost < 0.1
