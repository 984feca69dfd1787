"""The result of the check step, from its checks."""

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
def test_a_failed_check_is_false_and_a_skipped_one_is_null(checks, frozen, unchecked, expected):
    result = interface_check._result(checks, frozen, unchecked)
    names = set(result.unchecked)
    assert (result.integration_tests_passed, result.go_api_compatibility, names) == expected


def test_without_a_bundle_nothing_is_checked(tmp_path):
    result = interface_check.check_bundles({"bandwidth_predictor": tmp_path})
    assert result == ApiChecks.not_run(interface_check.NO_BUNDLE)


def test_a_bundle_that_the_server_rejects_fails_the_check(tmp_path):
    bundle = tmp_path / "bandwidth_predictor" / "1"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}")
    result = interface_check.check_bundles({"bandwidth_predictor": bundle}, log=tmp_path / "log")
    assert result.integration_tests_passed is False
    (failed,) = result.failed
    assert failed.name == "server starts"
    assert "manifest" in failed.detail
    assert "Traceback" not in failed.detail
    assert Path(tmp_path / "log").read_text().count("Traceback") == 0
