"""``dwcp-ml rollout simulate``: a table, JSON, and one sentence for what is wrong."""

import json

import pytest

from dwcp_ml.cli import main


def test_prints_one_row_for_one_candidate(capsys):
    assert main(["rollout", "simulate", "--candidate-errors", "0.2", "--rollouts", "3"]) == 0
    output = capsys.readouterr().out
    assert "errors 0.2" in output
    assert "100.0%" in output


def test_prints_json(capsys):
    words = ["rollout", "simulate", "--slower", "3", "--rollouts", "2", "--json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["rolled_back"]["count"] == 2


@pytest.mark.slow
def test_several_processes_say_the_same(capsys):
    words = ["rollout", "simulate", "--slower", "3", "--rollouts", "100", "--json", "--processes"]
    assert main([*words, "1"]) == 0
    alone = capsys.readouterr().out
    assert main([*words, "2"]) == 0
    assert capsys.readouterr().out == alone


def test_reads_the_steps_of_a_file(tmp_path, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text("steps:\n- {traffic_percent: 10}\n- {traffic_percent: 100}\n")
    words = ["rollout", "simulate", "--spec", str(spec), "--slower", "3", "--rollouts", "1"]
    assert main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["caught_at_percent"] == {"10": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps:\n- {traffic_percent: 50}\n", "steps must rise and end at 100"),
        ("steps:\n- {traffic_percent: 100}\n", "a step below 100 percent is needed"),
        ("stepz: []\n", "stepz"),
        ("- 1\n", "must be a mapping"),
        ("a: [\n", "not YAML"),
        (
            "analysis: {error_rate: null, latency: null, divergence: null}\n",
            "at least one of error_rate",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, capsys, text, said):
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    assert main(["rollout", "simulate", "--spec", str(spec)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
