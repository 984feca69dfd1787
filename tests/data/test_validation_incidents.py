import json

import pytest

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data.incidents import read_incidents
from tests.errors import about


@pytest.fixture
def incidents(tmp_path):
    def _incidents(*cells):
        path = tmp_path / "incidents.json"
        keys = ("timestamp", "node_id", "incident_type")
        path.write_text(
            json.dumps([dict(zip(keys, (*cell, "crash"), strict=True)) for cell in cells])
        )
        return path

    return _incidents


def test_incidents_go_into_the_dataset(check, telemetry, incidents, tmp_path):
    path = incidents(("2024-01-01T00:10:00", "n0"))
    report = check(telemetry, incidents_path=path, output=tmp_path / "out")
    assert report.defects == ()
    assert report.incidents == 1
    assert len(report.incidents_md5) == 32
    assert read_incidents(tmp_path / "out" / "incidents.json") == read_incidents(path)


def test_unknown_nodes_and_times_outside_warn(check, telemetry, incidents, defect_of):
    path = incidents(
        ("2024-01-01T00:10:00", "n0"), ("2024-01-01T00:10:00", "p0"), ("2025-01-01", "n1")
    )
    report = check(telemetry, incidents_path=path)
    node = defect_of(report, "incident_unknown_node")
    assert (node.verdict, node.count, node.examples) == ("warning", 1, (2,))
    assert "'p0'" in node.message
    outside = defect_of(report, "incident_outside_time")
    assert (outside.verdict, outside.count, outside.examples) == ("warning", 1, (3,))


def test_no_incidents_warn(check, telemetry, incidents, defect_of):
    assert defect_of(check(telemetry, incidents_path=incidents()), "no_incidents")
    assert check(telemetry).incidents is None


def test_broken_incidents_refuse_and_write_nothing(check, telemetry, tmp_path):
    path = tmp_path / "incidents.json"
    path.write_text("[{}]")
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "0.timestamp")):
        check(telemetry, incidents_path=path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
