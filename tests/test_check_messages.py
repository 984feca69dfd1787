"""The lint rule against logic on messages finds what it should, and nothing in the product."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools/check_messages.py"

PLANTED = {
    "in": 'if "not ready" in status.reason: pass',
    "not in": 'assert "not ready" not in verdict.sentence',
    "==": 'held = status.message == "Waiting for traffic."',
    "one of several": 'held = status.reason in ("a", "b")',
    "startswith": 'held = rollout.reason.startswith("holding: ")',
    "endswith": 'held = not str(rollout.reason).endswith("requests.")',
    "through a method": 'held = status.message.lower().startswith("wait")',
    "formatted": 'held = status.message == f"Waiting for {name}."',
    "a part": 'held = status.message[:4] == "Wait"',
    "a regular expression": 'import re\nre.search(r"requests", event.text)',
    "match": 'match status.reason:\n    case "Waiting": pass',
    "another program's": 'def f(status, message):\n    return "denied the request" in message',
    "of a mapping": 'held = "denied" in content["message"]',
    "of a mapping, with get": 'held = content.get("message", "").startswith("denied")',
    "a part that was split off": (
        'def f(status):\n    kind, _ = status.message.split(":")\n    return kind == "denied"'
    ),
    "of a caught error": (
        'def f():\n    try: g()\n    except ValueError as error:\n        return "no" in str(error)'
    ),
    "a variable": 'def f(status):\n    why = status.reason\n    return "traffic" in why',
}
ALLOWED = {
    "an enum": "held = cause.reason is Reason.NO_TRAFFIC",
    "several": "held = cause.reason in (Reason.NO_TRAFFIC, Reason.PAUSED)",
    "empty": 'if status.message == "": pass',
    "an element of another name": 'done = message["type"] == "http.disconnect"',
    "a mapping's code": 'done = content.get("kind") == "Status"',
    "another field": 'if status.phase == "Promoted": pass',
    "shortened": 'def f(message):\n    print(message.split(":")[0])',
    "shown": 'print(f"{status.message}")',
    "two messages": "if status.message != before.message: pass",
}


def check(tmp_path, source):
    path = tmp_path / "planted.py"
    path.write_text(source)
    return subprocess.run(
        [sys.executable, TOOL, path], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_literal_held_against_a_message_is_found(tmp_path, name):
    done = check(tmp_path, PLANTED[name])
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path}/planted.py:")


@pytest.mark.parametrize("name", ALLOWED)
def test_enums_and_what_is_shown_are_allowed(tmp_path, name):
    assert check(tmp_path, ALLOWED[name]).returncode == 0


def test_fields_are_replaced_where_mypy_sees_them(tmp_path):
    done = check(tmp_path, 'status.model_copy(update={"phase": 1})')
    assert (done.returncode, "replace()" in done.stdout) == (1, True)


def test_the_product_has_neither():
    done = subprocess.run(
        [sys.executable, TOOL], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
