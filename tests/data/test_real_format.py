"""A file with the format and the defects of NovaCron's telemetry, from validation to examples."""

import pytest

from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import (
    BandwidthData,
    CompressionData,
    LatencyData,
    ReliabilityData,
)
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY
from dwcp_ml.data.examples import prepare
from dwcp_ml.data.incidents import read_incidents
from dwcp_ml.data.reading import load
from tests.errors import about


@pytest.fixture
def dataset(check, novacron, tmp_path):
    path, incidents = novacron
    report = check(path, incidents_path=incidents, output=tmp_path / "out")
    names = {
        name
        for spec in (BANDWIDTH, COMPRESSION, RELIABILITY, LATENCY)
        for name in spec.needed_columns
    }
    frame = load(tmp_path / "out" / "telemetry.parquet", sorted(names))
    return report, frame, read_incidents(tmp_path / "out" / "incidents.json")


def test_nine_rows_are_quarantined_and_the_file_is_kept(dataset, defect_of):
    report, frame, incidents = dataset
    assert not report.refused
    assert defect_of(report, "out_of_range", "throughput_mbps").count == 7
    assert defect_of(report, "out_of_range", "amst_transfer_rate").count == 2
    assert {d.verdict for d in report.defects} == {"quarantine", "warning"}
    assert (report.rows, report.rows_quarantined, report.incidents) == (10_000, 9, 100)
    assert (len(frame), len(incidents)) == (9991, 100)


def test_what_can_be_prepared_is_and_what_can_not_says_why(dataset):
    _, frame, incidents = dataset
    with pytest.raises(TrainingFailed, check=about(ErrorCode.TOO_FEW, "11 rows of a link")):
        prepare(BANDWIDTH, frame, BandwidthData())
    with pytest.raises(TrainingFailed, check=about(ErrorCode.TOO_FEW, "20 rows of a node")):
        prepare(LATENCY, frame, LatencyData())
    compression = prepare(COMPRESSION, frame, CompressionData())
    assert compression.label_source == "cost_model"
    assert sum(compression.rows.values()) == 9991
    reliability = prepare(RELIABILITY, frame, ReliabilityData(), incidents=incidents)
    assert reliability.label_source == "window"
    assert 0 < reliability.test.truth.sum() < 50
