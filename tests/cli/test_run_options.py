"""The options of the commands are those of ``RunOptions``: names, bounds and defaults."""

import click
import pytest

from dwcp_ml.cli.run_options import RUN, RunCommand, chosen_options
from dwcp_ml.training_run.options import RunOptions, run_options


def parsed(*words):
    chosen = {}

    @click.command(cls=RunCommand, run_options=RUN)
    def command(**given):
        chosen.update(given)

    command.main(words, standalone_mode=False)
    return chosen


def test_without_options_a_command_has_the_defaults():
    assert chosen_options(parsed()) == RunOptions()


def test_every_option_arrives(tmp_path):
    words = (
        "--models latency,bandwidth --data-path /t.csv --incidents-path /i.json --seed 7 "
        "--packet-loss-unit percent --congestion-window-unit segments --export-format onnx "
        "--no-check-api --requests-per-second 5 --kserve-mode knative --stable-uri latency=s3://m "
        "--storage-prefix s3://models --strict --accept-leak rtt_ms,split "
        "--champion-rule better --trigger nightly --data-start 2026-01-01 --data-end 2026-02-01"
    )
    expected = {
        "models": "bandwidth,latency", "data_path": "/t.csv", "incidents_path": "/i.json",
        "seed": 7, "packet_loss_unit": "percent", "congestion_window_unit": "segments",
        "export_formats": "onnx", "check_api": False, "requests_per_second": 5.0,
        "kserve_mode": "knative", "stable_uri": "latency=s3://m", "storage_prefix": "s3://models",
        "strict": True, "accept_leak": "rtt_ms,split", "champion_rule": "better",
        "trigger": "nightly", "data_start": "2026-01-01", "data_end": "2026-02-01",
    }  # fmt: skip
    assert set(expected) == set(RUN)
    assert chosen_options(parsed(*words.split())) == run_options(**expected)


@pytest.mark.parametrize(
    "words", [("--seed", "-1"), ("--seed", "4294967296"), ("--requests-per-second", "0"),
              ("--kserve-mode", "raw"), ("--packet-loss-unit", "ppm")],
)  # fmt: skip
def test_a_value_outside_the_bounds_is_rejected_by_the_command(words):
    with pytest.raises(click.BadParameter):
        parsed(*words)


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert chosen_options(parsed("--data-path", "t.csv")).data_path == str(tmp_path / "t.csv")
    assert chosen_options(parsed("--data-path", "")).data_path == str(tmp_path), "not simulated"


def test_the_help_is_the_description():
    context = click.Context(click.Command("x"))
    options = {one.name: one for one in RunCommand("x", run_options=RUN).get_params(context)}
    for name in RUN:
        description = RunOptions.model_fields[name].description.replace("`", "")
        assert options[name].help.lower() == f"{description}.".lower()
