import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data import convert, source
from dwcp_ml.data.arrow import array_of, null_mask, strings_of, values_of
from dwcp_ml.data.reading import load
from dwcp_ml.data.source import open_source
from tests.errors import about


def test_load_returns_the_promised_types_in_the_promised_order(write, telemetry):
    frame = load(write(telemetry.sample(frac=1, random_state=0)), ["rtt_ms", "link_type"])
    assert list(frame) == ["timestamp", "node_id", "peer_id", "rtt_ms", "link_type"]
    assert frame["timestamp"].dtype == np.float64
    assert frame["rtt_ms"].dtype == np.float64
    assert {type(word) for word in frame["node_id"]} == {str}
    expected = telemetry.sort_values(["timestamp", "node_id", "peer_id"], ignore_index=True)
    assert np.allclose(frame["rtt_ms"], expected["rtt_ms"])
    assert frame["link_type"].tolist() == expected["link_type"].tolist()


def test_load_refuses_a_missing_column_and_a_bad_cell(write, telemetry):
    with pytest.raises(DataRefused, check=about(ErrorCode.MISSING, "rtt_ms")):
        load(write(telemetry.drop(columns="rtt_ms")), ["rtt_ms"])
    telemetry = telemetry.astype({"rtt_ms": object})
    telemetry.loc[5, "rtt_ms"] = "fast"
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "row 6")):
        load(write(telemetry), ["rtt_ms"])


def test_load_keeps_a_missing_number_as_nan(write, telemetry):
    telemetry.loc[5, "rtt_ms"] = np.nan
    assert load(write(telemetry), ["rtt_ms"])["rtt_ms"].isna().sum() == 1


def test_blocks_part_a_file_at_lines_only(write, telemetry, monkeypatch):
    path = write(telemetry)
    whole = load(path, telemetry.columns)
    for size in (1500, 4000, 10_000):
        monkeypatch.setattr(source, "BLOCK_BYTES", size)
        assert load(path, telemetry.columns).equals(whole)
        numbers = [batch.row for batch in open_source(path).scan(["rtt_ms"])]
        assert np.concatenate(numbers).tolist() == list(range(1, 121))


def test_row_numbers_count_malformed_rows_in_any_block(tmp_path, monkeypatch):
    path = tmp_path / "telemetry.csv"
    lines = [f"2024-01-01,n,p,{k}" for k in range(1, 101)]
    for bad in (1, 7, 8, 50, 100):
        lines[bad - 1] = "short"
    path.write_text("timestamp,node_id,peer_id,rtt_ms\n" + "\n".join(lines) + "\n")
    for size in (64, 100, 100_000):
        monkeypatch.setattr(source, "BLOCK_BYTES", size)
        opened = open_source(path)
        batches = list(opened.scan(["rtt_ms"], tolerant=True))
        rows = np.concatenate([batch.row for batch in batches])
        values = [float(cell) for batch in batches for cell in batch.cells["rtt_ms"].to_pylist()]
        assert rows.tolist() == values
        assert [bad.row for bad in opened.malformed] == [1, 7, 8, 50, 100]


NUMBERS = [
    ("1", 1.0),
    ("+1.5", 1.5),
    (" -2e3 ", -2000.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("True", 1.0),
    ("false", 0.0),
    ("inf", np.inf),
    ("-Infinity", -np.inf),
    ("", "missing"),
    ("nan", "missing"),
    ("NULL", "missing"),
    (None, "missing"),
    ("1,5", "wrong"),
    ("0x10", "wrong"),
    ("1 2", "wrong"),
    ("--1", "wrong"),
    ("e5", "wrong"),
    ("1_000", "wrong"),
    ("१", "wrong"),
]


@pytest.mark.parametrize(("cell", "expected"), NUMBERS)
def test_numbers_in_text(cell, expected):
    cells = convert.numbers(pa.array([cell, "7"], pa.string()))
    missing = cells.missing is not None and bool(cells.missing[0])
    wrong = cells.wrong is not None and bool(cells.wrong[0])
    assert (missing, wrong) == (expected == "missing", expected == "wrong")
    assert np.isnan(cells.values[0]) if isinstance(expected, str) else cells.values[0] == expected
    assert cells.values[1] == 7


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3], pa.int16()),
        pa.array([1, None, 3], pa.float32()),
        pa.array([1, None, 3], pa.decimal128(10, 2)),
        pa.array(["1", "", "3"]).dictionary_encode(),
        pa.array([0, 1, None, 3], pa.int64())[1:],
    ],
)
def test_numbers_of_every_type(array):
    cells = convert.numbers(array)
    assert cells.missing.tolist() == [False, True, False]
    assert cells.values[[0, 2]].tolist() == [1.0, 3.0]


def test_numbers_of_no_number_are_wrong():
    cells = convert.numbers(pa.array([[1], None]))
    assert (cells.wrong.tolist(), cells.missing.tolist()) == ([True, False], [False, True])
    assert convert.numbers(pa.nulls(2)).missing.all()
    assert convert.numbers(pa.array([True, False])).values.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (pa.array([60, 61, None]), ["60", "61", None]),
        (pa.array([60.0, 61.5, None]), ["60", "61.5", None]),
        (pa.array(["60.0", " a ", ""]), ["60", "a", None]),
        (pa.array(["NA", "nan", "-1.00"]), ["NA", "nan", "-1"]),
        (pa.array([b"x", None]), ["b'x'", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_words_of_every_type(array, names):
    assert convert.words(array).to_objects().tolist() == names


optional = st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), max_size=70)


@given(optional, st.integers(0, 5))
def test_buffers_equal_what_arrow_says(cells, offset):
    for kind in (pa.int64(), pa.float64(), pa.int32()):
        array = pa.array(cells, kind)[offset:]
        expected = cells[offset:]
        null = null_mask(array)
        assert (null is not None) == (None in expected)
        values = values_of(array)
        for position, cell in enumerate(expected):
            assert (null is not None and null[position]) == (cell is None)
            assert cell is None or values[position] == cell
    truth = pa.array([None if cell is None else cell > 0 for cell in cells])[offset:]
    if truth.type == pa.bool_() and len(truth):
        bits = values_of(truth)
        assert all(cell is None or bits[k] == (cell > 0) for k, cell in enumerate(cells[offset:]))


@given(st.lists(st.floats(allow_nan=False), max_size=40), st.randoms())
def test_numpy_becomes_arrow_and_back(values, random):
    array = np.array(values, np.float64)
    mask = np.array([random.random() < 0.3 for _ in values], bool)
    expected = [None if hidden else value for value, hidden in zip(values, mask, strict=True)]
    assert array_of(array, mask).to_pylist() == expected
    assert array_of(array).to_pylist() == values


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]))))
def test_strings_become_arrow(words):
    assert strings_of(words).to_pylist() == words


def test_validation_does_not_import_pandas(write, telemetry, tmp_path):
    """Importing pandas takes longer than validating 50 MB."""
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from dwcp_ml.contract.models import MODELS\n"
        "from dwcp_ml.data.validation import validate\n"
        "validate(Path(sys.argv[1]), specs=list(MODELS.values()), output=Path(sys.argv[2]))\n"
        "sys.exit('pandas' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(write(telemetry)), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == 0


def test_load_reads_what_pandas_wrote(write, telemetry):
    csv = load(write(telemetry), telemetry.columns)
    parquet = load(write(telemetry, "t.parquet"), telemetry.columns)
    pd.testing.assert_frame_equal(csv, parquet)
