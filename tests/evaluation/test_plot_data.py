from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.evaluation.plot_data import MAX_SAMPLE, PlotData, sample
from tests.errors import about


def test_plot_data_are_read_as_they_were_written(tmp_path):
    plot_data = PlotData(
        {
            "truth": np.arange(5.0),
            "flag": np.array([True, False]),
            "series_names": np.array(["a -> b", "c -> d"]),
            "baseline:last_value": np.ones(5),
        }
    )
    plot_data.save(tmp_path / "plot_data.npz")
    back = PlotData.load(tmp_path / "plot_data.npz")
    assert set(back.arrays) == set(plot_data.arrays)
    for name, array in plot_data.arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert list(back.scores("baseline")) == ["last_value"]
    assert "truth" in back
    assert "absent" not in back
    assert [path.name for path in tmp_path.iterdir()] == ["plot_data.npz"]


def test_objects_are_invalid_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="'names' holds Python objects"):
        PlotData({"names": np.array([{}], dtype=object)}).save(tmp_path / "plot_data.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_is_never_read(tmp_path):
    path = tmp_path / "plot_data.npz"
    np.savez(path, names=np.array([{}], dtype=object))
    with pytest.raises(DwcpError, check=about(ErrorCode.MALFORMED, "plot_data.npz")):
        PlotData.load(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_damaged_file_is_an_error(tmp_path, content):
    path = tmp_path / "plot_data.npz"
    path.write_bytes(content)
    with pytest.raises(DwcpError, check=about(ErrorCode.MALFORMED, path)):
        PlotData.load(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_READ, "plot_data.npz")):
        PlotData.load(tmp_path / "plot_data.npz")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "plot_data.npz")):
        (tmp_path / "file").touch()
        PlotData({"a": np.ones(1)}).save(tmp_path / "file" / "plot_data.npz")


def test_a_small_split_is_kept_whole():
    np.testing.assert_array_equal(sample(7), np.arange(7))


def test_a_large_split_is_sampled_evenly_in_order_and_the_same_every_time():
    keep = np.zeros(200_000, bool)
    keep[5000:5100] = True
    rows = sample(200_000, keep)
    assert len(rows) == MAX_SAMPLE
    assert np.all(np.diff(rows) > 0)
    assert set(range(5000, 5100)) <= set(rows.tolist())
    np.testing.assert_array_equal(rows, sample(200_000, keep))
    # Each tenth of the split gives about a tenth of the sample.
    shares = np.histogram(rows, bins=10, range=(0, 200_000))[0] / len(rows)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_important_rows_are_half_of_the_sample_at_most():
    rows = sample(100_000, np.arange(100_000) < 50_000)
    assert len(rows) == MAX_SAMPLE
    first = int((rows < 50_000).sum())
    assert MAX_SAMPLE // 2 <= first < MAX_SAMPLE


def test_the_file_is_readable_for_all(tmp_path):
    PlotData({"a": np.ones(2)}).save(tmp_path / "e.npz")
    assert (tmp_path / "e.npz").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_nothing_and_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    PlotData({"a": np.ones(2)}).save(path)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, path)):
        PlotData({"a": np.zeros(2)}).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["e.npz"]
    assert PlotData.load(path)["a"].tolist() == [1, 1]


def test_a_sample_has_both_ends():
    rows = sample(100_001)
    assert (rows[0], rows[-1]) == (0, 100_000)
