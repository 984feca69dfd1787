"""A file is searched for leaks as the evaluation step does it: validated, read back, searched."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import planted_leaks as planted
from dwcp_ml.cli import main
from dwcp_ml.contract.evaluation import LeakKind
from dwcp_ml.contract.models import LATENCY, RELIABILITY
from dwcp_ml.evaluation.leaks import LeakSearch, NotSearched
from dwcp_ml.training_run.leak_data import leaks_in_file, missing_rows
from dwcp_ml.training_run.options import run_options

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def telemetry():
    return planted.honest(5, days=0.8)


@pytest.fixture
def write(tmp_path):
    """Write telemetry and incidents as a user would; return the options of a run on them."""

    def written(telemetry, **options):
        data, incidents = tmp_path / "t.csv", tmp_path / "i.json"
        telemetry.frame.to_csv(data, index=False)
        records = [incident.model_dump(mode="json") for incident in telemetry.incidents]
        incidents.write_text(json.dumps(records), encoding="utf-8")
        return run_options(**{"data_path": str(data), "incidents_path": str(incidents), **options})

    return written


def kinds(found):
    return {name: {(leak.kind, leak.column) for leak in each.leaks} for name, each in found.items()}


def test_an_honest_file_has_none(telemetry, write):
    found = leaks_in_file(write(telemetry))
    assert len(found) == 4
    assert all(each.searched and not each.leaks for each in found.values())


def test_the_order_of_the_file_is_read_not_that_of_time(telemetry, write):
    spoilt = planted.sorted_by_outcome(telemetry, RELIABILITY)
    found = leaks_in_file(write(spoilt, models="reliability"))
    assert kinds(found) == {"reliability_detector": {(LeakKind.ROW_ORDER, "row_order")}}


@pytest.mark.parametrize(
    ("spec", "column"), [(RELIABILITY, "uptime_pct"), (LATENCY, "consensus_latency_ms")]
)
def test_positive_rows_with_an_empty_cell_are_compared_with_the_others(
    telemetry, write, spec, column
):
    positive = planted.outcome(telemetry, spec).to_numpy() > 0
    rng = np.random.default_rng(0)
    spoilt = telemetry.frame.copy()
    spoilt.loc[positive & (rng.random(len(positive)) < 0.6), column] = np.nan
    found = leaks_in_file(write(planted.Telemetry(spoilt, telemetry.incidents), models=spec.name))
    assert (LeakKind.QUARANTINE, "quarantine") in kinds(found)[spec.name]
    spoilt = telemetry.frame.copy()
    spoilt.loc[rng.random(len(positive)) < 0.03, column] = np.nan
    found = leaks_in_file(write(planted.Telemetry(spoilt, telemetry.incidents), models=spec.name))
    assert found[spec.name] == LeakSearch()


def test_a_model_without_labels_is_searched_for_what_needs_none(telemetry, write):
    labels = [name for name in telemetry.frame if name.startswith(("throughput_g", "is_high"))]
    plain = planted.Telemetry(telemetry.frame.drop(columns=labels), telemetry.incidents)
    found = leaks_in_file(write(plain, incidents_path=""))
    reasons = {name: each.not_searched for name, each in found.items()}
    assert reasons == {
        "bandwidth_predictor": None,
        "compression_selector": None,
        "reliability_detector": NotSearched.NO_EXAMPLES,
        "consensus_latency": None,
    }
    assert not any(each.leaks for each in found.values())


def test_an_accepted_leak_is_found_and_marked(telemetry, write):
    spoilt = planted.copied(telemetry, RELIABILITY, 0.08)
    options = write(spoilt, models="reliability", accept_leak="failure_rate")
    (leak,) = leaks_in_file(options)["reliability_detector"].leaks
    assert (leak.column, leak.accepted) == ("failure_rate", True)


def test_the_command_exits_with_3_unless_the_leak_is_accepted(telemetry, write, capsys):
    options = write(planted.copied(telemetry, RELIABILITY, 0.08))
    words = ["data", "leaks", options.data_path, "--incidents-path", options.incidents_path,
             "--models", "reliability"]  # fmt: skip
    assert main([*words, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["reliability_detector"]
    assert found["not_searched"] is None
    assert [leak["column"] for leak in found["leaks"]] == ["failure_rate"]
    assert main([*words, "--accept-leak", "failure_rate"]) == 0
    assert main([*words, "--accept-leak", "failure"]) == 2


@pytest.mark.parametrize("factor", [1.0, 1.001], ids=["exact", "differing"])
def test_duplicates_of_rows_that_were_kept_are_not_lost(telemetry, write, factor):
    again = telemetry.frame.iloc[::100].copy()
    again["throughput_mbps"] *= factor
    frame = pd.concat([telemetry.frame, again]).sort_index(kind="stable")
    spoilt = planted.Telemetry(frame, telemetry.incidents)
    found = leaks_in_file(write(spoilt))
    assert len(found) == 4
    assert not any(each.leaks for each in found.values())


def test_a_row_is_lost_once_however_often_it_was_quarantined():
    keys = {"node_id": "a", "peer_id": "b"}
    frame = pd.DataFrame({"timestamp": [1.0, 2.0], **keys})
    quarantined = pd.DataFrame({"timestamp": [2.0, 3.0, 3.0, 4.0], **keys, "value": range(4)})
    assert missing_rows(frame, quarantined)["value"].tolist() == [1, 3]


def test_too_few_rows_are_not_searched_and_said_not_to_be(telemetry, write, capsys):
    links = [rows for _, rows in telemetry.frame.groupby(planted.LINK)]
    few = planted.Telemetry(links[0].iloc[:900], telemetry.incidents)
    options = write(few)
    words = ["data", "leaks", options.data_path, "--models", "bandwidth"]
    assert main(words) == 4
    shown = capsys.readouterr().out
    assert "No leaks" not in shown
    assert "900 rows, and at least 1,000 are needed" in shown
    assert main([*words, "--json"]) == 4
    found = json.loads(capsys.readouterr().out)["bandwidth_predictor"]
    assert (found["not_searched"], found["leaks"]) == ("TooFewRows", [])


def test_a_model_that_is_not_searched_is_listed_beside_the_others(telemetry, write, capsys):
    options = write(telemetry)
    words = ["data", "leaks", options.data_path, "--models", "bandwidth,reliability"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "No leaks in the data of bandwidth_predictor." in shown
    assert "reliability_detector: Not searched" in shown
