"""The demonstration rollouts of a run: which models, and those without a previous model."""

import json

import numpy as np
import onnxruntime as ort
import pytest

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.evaluation import gate_session
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.local_rollout import demo
from dwcp_ml.local_rollout.broken_bundles import FAULTS, break_bundle
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.rollout.verdict import Outcome
from dwcp_ml.training_run.session import Session
from tests.serving.bundles import make_bundle, report, rows_for

FORM = BANDWIDTH.form().name


def session_of(root, name, verdict="APPROVED"):
    """A run's directory with a report and a bundle, as the gate leaves them."""
    session = Session(root / name)
    make_bundle(session.models, BANDWIDTH.name, name, reports=True)
    model_report = report(BANDWIDTH, name)
    session_report = gate_session(name, [model_report], model_report.data)
    models = {BANDWIDTH.name: model_report.replace(verdict=verdict)}
    session_report = session_report.replace(models=models)
    (session.directory / REPORT_NAMES[0]).write_text(session_report.to_json())
    return session, session_report


def test_the_previous_model_is_that_of_the_newest_approved_run_before(tmp_path):
    old, _ = session_of(tmp_path, "20260101-000000")
    session_of(tmp_path, "20260102-000000", verdict="REJECTED")
    damaged, _ = session_of(tmp_path, "20260103-000000")
    (damaged.models / BANDWIDTH.name / damaged.name / "model.onnx").write_bytes(b"x")
    (tmp_path / "20260104-000000").mkdir()
    now, _ = session_of(tmp_path, "20260105-000000")
    session_of(tmp_path, "20260106-000000")
    (tmp_path / "20260100-link").symlink_to("20260105-000000")
    assert demo.previous_bundle(now, FORM) == old.models / BANDWIDTH.name / old.name
    assert demo.previous_bundle(now, "bandwidth_class") is None
    assert demo.previous_bundle(old, FORM) is None


def test_there_are_two_rollouts_and_the_second_candidate_is_broken(tmp_path):
    session_of(tmp_path, "20260101-000000")
    session, session_report = session_of(tmp_path, "20260102-000000")
    good, bad = demo.demo_rollouts(session, session_report)
    assert (good.expected, bad.expected) == ("Promoted", "RolledBack")
    assert good.candidate == bad.stable == session.models / BANDWIDTH.name / session.name
    assert "run before" in good.title
    assert "1.3 times too high" in bad.title
    resumed = list(demo.demo_rollouts(session, session_report))
    assert resumed[1].candidate == bad.candidate, "a resumed run reuses its bundle"


@pytest.mark.parametrize("verdict", ["REJECTED", None])
def test_nothing_is_rolled_out_that_was_not_approved(tmp_path, verdict):
    session, session_report = session_of(tmp_path, "20260102-000000", verdict or "APPROVED")
    if verdict is None:
        session_report = session_report.replace(models={})
    assert list(demo.demo_rollouts(session, session_report)) == []


def test_a_model_that_can_not_be_trained_is_an_error(tmp_path, monkeypatch):
    session, session_report = session_of(tmp_path, "20260102-000000")
    (session.directory / "run.json").write_text(json.dumps({"seed": 7}))
    session.dataset.mkdir(parents=True)
    started = []

    def fail(jobs, **_):
        started.extend(jobs)
        return {jobs[0].name: "no memory"}

    monkeypatch.setattr(demo, "run_jobs", fail)
    with pytest.raises(DwcpError, match="no model could be trained to roll out over: no memory"):
        list(demo.demo_rollouts(session, session_report))
    assert started[0].request.seed == 8
    assert started[0].request.options.epochs == demo.SHORT_EPOCHS


def test_the_settings_say_that_they_are_a_demonstration_and_are_a_spec():
    settings = demo.demo_settings()
    spec = any_rollout(settings["rollout"])
    assert spec.shares[-1] == 100
    assert sum(step.minimum_requests for step in spec.steps) < 1000, "a few hundred requests"
    assert "demonstration" in demo.SETTINGS.read_text().splitlines()[0]


def test_the_settings_stop_the_broken_model_before_its_first_request():
    """However many pairs come at a time: the mean of up to 19 is one observation."""
    spec = any_rollout(demo.demo_settings()["rollout"])
    test = spec.analysis.divergence
    for at_once in (5, 10, 19, 20, 200):
        evidence = DivergenceEvidence.start(test.tolerance, test.margin)
        while evidence.verdict(spec.analysis.alpha_of("divergence")).outcome is not Outcome.FAIL:
            assert evidence.pairs < spec.shadow.minimum_pairs
            evidence = evidence.update([Pair(request_id="", difference=0.3, signed=0.3)] * at_once)


@pytest.mark.parametrize("fault", [*FAULTS, None])
def test_a_broken_bundle_opens_and_answers_as_it_says(tmp_path, fault):
    source = make_bundle(tmp_path, BANDWIDTH.name, "1", reports=True)
    bundle = break_bundle(source, tmp_path / BANDWIDTH.name / "2", fault)
    opened = open_bundle(bundle)
    rows = rows_for(BANDWIDTH.name, 50)
    before, after = (
        ort.InferenceSession(content).run(None, {"features": rows})[0]
        for content in (open_bundle(source).onnx, opened.onnx)
    )
    expected = {
        "scale": before * np.float32(1.3),
        "slight_scale": before * np.float32(1.05),
        "constant": np.full_like(before, 100.0),
        "noise": before * np.where(np.sin(before * 1000) > 0, 1.08, 0.92).astype(np.float32),
        "nan": np.where(before > 100, np.nan, before),
        None: before,
    }[fault]
    np.testing.assert_allclose(after, expected, rtol=1e-6)
    verdict = opened.manifest.provenance.verdict
    assert verdict == ("APPROVED" if fault is None else "REJECTED")


def test_an_unknown_fault_and_another_model_are_refused(tmp_path):
    source = make_bundle(tmp_path, BANDWIDTH.name, "1", reports=True)
    with pytest.raises(UsageError, match="no fault 'smoke': it is one of scale, slight_scale"):
        break_bundle(source, tmp_path / "x" / "2", "smoke")
    other = make_bundle(tmp_path, "compression_selector", "1", reports=True)
    with pytest.raises(UsageError, match="only bandwidth_predictor can be broken"):
        break_bundle(other, tmp_path / "x" / "2", "nan")
