"""Whatever is done to a valid file: a report, or one sentence and exit code 4; no traceback."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import validate
from tests.matrix import few

ALL = tuple(MODELS.values())
RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Content(dict):
    """Bytes by suffix; hypothesis prints its arguments, and these are long."""

    def __repr__(self):
        return "content"


@pytest.fixture(scope="module")
def content(make):
    frame = make(links=2, steps=12)
    return Content({"csv": frame.to_csv(index=False).encode(), "parquet": frame.to_parquet()})


def outcome(path, output, incidents=None):
    """Validate; the clean copy must load, and a refusal must be whole."""
    try:
        report = validate(path, specs=ALL, output=output, incidents_path=incidents)
    except DataRefused as error:
        message = str(error)
        assert message.endswith((".", ")"))
        assert message.isprintable()  # and so on one line
        assert not output.exists()
        return None
    frame = load(output / "telemetry.parquet", ["rtt_ms", "throughput_mbps", "link_type"])
    assert len(frame) == report.rows - report.rows_quarantined
    assert frame.notna().all().all()
    assert (frame["rtt_ms"] > 0).all()
    return report


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "cut", "repeat", "swap"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def corrupt(data, changes):
    for kind, place, payload in changes:
        at = int(place * len(data))
        if kind == "flip":
            data = data[:at] + payload + data[at + len(payload) :]
        elif kind == "insert":
            data = data[:at] + payload + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 40 * len(payload) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data + data[at:]
        else:
            data = data[at:] + data[:at]
    return data


@RELAXED
@given(edits, st.sampled_from(["csv", "parquet"]))
def test_corrupted_bytes(tmp_path_factory, content, changes, kind):
    directory = tmp_path_factory.mktemp("corrupt")
    path = directory / "telemetry"
    path.write_bytes(corrupt(content[kind], changes))
    outcome(path, directory / "out")


cell = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1", "1e400", "-0", '"', "'", "a,b", "\t", "é", "1e-400"]),
    st.text(max_size=6),
    st.floats().map(repr),
    st.integers().map(str),
    st.datetimes().map(str),
)


@RELAXED
@example(changes=[(1, 18, ".1"), (2, 18, "é")])  # one kind of defect, found in the later row first
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 50), cell), min_size=1, max_size=6
    )
)
def test_corrupted_cells(tmp_path_factory, content, changes):
    directory = tmp_path_factory.mktemp("cells")
    rows = [line.split(",") for line in content["csv"].decode().splitlines()]
    for row, column, word in changes:
        line = rows[row % len(rows)]
        line[column % len(line)] = word
    path = directory / "telemetry.csv"
    text = "\n".join(",".join(line) for line in rows) + "\n"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(path, directory / "out")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["timestamp", "node_id", "incident_type", "start", "end", "severity"]),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=12,
)


@RELAXED
@given(json_values)
def test_any_json_as_incidents(tmp_path_factory, content, value):
    directory = tmp_path_factory.mktemp("incidents")
    path = directory / "telemetry.csv"
    path.write_bytes(content["csv"])
    incidents = directory / "incidents.json"
    incidents.write_text(json.dumps(value))
    outcome(path, directory / "out", incidents)


def test_the_untouched_files_pass(tmp_path, content):
    for kind, data in content.items():
        path = tmp_path / f"telemetry.{kind}"
        path.write_bytes(data)
        assert outcome(path, tmp_path / f"out-{kind}").defects == ()


@pytest.mark.parametrize("rows", few([300, 120_000], 300))
def test_rows_that_are_all_malformed_are_refused_at_any_size(tmp_path, content, rows):
    header, first, *_ = content["csv"].decode().splitlines()
    path = tmp_path / "telemetry.csv"
    path.write_text(f"{header}\n" + f"{first},\n" * rows)
    with pytest.raises(DataRefused, match="have more or fewer cells than the header, first row 1"):
        validate(path, specs=ALL)


@pytest.mark.parametrize("length", [10, 60_000])
def test_line_breaks_in_quotes_are_read_at_any_size(tmp_path, make, length):
    frame = make(links=2, steps=120).assign(remark=f'a,\nb "quoted"\n{"z" * length}')
    path = tmp_path / "telemetry.csv"
    frame.to_csv(path, index=False)
    report = validate(path, specs=ALL)
    assert (report.rows, report.rows_quarantined) == (240, 0)


def test_a_quote_that_is_never_closed_is_refused_by_name(tmp_path, content):
    header, first, *_ = content["csv"].decode().splitlines()
    path = tmp_path / "telemetry.csv"
    path.write_text(f'{header}\n"{first}\n' + f"{first}\n" * 30_000)
    with pytest.raises(DataRefused, match="over 2 MiB, or a quote is not closed"):
        validate(path, specs=ALL)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_white_space_around_a_column_name_is_ignored(tmp_path, make, kind):
    names = {"node_id": " node_id", "peer_id": "peer_id\u00a0", "rtt_ms": "\ufeffrtt_ms"}
    frame = make(links=2, steps=12).rename(columns=names)
    path = tmp_path / "telemetry"
    path.write_bytes(frame.to_csv(index=False).encode() if kind == "csv" else frame.to_parquet())
    assert validate(path, specs=ALL, output=tmp_path / "out").defects == ()
