"""Foreign text stands on the terminal as it is: no markup, no emoji, no control codes."""

import re
import sys
from pathlib import Path

import pytest

from dwcp_ml.cli import terminal
from dwcp_ml.cli.run_progress import picture
from dwcp_ml.kubeflow.client import RunState, TaskState
from dwcp_ml.training_run.progress import ProgressEvent

FOREIGN = (":x:", "rtt:a:ms", "[red]x[/red]", "[/]", "a\\", "\\[b]", "[link=http://x]y[/link]")


@pytest.fixture
def tty(monkeypatch, capsys):
    """What is shown on standard output and standard error, without the terminal's codes."""
    for name, value in {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return lambda: re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(capsys.readouterr()))


@pytest.mark.parametrize("text", FOREIGN)
def test_a_table_shows_text_as_it_is(tty, text):
    terminal.print_table(f"{text} title", (f"{text} column",), [(f"{text} cell",)])
    shown = tty()
    assert all(f"{text} {place}" in shown for place in ("title", "column", "cell"))


@pytest.mark.parametrize("text", FOREIGN)
def test_progress_shows_text_as_it_is(tty, text, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.drawing() as draw:
        draw(ProgressEvent(f"{text} task", "running", f"{text} step", 0.5))
        draw(ProgressEvent(f"{text} task", "failed", f"{text} end"))
    shown = tty()
    assert f"{text} task" in shown
    assert f"{text} end" in shown


@pytest.mark.parametrize("text", FOREIGN)
def test_a_run_shows_text_as_it_is(tty, text):
    run = RunState("r", f"{text} S", tasks=(TaskState("a", f"{text} T", message=f"{text} M"),))
    terminal.error_console().print(picture(run, {"a": f"{text} title"}, f"{text} warning"))
    shown = tty()
    assert all(f"{text} {place}" in shown for place in ("S", "T", "M", "title", "warning"))


def test_control_codes_are_no_commands():
    assert terminal.visible("a\x1b[2J\rb\x9b1A\u202e\nü東") == "a?[2J?b?1A?\nü東"
    assert terminal.plain("\x1b[31m").plain == "?[31m"


def test_every_console_is_made_in_one_module():
    package = Path(terminal.__file__).parents[1]
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "rich.markup" not in text, path
        assert path.name == "terminal.py" or "import Console" not in text, path
