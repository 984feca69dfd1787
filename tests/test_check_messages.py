"""The lint rule against logic on messages finds what it should, and nothing in the product."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

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


@pytest.fixture(scope="module")
def tool():
    found = importlib.util.spec_from_file_location(
        "check_messages", ROOT / "tools/check_messages.py"
    )
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.main


@pytest.fixture
def check(tool, tmp_path, capsys):
    """Return the exit code and the output of the tool for a source; for none, for the product."""

    def run(source=None):
        path = tmp_path / "planted.py"
        path.write_text(source or "")
        return tool([path] if source else []), capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", PLANTED)
def test_a_literal_held_against_a_message_is_found(check, tmp_path, name):
    code, out = check(PLANTED[name])
    assert code == 1
    assert out.startswith(f"{tmp_path}/planted.py:")


@pytest.mark.parametrize("name", ALLOWED)
def test_enums_and_what_is_shown_are_allowed(check, name):
    assert check(ALLOWED[name]) == (0, "")


def test_fields_are_replaced_where_mypy_sees_them(check):
    code, out = check('status.model_copy(update={"phase": 1})')
    assert (code, "replace()" in out) == (1, True)


@pytest.mark.slow
def test_the_product_has_neither(check):
    assert check() == (0, "")
