import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data.incidents import (
    Incident,
    incident_of_rows,
    incidents_json,
    label_source,
    read_incidents,
)
from tests.errors import about

MOMENT = {"timestamp": "2024-01-01T00:00:00", "node_id": 52, "incident_type": "crash"}
START = 1_704_067_200


@pytest.fixture
def listed(tmp_path):
    def _listed(data):
        path = tmp_path / "incidents.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return _listed


def test_reads_the_real_format(listed):
    (incident,) = read_incidents(listed([{**MOMENT, "severity": "high", "resolved": True}]))
    assert (incident.node_id, incident.severity, incident.resolved) == ("52", "high", True)
    assert incident.timestamp.timestamp() == START
    assert incident.interval() == (START - 900, START + 900)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        (60, "60"), (60.0, "60"), ("60.0", "60"), (" 60 ", "60"), ("1e+16", "10000000000000000"),
        (1e16, "10000000000000000"), ("n-1", "n-1"), ("n-1.0", "n-1.0"),
    ],
)  # fmt: skip
def test_node_names_are_text(given_name, name):
    assert Incident.model_validate({**MOMENT, "node_id": given_name}).node_id == name


@pytest.mark.parametrize(
    "moment", ["2024-01-01T01:00:00+01:00", "2024-01-01T00:00:00Z", "2024-01-01 00:00", START]
)
def test_moments_are_utc(moment):
    assert Incident.model_validate({**MOMENT, "timestamp": moment}).timestamp.timestamp() == START


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ("not json", (ErrorCode.MALFORMED, "")),
        ("", (ErrorCode.MALFORMED, "")),
        ({"a": 1}, (ErrorCode.WRONG_TYPE, "")),
        ("null", (ErrorCode.WRONG_TYPE, "")),
        ([MOMENT, {**MOMENT, "node_id": ""}], (ErrorCode.CONTRACT, "1.node_id")),
        ([MOMENT, {**MOMENT, "node_id": " "}], (ErrorCode.CONTRACT, "1.node_id")),
        ([{"node_id": 5, "incident_type": "x"}], (ErrorCode.CONTRACT, "0.timestamp")),
        ([{**MOMENT, "timestamp": "yesterday"}], (ErrorCode.CONTRACT, "0.timestamp")),
        ([{**MOMENT, "start": "2024-01-01"}], (ErrorCode.CONTRACT, "0")),
        ([{**MOMENT, "start": "2024-01-02", "end": "2024-01-01"}], (ErrorCode.CONTRACT, "0")),
        ([3], (ErrorCode.CONTRACT, "0")),
        ("[" * 100_000, (ErrorCode.MALFORMED, "")),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(listed, data, fault):
    with pytest.raises(DataRefused, check=about(*fault)) as error:
        read_incidents(listed(data))
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [
        ({"start": "2024-01-01"}, "give both or neither"),
        ({"start": "2024-01-02", "end": "2024-01-01"}, "'end' lies before 'start'"),
    ],
)
def test_a_wrong_interval_is_explained(listed, interval, sentence):
    with pytest.raises(DataRefused, match=sentence):
        read_incidents(listed([MOMENT | interval]))


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, path)):
            read_incidents(path)


def test_an_empty_list_is_read(listed):
    assert read_incidents(listed([])) == []


def test_normalised_json_reads_back_the_same(listed):
    incidents = read_incidents(listed([MOMENT, {**MOMENT, "start": START, "end": START + 60}]))
    assert read_incidents(listed(incidents_json(incidents))) == incidents


def _incident(node, start, end):
    return Incident(timestamp=start, node_id=node, incident_type="x", start=start, end=end)


intervals = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 20)), max_size=6
)


@given(st.lists(st.tuples(st.integers(0, 70), st.sampled_from("abd")), max_size=40), intervals)
def test_matching_equals_the_definition(rows, cells):
    incidents = [_incident(node, start, start + length) for node, start, length in cells]
    timestamp = np.array([time for time, _ in rows], np.int64)
    node = np.array([name for _, name in rows], object)
    found = incident_of_rows(timestamp, node, incidents)
    for row, (time, name) in enumerate(rows):
        inside = [
            k
            for k, (owner, start, length) in enumerate(cells)
            if owner == name and start <= time <= start + length
        ]
        latest = max((cells[k][1] for k in inside), default=None)
        if not inside:
            assert found[row] == -1
        else:
            assert found[row] in inside
            assert cells[found[row]][1] == latest


def test_where_intervals_overlap_a_row_belongs_to_the_one_that_began_last():
    incidents = [_incident("a", 0, 100), _incident("a", 20, 30), _incident("a", 10, 25)]
    timestamp = np.array([5, 15, 22, 28, 50])
    found = incident_of_rows(timestamp, np.array(["a"] * 5, object), incidents)
    assert found.tolist() == [0, 2, 1, 1, 0]


def test_without_interval_a_row_is_positive_within_the_window():
    incident = Incident(**MOMENT)
    timestamp = START + np.array([-601, -600, 0, 600, 601])
    node = np.array(["52"] * 5, object)
    assert incident_of_rows(timestamp, node, [incident], 10).tolist() == [-1, 0, 0, 0, -1]


def test_label_source_says_whether_every_incident_has_an_interval():
    moment, interval = Incident(**MOMENT), _incident("a", 0, 1)
    assert label_source([interval, interval]) == "intervals"
    assert label_source([interval, moment]) == "window"
