"""A log is read up to its last complete line, and other files are rejected."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.prediction_log.format import HEADER, decode, encode, segment_name
from dwcp_ml.prediction_log.log import PredictionLog, read_log
from dwcp_ml.prediction_log.segments import adopt_orphans, segments
from tests.errors import about


@pytest.fixture
def segment(tmp_path):
    """A finished segment of five records."""
    log = PredictionLog(tmp_path / "log")
    for i in range(5):
        log.offer("m", "1", "d", str(i), "a/b", 1.0, np.ones((1, 6)), {"y": np.ones(1)})
    log.close(30)
    (path,) = segments(tmp_path / "log")
    return path


def test_an_unfinished_segment_is_read_up_to_its_last_whole_line(segment):
    content = segment.read_bytes()
    segment.unlink()
    part = segment.with_suffix(".jsonl.part")
    for size in range(len(content) + 1):
        part.write_bytes(content[:size])
        lines = content[:size].count(b"\n")
        assert len(list(read_log(segment.parent))) == max(0, lines - 1)


@pytest.mark.parametrize("cut", [0, 10, len(HEADER), len(HEADER) + 40, -7])
def test_an_orphan_is_finished_without_its_cut_line(segment, cut):
    content = segment.read_bytes()
    segment.unlink()
    part = segment.with_suffix(".jsonl.part")
    part.write_bytes(content[: len(content) if cut == 0 else cut])
    before = [record.request_id for record in read_log(segment.parent)]
    assert adopt_orphans(segment.parent) == 1
    assert not part.exists()
    assert segment.exists() == bool(before)
    assert [record.request_id for record in read_log(segment.parent)] == before


def test_a_finished_segment_that_is_cut_off_is_rejected(segment):
    segment.write_bytes(segment.read_bytes()[:-3])
    with pytest.raises(DataRefused, match=r"Line 6 of .* is cut off: copy the file again"):
        list(read_log(segment.parent))


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"inputs":[1],"outputs":{}}',
        b'{"model":1,"version":"","digest":"","request_id":"","row":0,"link":null,'
        b'"observed_at":null,"received_at":1,"protocol":"","inputs":[1],"outputs":{}}',
        b'{"model":"","version":"","digest":"","request_id":"","row":0,"link":null,'
        b'"observed_at":"x","received_at":1,"protocol":"","inputs":[1],"outputs":{}}',
        b'{"model":"","version":"","digest":"","request_id":"","row":0,"link":null,'
        b'"observed_at":null,"received_at":1,"protocol":"","inputs":["x"],"outputs":{}}',
        b'{"model":"","version":"","digest":"","request_id":"","row":0.5,"link":null,'
        b'"observed_at":null,"received_at":1,"protocol":"","inputs":[1],"outputs":{}}',
        b'{"model":"","version":"","digest":"","request_id":"","row":0,"link":null,'
        b'"observed_at":null,"received_at":1,"protocol":"","inputs":1,"outputs":{}}',
    ],
)
def test_a_damaged_line_is_rejected(segment, line):
    lines = segment.read_bytes().split(b"\n")
    lines[3] = line
    segment.write_bytes(b"\n".join(lines))
    with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, "line 4")):
        list(read_log(segment.parent))


def test_foreign_files_are_rejected(segment, tmp_path):
    (segment.parent / "telemetry.csv").write_text("a,b\n")
    with pytest.raises(DataRefused, check=about(ErrorCode.FORBIDDEN, "telemetry.csv")):
        list(read_log(segment.parent))


def test_a_file_with_only_the_name_of_a_segment_is_rejected(segment):
    segment.write_bytes(b'{"hello": 1}\n')
    with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, segment.name)):
        list(read_log(segment.parent))
    segment.write_bytes(HEADER.replace(b'"schema_version":1', b'"schema_version":2'))
    with pytest.raises(DataRefused, check=about(ErrorCode.UNSUPPORTED, segment.name)):
        list(read_log(segment.parent))


def test_hidden_files_and_directories_are_ignored(segment):
    (segment.parent / "..data").mkdir()
    (segment.parent / "lost+found").mkdir()
    (segment.parent / ".nfs0001").write_text("x")
    assert len(list(read_log(segment.parent))) == 5


def test_a_missing_directory_or_a_file_is_rejected(tmp_path):
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, "nothing")):
        list(read_log(tmp_path / "nothing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, "file")):
        list(read_log(tmp_path / "file"))


def test_an_empty_log_has_no_record(tmp_path):
    assert list(read_log(tmp_path)) == []


def test_segments_that_are_finished_or_removed_meanwhile_are_no_error(segment):
    other = segment.with_name(segment_name(2e9, "0" * 8, 0))
    removed = segment.with_name(segment_name(2.1e9, "0" * 8, 0))
    part = other.with_suffix(".jsonl.part")
    part.write_bytes(segment.read_bytes())
    removed.write_bytes(segment.read_bytes())
    reading = read_log(segment.parent)
    next(reading)
    part.rename(other)
    removed.unlink()
    assert len(list(reading)) == 4 + 5


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_names_sort_by_time(first, second):
    ours, theirs = (segment_name(t, "f" * 8, 0) for t in (first, second))
    if abs(first - second) >= 0.002:  # names hold milliseconds
        assert (ours < theirs) == (first < second)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=6),
    st.text(max_size=5),
    st.one_of(st.none(), st.floats(0, 2e9)),
)
def test_encoding_and_decoding_agree(values, name, observed_at):
    inputs = np.array([values], np.float32)
    common = {
        "model": name, "version": name, "digest": "", "request_id": name, "link": None,
        "observed_at": observed_at, "received_at": 1.5, "protocol": "v2",
    }  # fmt: skip
    (line,) = encode(common, inputs, {"y": inputs, "z": inputs[:, 0]})
    assert line.endswith(b"\n")
    assert json.loads(line)["row"] == 0
    record = decode(line)
    assert (record.model, record.observed_at) == (name, observed_at)
    finite = np.where(np.isfinite(inputs[0]), inputs[0], np.nan)
    np.testing.assert_array_equal(record.inputs, finite)
    np.testing.assert_array_equal(np.array(record.outputs["y"], np.float32), finite)
    np.testing.assert_array_equal(np.float32(record.outputs["z"]), finite[0])


def test_the_whole_numbers_of_onnx_runtime_are_kept():
    """Its int64 is C's long long: equal to NumPy's int64, and another type to a JSON writer."""
    levels = np.array([7, 3], np.longlong)
    common = dict.fromkeys(("model", "version", "digest", "request_id", "protocol"), "x")
    common |= {"link": None, "observed_at": None, "received_at": 1.5}
    lines = encode(common, np.zeros((2, 6), np.float32), {"compression_level": levels})
    assert [decode(line).outputs["compression_level"] for line in lines] == [7, 3]
