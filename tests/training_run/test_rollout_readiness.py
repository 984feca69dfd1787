"""Readiness for an A/B test, with a real server of small bundles."""

import json

import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.checks import Check, Readiness
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.training_run import interface_check, rollout_readiness
from dwcp_ml.training_run.options import RunOptions
from tests.serving.bundles import make_bundle

QUICK = {
    "steps": [{"traffic_percent": 20}, {"traffic_percent": 100}],
    "analysis": {"error_rate": {"margin": 0.1}, "latency": {"margin": 0.3}, "ground_truth": {}},
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    place = tmp_path_factory.mktemp("ready")
    return [make_bundle(place / n, "compression_selector", n) for n in ("1", "2")]


@pytest.mark.server
def test_a_candidate_like_the_stable_is_ready(bundles, tmp_path):
    stable, candidate = bundles
    readiness = rollout_readiness.check_readiness(
        {"compression_selector": candidate},
        any_rollout(QUICK),
        rollout_readiness.TrafficPlan(requests_per_second=200.0),
        stables={"compression_selector": stable},
        log=tmp_path / "server.log",
    )
    assert readiness.ready, readiness.failed
    names = " ".join(check.name for check in readiness.checks)
    assert all(
        word in names
        for word in ("equals the stable's", "metrics for the tests", "paired", "decides each step")
    )
    assert [step.traffic_percent for step in readiness.steps] == [20, 100]


@pytest.mark.server
def test_the_command_reports_which_check_failed(bundles, tmp_path, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(QUICK))
    words = ["rollout", "ready", "--candidate", str(bundles[1]), "--spec", str(spec), "--json"]
    assert main([*words, "--requests-per-second", "0.01"]) == 1
    readiness = Readiness.model_validate_json(capsys.readouterr().out)
    (late,) = readiness.failed
    assert "0.01 requests/s the step of 20 % is not decided within 2 h" in late.detail


def test_a_contract_that_differs_from_the_stables_fails(bundles, tmp_path):
    from dwcp_ml.export.verify import open_bundle

    other = make_bundle(tmp_path, "reliability_detector", "1")
    check = rollout_readiness._contract(open_bundle(bundles[1]), other)
    assert not check.passed
    assert "name, form, outputs" in check.detail
    changed = make_bundle(tmp_path, "compression_selector", "3")
    (changed / "model.onnx").write_bytes(b"changed")
    assert "changed" in rollout_readiness._contract(open_bundle(bundles[1]), changed).detail


def test_readiness_is_not_checked_if_the_interface_fails(bundles, monkeypatch):
    failed = interface_check.ApiChecks(
        integration_tests_passed=False,
        go_api_compatibility=None,
        checks=(Check(name="server starts", passed=False),),
    )
    monkeypatch.setattr(interface_check, "check_bundles", lambda *_, **__: failed)
    bundle = {"compression_selector": bundles[0]}
    assert interface_check.check_run(bundle, RunOptions()) == failed
    off = interface_check.check_run(bundle, RunOptions(check_api=False))
    assert off.unchecked["integration_tests_passed"] == interface_check.TURNED_OFF
