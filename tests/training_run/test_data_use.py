"""The records of a training and an evaluation say what became of the rows."""

import json

import pytest

from dwcp_ml.contract.data_use import DataWarningCode, LossCause
from dwcp_ml.contract.examples import BandwidthData
from dwcp_ml.contract.models import BANDWIDTH, RELIABILITY
from dwcp_ml.data.partition_validation import validate_partitions
from dwcp_ml.data.use import with_training
from dwcp_ml.data.validation import validate
from dwcp_ml.storage.partitions import parquet_files
from dwcp_ml.training_run.evaluation_step import evaluate_model
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.options import ModelOptions
from dwcp_ml.training_run.progress import ProgressEvent
from dwcp_ml.training_run.training_step import train_model
from tests.data.conftest import START, make_telemetry

pytestmark = pytest.mark.train


@pytest.fixture
def dataset(tmp_path):
    """180 rows, of which two are quarantined, and an incident in both splits."""
    frame = make_telemetry(links=3, steps=60)
    frame.loc[[4, 9], "rtt_ms"] = -1.0
    frame.to_csv(tmp_path / "telemetry.csv", index=False)
    incidents = [
        {"timestamp": START + 60 * first, "node_id": "n0", "incident_type": "crash",
         "severity": "high", "resolved": True, "start": START + 60 * first,
         "end": START + 60 * (first + 3)}
        for first in (10, 55)
    ]  # fmt: skip
    (tmp_path / "incidents.json").write_text(json.dumps(incidents))
    validate(
        tmp_path / "telemetry.csv",
        specs=[RELIABILITY],
        incidents_path=tmp_path / "incidents.json",
        output=tmp_path / "dataset",
    )
    return tmp_path / "dataset"


def test_a_sample_of_many_rows_is_trained_and_evaluated_on_and_accounted_for(tmp_path):
    frame = make_telemetry(links=3, steps=2000, labels=False)
    directory = tmp_path / "parts"
    directory.mkdir()
    for index in range(4):
        rows = frame.iloc[index * 1500 : (index + 1) * 1500]
        rows.to_parquet(directory / f"{index}.parquet", index=False)
    dataset = tmp_path / "dataset"
    validate_partitions("set", parquet_files(directory), specs=[BANDWIDTH], output=dataset)
    settings = BandwidthData(max_rows=2500)
    data = load_model_data(dataset, BANDWIDTH, settings, "next_throughput_mbps", 42)
    use = data.use
    not_drawn = use.lost[LossCause.NOT_DRAWN]
    assert use.rows == 6000 == use.examples + sum(use.lost.values())
    assert 6000 - 2500 <= not_drawn < 6000 - 2500 + 400
    again = load_model_data(dataset, BANDWIDTH, settings, "next_throughput_mbps", 42)
    assert (data.test.inputs == again.test.inputs).all(), "training and evaluation draw the same"
    few = with_training(use, BANDWIDTH, settings, len(data.train), {})
    assert DataWarningCode.ROWS_LOST not in {warning.code for warning in few.warnings}


@pytest.mark.parametrize(("minimum", "codes"), [(256, ["FewTrainingExamples"]), (10, [])])
def test_the_records_count_the_rows_of_the_file(dataset, tmp_path, minimum, codes):
    events: list[ProgressEvent] = []
    record = train_model(
        dataset,
        tmp_path / "trained",
        RELIABILITY,
        ModelOptions(settings={"data": {"min_training_examples": minimum}}),
        version="1",
        seed=42,
        report=events.append,
    )
    assert record.success
    use = record.data_use
    assert (use.rows, use.examples, use.rows_used) == (180, 178, 178)
    assert use.lost == {LossCause.QUARANTINED: 2}
    assert use.trained_examples == record.rows["train"]
    assert [warning.code for warning in use.warnings] == [DataWarningCode(code) for code in codes]
    messages = tuple(warning.message for warning in use.warnings)
    assert all(message in events[-1].text for message in messages)
    evaluation = evaluate_model(dataset, tmp_path / "trained", tmp_path / "evaluated", RELIABILITY)
    assert evaluation.notes[: len(messages)] == messages
