"""Runs one after the other: each is compared with the bundle that the one before it left."""

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import average_precision_score

from dwcp_ml.contract.bundle import ONNX_NAME
from dwcp_ml.contract.champion import ChampionSource
from dwcp_ml.contract.comparison import Outcome, ReferenceKind
from dwcp_ml.contract.examples import ReliabilityData
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.simulate import SimulatorSettings, simulate
from dwcp_ml.training_run.evaluation_step import evaluate_model
from dwcp_ml.training_run.gate_step import run_gate
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.options import ModelOptions, run_options
from dwcp_ml.training_run.orchestrator import run_session
from dwcp_ml.training_run.session import new_session

pytestmark = pytest.mark.pipeline

NAME = RELIABILITY.name
DRIFTED = {"seed": 43, "start": "2025-02-03T00:00:00Z", "diurnal_amplitude": 2.0}


class Run:
    """One run of the forest alone.

    Parameters
    ----------
    settings
        Of the forest, in place of its YAML's.
    """

    def __init__(self, root, data, settings=None, **options):
        self.options = run_options(
            data_path=str(data / "telemetry.csv"), incidents_path=str(data / "incidents.json"),
            models=NAME, export_formats="onnx", check_api=False,
            model_options={NAME: ModelOptions(settings=settings or {})}, **options,
        )  # fmt: skip
        self.session = new_session(root, self.options)
        self.report: ModelReport = run_session(self.session, self.options, parallel=1).models[NAME]

    @property
    def bundle(self):
        return self.session.models / NAME / self.session.name

    def predictions(self, inputs):
        session = onnxruntime.InferenceSession((self.bundle / ONNX_NAME).read_bytes())
        return dict(
            zip(
                [output.name for output in session.get_outputs()],
                session.run(None, {"features": inputs}),
                strict=True,
            )
        )

    def severities(self, evaluation=None):
        found = self.report
        evaluation = evaluation or found.evaluation
        reasons = rejection_reasons(found.training, evaluation, found.export, found.data)
        return [severity for severity, _ in reasons]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A first run; one on telemetry that has drifted; and one of a single tree on the latter."""
    place = tmp_path_factory.mktemp("champion")
    for name, settings in (("before", {}), ("after", DRIFTED)):
        simulate(SimulatorSettings(days=2, nodes=6, **settings), place / name)
    root = place / "runs"
    first = Run(root, place / "before")
    second = Run(root, place / "after", trigger="drift of rtt_ms")
    third = Run(root, place / "after", settings={"forest": {"n_estimators": 1}})
    return first, second, third


def test_the_manifest_has_what_the_champion_predicts_for_the_new_test_split(runs):
    first, second, _ = runs
    assert first.report.verdict == second.report.verdict == "APPROVED", second.report.reasons
    opened = open_bundle(first.bundle)
    assert opened.manifest.provenance.champion is None
    provenance = open_bundle(second.bundle).manifest.provenance
    record, lineage = provenance.champion, provenance.lineage
    assert (record.version, record.digest) == (first.session.name, opened.digest)
    assert (lineage.parent_version, lineage.parent_digest) == (record.version, record.digest)
    assert lineage.trigger == "drift of rtt_ms"
    assert lineage.data_first.isoformat() == "2025-02-03T00:00:00+00:00"
    assert lineage.data_last > lineage.data_first

    data = load_model_data(second.session.dataset, RELIABILITY, ReliabilityData(), "anomaly", 42)
    theirs, own = (run.predictions(data.test.inputs) for run in (first, second))
    pr_auc = average_precision_score(data.test.truth, theirs["anomaly_score"])
    assert record.metrics["pr_auc"] == pytest.approx(pr_auc)
    recall = np.mean(theirs["is_anomaly"][data.test.truth])
    assert record.metrics["recall"] == pytest.approx(recall)
    assert record.difference.examples == len(data.test)
    changed = np.mean(theirs["is_anomaly"] != own["is_anomaly"])
    assert record.difference.changed == pytest.approx(changed)
    assert changed > 0
    assert record == second.report.evaluation.champion.record
    page = (second.bundle / "report.md").read_text()
    assert "## Against the champion" in page
    assert "drift of rtt\\_ms" in page or "drift of rtt_ms" in page
    assert not any("hampion" in note for note in second.report.evaluation.notes)


def test_a_worse_challenger_is_rejected_and_has_no_manifests(runs):
    _, second, third = runs
    assert third.report.verdict == "REJECTED"
    assert Severity.CHAMPION in third.severities()
    assert third.report.evaluation.champion.version == second.session.name
    assert not list((third.session.directory / "manifests").iterdir())
    overlap = [note for note in third.report.evaluation.notes if "overlaps" in note]
    assert len(overlap) == 1, "the champion was trained on the same telemetry"


def evaluated(run, tmp_path, source, rule):
    """Evaluate a run's model again with another champion or rule."""
    return evaluate_model(
        run.session.dataset, run.session.trained(NAME), tmp_path / rule, RELIABILITY,
        champion=source, champion_rule=rule,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("challenger", "outcome", "rejecting"),
    [
        (1, Outcome.AS_GOOD, {"better"}),
        (2, Outcome.WORSE, {"better", "not_worse"}),
    ],
)
def test_the_rule_decides_which_challengers_are_rejected(
    runs, tmp_path, challenger, outcome, rejecting
):
    """Beside the second run's own bundle: as the second is to itself, and the third to it."""
    source = ChampionSource(uri=str(runs[1].bundle), named=True)
    for rule in ("not_worse", "better", "off"):
        evaluation = evaluated(runs[challenger], tmp_path, source, rule)
        (found,) = (e for e in evaluation.comparisons if e.kind is ReferenceKind.CHAMPION)
        assert found.outcome is outcome
        assert evaluation.champion.record is not None
        assert (Severity.CHAMPION in runs[challenger].severities(evaluation)) is (rule in rejecting)


def test_a_named_champion_that_is_missing_is_unchecked_and_rejected_by_a_strict_gate(
    runs, tmp_path
):
    first = runs[0]
    run = Run(tmp_path / "runs", first.session.directory.parents[1] / "before",
              stable_uri=str(tmp_path / "gone"))  # fmt: skip
    assert run.report.verdict == "APPROVED"
    for strict in (False, True):
        report = run_gate(
            run.session.dataset, {NAME: run.session.models}, tmp_path / "gate",
            run.options.replace(strict=strict, stable_uri="none"), session=run.session.name,
        )  # fmt: skip
        assert f"champion_of_{NAME}" in report.production_readiness.unchecked
        assert report.overall_success is not strict
