"""From a resource to a rollout or a run, and back to a status that the schema takes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import yaml

from docs.generators.crd import open_api_schema
from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.publish_candidate import check_destination
from dwcp_ml.operator.api.convert import (
    to_run_options,
    version_of,
)
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.operator.api.training_status import TrainingRunStatus
from dwcp_ml.operator.conditions import status_of_rollout
from dwcp_ml.operator.observation import to_rollout_spec
from dwcp_ml.operator.state_store import RolloutState, read_state
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.simulated_environment import SimulatedEnvironment, Traffic
from dwcp_ml.rollout.spec import (
    Analysis,
    DivergenceTest,
    ErrorRateTest,
    GroundTruthTest,
    Revision,
    RolloutSpec,
)
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Outcome, Verdict
from dwcp_ml.training_run.options import ModelOptions, RunOptions
from tests.operator.crd_examples import FIRST, FULL, FULL_TRAINING, ROLLOUT, TRAINING, edited
from tests.operator.test_crd import plain

STABLE = Revision(version="v0", digest="d" * 64, uri="s3://models/bandwidth_predictor/v0")
CANDIDATE = ROLLOUT["spec"]["candidate"]
STATUS = jsonschema_rs.Draft4Validator(plain(open_api_schema(ModelRollout)))
COMPILED = Path(__file__).parents[2] / "pipelines/training.yaml"
SHARES = (1, 5, 25, 50, 100)


def rollout(**changes):
    return ModelRollout.parse(edited(ROLLOUT, {"metadata.generation": 3, **changes}))


def test_a_rollout_that_chooses_nothing_has_the_defaults_of_one_on_this_machine():
    assert to_rollout_spec(rollout()) == RolloutSpec(
        model="bandwidth_predictor",
        candidate=Revision(version=CANDIDATE["version"], digest=FIRST, uri=CANDIDATE["storageUri"]),
        stable=None,
        template_runtime=rollout().spec.template.predictor.model.runtime or "",
        generation=3,
    )


def test_everything_that_is_chosen_arrives():
    spec = to_rollout_spec(ModelRollout.parse(FULL))
    assert spec.stable is None
    assert [
        (one.traffic_percent, one.minimum_requests, one.dwell_seconds) for one in spec.steps
    ] == [
        (5, 300, 60.5),
        (100, 0, 0),
    ]
    assert spec.analysis == Analysis(
        alpha=0.01,
        error_rate=ErrorRateTest(margin=0.005),
        latency=None,
        divergence=DivergenceTest(tolerance=0.05, required=True),
        ground_truth=GroundTruthTest(),
    )
    assert (spec.watch_seconds, spec.paused, spec.abort) == (60, True, False)
    assert spec.skip is not None
    assert (spec.skip.traffic_percent, spec.skip.reason) == (5, "no traffic")
    assert spec.candidate.runtime == "dwcp-ml-60303ae2"
    assert spec.retry is not None
    assert (spec.retry.digest, spec.retry.reason) == ("1" * 64, "the node was broken")


def test_a_test_that_is_off_thins_no_other_and_gives_its_alpha_to_none():
    both = to_rollout_spec(rollout()).analysis
    changes = {"spec.analysis": {"latency": {"enabled": False}}}
    one = to_rollout_spec(rollout(**changes)).analysis
    assert one.enabled == ("error_rate", "prediction_distribution", "divergence")
    assert one.alpha_of("error_rate") == both.alpha_of("error_rate") == 0.33 * both.alpha


def test_a_skip_is_for_the_candidate_it_names():
    skip = {"version": "v-of-last-week", "trafficPercent": 5, "reason": "no traffic at night"}
    assert to_rollout_spec(rollout(**{"spec.skip": skip})).skip is None


def test_a_service_with_a_name_of_its_own_says_its_model():
    changes = {"metadata.name": "eu", "spec.inferenceService": "eu"}
    resource = rollout(**changes, **{"spec.model": "consensus_latency"})
    assert to_rollout_spec(resource).model == "consensus_latency"


@pytest.mark.parametrize(
    ("errors", "end"),
    [
        pytest.param(0.001, Phase.PROMOTED, marks=pytest.mark.slow),
        (0.2, Phase.ROLLED_BACK),
    ],
)
def test_every_status_of_a_whole_rollout_is_one_that_the_schema_takes(errors, end):
    """With its state, which goes through text each time and changes nothing."""
    settings = {"divergence": {}, "groundTruth": {}, "warmUpSeconds": 0}
    resource = rollout(**{"spec.analysis": settings})
    spec = to_rollout_spec(resource).replace(stable=STABLE)
    traffic = Traffic(
        requests_per_second=200, candidate_errors=errors, divergence=0.02, labelled_share=0.5
    )
    world = SimulatedEnvironment(spec, traffic, np.random.default_rng(7))
    state, shown, seen = RolloutState(stable=STABLE), ModelRolloutStatus(), []
    for _ in range(400):
        rollout_status, write = decide(spec, state.rollout, world.observe(), world.now)
        state = RolloutState(rollout=rollout_status, stable=STABLE)
        live, now = world.live_percent, world.now
        shown = status_of_rollout(state, shown, live, SHARES, now, stalled=False)
        assert read_state(shown.state) == state
        body = {**edited(ROLLOUT, {}), "status": shown.to_dict()}
        STATUS.validate(json.loads(json.dumps(body)))
        assert ModelRollout.parse(body).status == shown.model_validate(shown.to_dict())
        seen.append((shown.phase, shown.step, shown.live_percent))
        world.make(write)
        if rollout_status.ended:
            break
        world.pass_time(10)
    assert shown.phase is end
    conditions = {one.type: one.status for one in shown.conditions}
    promoted = end is Phase.PROMOTED
    assert conditions == {
        "Ready": str(promoted),
        "Reconciling": "False",
        "Stalled": str(not promoted),
        "Promoted": str(promoted),
    }
    assert (Phase.PROGRESSING, "1/5", 1) in seen or end is Phase.ROLLED_BACK
    if end is Phase.PROMOTED:
        assert (Phase.WATCHING, "5/5", 100) in seen
        assert {one.test for one in shown.verdicts} >= {"error_rate", "latency", "ground_truth"}
    else:
        assert seen[-2:] == [(Phase.ROLLING_BACK, "0/5", 1), (Phase.ROLLED_BACK, "0/5", 0)]
        assert shown.blocked_digests == (f"sha256:{FIRST}",)


def test_a_status_before_the_first_look_says_nothing_it_does_not_know():
    shown = shown_of(RolloutStatus(), None)
    assert (
        shown.to_dict()
        .keys()
        .isdisjoint({"livePercent", "candidate", "stable", "startedAt", "since"})
    )
    assert (shown.phase, shown.step) == (Phase.PENDING, "0/5")


AT = 1_767_268_800.0


def shown_of(rollout, live, before=None, now=AT, stalled=False):
    before = before or ModelRolloutStatus()
    state = RolloutState(rollout=rollout)
    return status_of_rollout(state, before, live, SHARES, now, stalled=stalled)


def conditions_of(status):
    return {each.type: each for each in status.conditions}


def test_a_condition_keeps_its_time_until_it_changes():
    going = RolloutStatus(phase=Phase.PROGRESSING)
    first = shown_of(going, 5)
    second = shown_of(going, 5, first, AT + 60)
    third = shown_of(going.replace(phase=Phase.WATCHING), 100, second, AT + 120)
    fourth = shown_of(going.replace(phase=Phase.PROMOTED), 100, third, AT + 180)
    states = [conditions_of(each) for each in (first, second, third, fourth)]
    assert [each["Promoted"].status for each in states] == ["False", "False", "True", "True"]
    times = [each["Promoted"].last_transition_time.timestamp() - AT for each in states]
    assert times == [0, 0, 120, 120]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("stalled", [False, True])
def test_exactly_one_of_ready_reconciling_and_stalled_is_true(phase, stalled):
    conditions = conditions_of(shown_of(RolloutStatus(phase=phase), 5, stalled=stalled))
    true = [name for name in ("Ready", "Reconciling", "Stalled")
            if conditions[name].status == "True"]  # fmt: skip
    live = phase in (Phase.WATCHING, Phase.PROMOTING, Phase.PROMOTED)
    if stalled or phase is Phase.ROLLED_BACK:
        assert true == ["Stalled"]
    else:
        assert true == ["Ready" if live else "Reconciling"]
    assert conditions["Promoted"].status == str(live)


def test_the_reason_of_an_end_says_which_end_it_was():
    failed = Cause(reason=Reason.TEST_FAILED, test="error_rate", detail="It fails.")
    back = RolloutStatus(phase=Phase.ROLLED_BACK, cause=failed)
    shown = shown_of(back, 0)
    assert shown.reason == "TestFailed"
    assert conditions_of(shown)["Stalled"].reason == "RolledBack"
    assert conditions_of(shown)["Stalled"].message == (
        "Rolled back. The test error_rate failed. It fails."
    )
    aborted = back.replace(cause=Cause(reason=Reason.ABORTED))
    assert conditions_of(shown_of(aborted, 0))["Stalled"].reason == "Aborted"


def test_since_when_is_the_time_of_the_newest_change():
    one, five = (Cause(reason=Reason.STEP_STARTED, value=0, percent=share) for share in (1, 5))
    waits = Cause(reason=Reason.DWELLING, percent=1, value=1, limit=2)
    risen = RolloutStatus().transition(AT, Phase.PROGRESSING, one, target_percent=1)
    later = risen.transition(AT + 60, Phase.PROGRESSING, waits, target_percent=1)
    assert shown_of(later, 1).to_dict()["since"] == "2026-01-01T12:00:00Z"
    further = later.transition(AT + 90, Phase.PROGRESSING, five, target_percent=5)
    assert shown_of(further, 1).to_dict()["since"] == "2026-01-01T12:01:30Z"


def test_long_sentences_do_not_break_a_status():
    verdict = Verdict(test="error_rate", outcome=Outcome.PASS, sentence="s" * 9000)
    cause = Cause(reason=Reason.WEIGHT_UNKNOWN, detail="r" * 9000)
    shown = shown_of(RolloutStatus(cause=cause, verdicts=(verdict,)), 1)
    STATUS.validate({**edited(ROLLOUT, {}), "status": shown.to_dict()})


def test_a_run_that_chooses_nothing_is_the_compiled_pipelines_own():
    """And every argument of the pipeline has its place in the resource."""
    pipeline, *_ = yaml.safe_load_all(COMPILED.read_text(encoding="utf-8"))
    inputs = pipeline["root"]["inputDefinitions"]["parameters"]
    usual = {name: one["defaultValue"] for name, one in inputs.items()}
    arguments = to_run_options(TrainingRun.parse(TRAINING)).pipeline_arguments()
    assert arguments == {**usual, "data_path": TRAINING["spec"]["data"]["uri"]}


def test_everything_that_is_chosen_about_a_run_arrives():
    arguments = to_run_options(
        TrainingRun.parse(FULL_TRAINING), "20260101-000000"
    ).pipeline_arguments()
    assert (arguments["seed"], arguments["version"]) == (7, "20260101-000000")
    assert arguments["incidents_path"] == "s3://telemetry/incidents.json"
    assert arguments["packet_loss_unit"] == "percent"
    window = arguments["data_start"], arguments["data_end"]
    assert window == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    assert arguments["accept_leak"] == "rtt_ms,row_order"
    assert (arguments["export_formats"], arguments["storage_prefix"]) == ("onnx", "s3://models")
    options = {name: ModelOptions(**one) for name, one in arguments["model_options"].items()}
    assert options == {
        "bandwidth_predictor": ModelOptions(
            form="bandwidth_class",
            epochs=3,
            settings={"data": {"window": 12}},
            targets={"mape_percent": 4.5, "correlation": 0.99},
        ),
        "consensus_latency": ModelOptions(window=30, validation_fraction=0.2),
    }
    run = RunOptions(models=FULL_TRAINING["spec"]["models"], stable_uri=arguments["stable_uri"])
    assert run.stable_uris() == {"bandwidth_predictor": "s3://models/bandwidth_predictor/v0"}
    assert json.loads(json.dumps(arguments)) == arguments


def test_a_run_on_simulated_data_names_no_file():
    resource = TrainingRun.parse(edited(TRAINING, {"spec.data": {"simulated": True}}))
    assert to_run_options(resource).data_path == ""


def test_a_window_without_a_start_arrives():
    changes = {"spec.data.endTime": "2026-01-01T00:00:00Z"}
    options = to_run_options(TrainingRun.parse(edited(TRAINING, changes)))
    assert options.data_window == DataWindow(end=1_767_225_600_000)
    assert (options.data_start, options.data_end) == ("", "2026-01-01T00:00:00Z")


def test_the_version_of_a_run_is_its_time_and_its_own():
    metadata = {
        "metadata.creationTimestamp": "2026-01-02T03:04:05Z",
        "metadata.uid": "6f1c0d2e-1111-4222-8333-444455556666",
    }
    version = version_of(TrainingRun.parse(edited(TRAINING, metadata)).metadata)
    assert version == "20260102-030405-6f1c"
    candidate = {"storageUri": f"s3://m/{version}", "version": version, "digest": f"sha256:{FIRST}"}
    for name in (spec.kubernetes_name for spec in MODELS.values()):
        desired = {
            "metadata.name": name,
            "spec.inferenceService": name,
            "spec.candidate": candidate,
        }
        model = {"spec.model": name.replace("-", "_")}
        ModelRollout.parse(edited(ROLLOUT, desired | model))


def test_a_run_publishes_in_its_own_namespace_if_a_cluster_finds_the_bundles():
    there = {"metadata.namespace": "models", "spec.storagePrefix": "s3://models"}
    arguments = to_run_options(TrainingRun.parse(edited(TRAINING, there))).pipeline_arguments()
    assert (arguments["rollout_namespace"], arguments["storage_prefix"]) == (
        "models",
        "s3://models",
    )
    check_destination(arguments["rollout_namespace"], arguments["storage_prefix"])
    del there["spec.storagePrefix"]
    arguments = to_run_options(TrainingRun.parse(edited(TRAINING, there))).pipeline_arguments()
    assert (arguments["rollout_namespace"], arguments["storage_prefix"]) == ("", "")


def test_the_status_of_a_run_is_what_the_schema_takes():
    status = TrainingRunStatus(
        phase="Succeeded",
        reason="GateRejected",
        run_id="6f1c",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        verdict="REJECTED",
        version="20260102-030405-6f1c",
        rollouts=tuple(spec.kubernetes_name for spec in MODELS.values()),
        tasks=({"name": "gate", "state": "Succeeded", "finished_at": datetime.now(UTC)},),
    )
    schema = jsonschema_rs.Draft4Validator(plain(open_api_schema(TrainingRun)))
    schema.validate({**TRAINING, "status": status.to_dict()})
