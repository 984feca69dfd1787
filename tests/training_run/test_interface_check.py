"""What the check stage makes of its checks."""

from pathlib import Path

import pytest

from dwcp_ml.contract.checks import ApiChecks, Check
from dwcp_ml.training_run import interface_check

GOOD = Check(name="good", passed=True)
BAD = Check(name="bad", passed=False, detail="it is 12, not 10.")
NO_GO = {"integration_tests_passed": "no Go", "go_api_compatibility": "no Go"}


@pytest.mark.parametrize(
    ("checks", "frozen", "unchecked", "expected"),
    [
        ([GOOD], GOOD, {}, (True, True, set())),
        ([GOOD, BAD], GOOD, {}, (False, True, set())),
        ([GOOD], BAD, {}, (True, False, set())),
        ([GOOD], None, NO_GO, (None, None, set(NO_GO))),
        ([BAD], None, NO_GO, (False, None, {"go_api_compatibility"})),
        ([BAD], None, {}, (False, None, {"go_api_compatibility"})),
    ],
)
def test_what_failed_is_false_and_what_was_not_done_is_null(checks, frozen, unchecked, expected):
    found = interface_check._result(checks, frozen, unchecked)
    names = set(found.unchecked)
    assert (found.integration_tests_passed, found.go_api_compatibility, names) == expected


def test_nothing_exported_is_nothing_checked(tmp_path):
    found = interface_check.check_bundles({"bandwidth_predictor": tmp_path})
    assert found == ApiChecks.not_run(interface_check.NO_BUNDLE)


def test_a_bundle_that_the_server_refuses_fails_the_check(tmp_path):
    bundle = tmp_path / "bandwidth_predictor" / "1"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}")
    found = interface_check.check_bundles({"bandwidth_predictor": bundle}, log=tmp_path / "log")
    assert found.integration_tests_passed is False
    (failed,) = found.failed
    assert failed.name == "server starts"
    assert "manifest" in failed.detail
    assert "Traceback" not in failed.detail
    assert Path(tmp_path / "log").read_text().count("Traceback") == 0
