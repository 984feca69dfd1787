"""The command line helps, refuses in one sentence, and starts without TensorFlow."""

import subprocess
import sys

import pytest

from dwcp_ml.cli import main


def run(capsys, *words):
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


COMMANDS = [
    (),
    ("data",),
    ("data", "simulate"),
    ("data", "validate"),
    ("data", "convert"),
    ("data", "leaks"),
    ("data", "schema"),
    ("data", "version"),
    ("train",),
    ("train", "bandwidth"),
    ("train", "compression"),
    ("train", "reliability"),
    ("train", "latency"),
    ("evaluate",),
    ("export",),
    ("gate",),
    ("pipeline",),
    ("pipeline", "compile"),
    ("pipeline", "run"),
    ("pipeline", "submit"),
    ("bundle",),
    ("bundle", "keygen"),
    ("bundle", "sign"),
    ("bundle", "verify"),
    ("serve",),
    ("rollout",),
    ("rollout", "run"),
    ("rollout", "resume"),
    ("rollout", "simulate"),
    ("rollout", "ready"),
    ("monitor", "accuracy"),
    ("check",),
    ("check", "api"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help(capsys, words):
    code, out, _ = run(capsys, *words, "--help")
    assert code == 0
    assert out.startswith("Usage: dwcp-ml")
    assert "\\b" not in out, "examples keep their lines"


def test_starting_imports_nothing_heavy():
    program = (
        "import sys; from dwcp_ml.cli import main; main(['--help']);"
        "heavy = {'tensorflow','keras','pandas','numpy','kfp','sklearn','pyarrow','pydantic'};"
        "print('HEAVY', sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--models", "bandwith"), "did you mean 'bandwidth'"),
        (("train", "--export-format", "onxn"), "did you mean 'onnx'"),
        (("train", "--output-form", "bandwidth"), "is not MODEL=FORM"),
        (("train", "--output-form", "bandwidth=klass"), "has no output form 'klass'"),
        (("train", "--config", "/does/not/exist.yaml"), "Can't read the settings"),
        (("train", "bandwidth", "--output", "c/x.pkl"), "must end in .keras or .onnx"),
        (("train", "reliability", "--output", "runs"), "must end in .pkl or .onnx"),
        (("data", "simulate", "--set", "dayz=2"), "did you mean 'days'"),
        (("data", "simulate", "--set", "days"), "is not KEY=VALUE"),
        (
            ("data", "simulate", "--set", "route_changes_per_node_day=1"),
            "route_changes_per_node_day is a setting of the profile published",
        ),
        (("gate", "--run", "/does/not/exist"), "is not the directory of a run"),
        (("evaluate", "--run", "/does/not/exist"), "is not the directory of a run"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    capsys, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err + out
    assert list(tmp_path.iterdir()) == []


def test_click_refusals_are_exit_code_2_as_well(capsys):
    assert run(capsys, "train", "--seed", "x")[0] == 2
    assert run(capsys, "frobnicate")[0] == 2


def test_a_wrong_key_in_the_yaml_is_refused_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("bandwidth:\n  training:\n    epocs: 3\n")
    code, _, err = run(capsys, "train", "--config", "c.yaml")
    assert (code, "did you mean" in err, "Traceback" in err) == (2, True, False)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize("content", ["[1, 2]", "bandwidth: [", "frobnicator: {}"])
def test_a_damaged_yaml_is_refused(capsys, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(content)
    assert run(capsys, "train", "--config", "c.yaml")[0] == 2


def test_debug_shows_where_an_error_comes_from(capsys):
    code, _, err = run(capsys, "train", "--models", "x", "--debug")
    assert (code, "Traceback" in err) == (2, True)
