"""``data convert`` and what the terminal says about the use of the data."""

import json
from pathlib import Path

import click
import pytest

from dwcp_ml.cli import data, main, shared
from dwcp_ml.contract.data_use import DataWarning, DataWarningCode
from dwcp_ml.data.adapters.conversion import FORMATS

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


def run(capsys, *words):
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_conversion_says_which_columns_a_model_still_needs(capsys, tmp_path):
    output = str(tmp_path / "t.csv")
    words = ("data", "convert", "iperf3", str(SAMPLES / "iperf3_tcp.json"), "--output", output)
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert "4 rows of 1 link" in out
    code, out, _ = run(capsys, *words, "--json")
    result = json.loads(out)
    assert (result["rows"], result["path"]) == (4, output)
    assert result["missing"]["bandwidth_predictor"] == ["packet_loss", "link_type", "network_tier"]
    constants = ("packet_loss=0", "link_type=dc", "network_tier=tier1")
    words += tuple(word for each in constants for word in ("--constant", each))
    assert json.loads(run(capsys, *words, "--json")[1])["missing"]["bandwidth_predictor"] == []
    assert run(capsys, "data", "validate", output, "--models", "bandwidth")[0] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("netflow", "x"), 2),
        (("iperf3", "missing.json"), 4),
        (("iperf3", str(SAMPLES / "ping.txt")), 4),
        (("ping", str(SAMPLES / "ping.txt")), 2),
        (("csv", str(SAMPLES / "gnettrack.csv"), "--map", "rtt_ms=PINGAVG@furlong"), 2),
    ],
)
def test_what_can_not_be_converted_has_an_exit_code_and_one_sentence(
    capsys, tmp_path, monkeypatch, words, code
):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, "data", "convert", *words)
    assert (found, out) == (code, "")
    assert err.count("\n") <= 5
    assert "Traceback" not in err


def test_the_formats_of_the_command_are_those_that_there_are():
    argument = next(each for each in data.convert.params if each.name == "format_name")
    assert isinstance(argument.type, click.Choice)
    assert tuple(argument.type.choices) == FORMATS


def test_the_summary_begins_with_the_use_of_the_data(capsys, tmp_path, session_with_use):
    shared.print_summary(session_with_use, tmp_path)
    captured = capsys.readouterr()
    assert captured.out.index("Use of the data") < captured.out.index(" approved")
    assert captured.err == "warning: Many rows are lost.\n"


@pytest.fixture
def session_with_use():
    from dwcp_ml.contract.data_use import DataUse, LossCause
    from dwcp_ml.evaluation import gate_model, gate_session
    from tests.evaluation.conftest import good_records

    training, evaluation, export, report = good_records("bandwidth_predictor")
    use = DataUse(
        rows=100,
        rows_used=60,
        examples=50,
        lost={LossCause.GAP: 50},
        warnings=(DataWarning(code=DataWarningCode.ROWS_LOST, message="Many rows are lost."),),
    )
    model = gate_model(training.replace(data_use=use), evaluation, export, report)
    return gate_session("run", [model], report)
