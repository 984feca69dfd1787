"""From a resource to a rollout or a run, and back to a status that the schema takes."""

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import yaml

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.publish_candidate import check_destination
from dwcp_ml.operator.api.convert import (
    bare_digest,
    marked_digest,
    status_of,
    to_rollout_spec,
    to_run_options,
    version_of,
)
from dwcp_ml.operator.api.crd import open_api_schema
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.state import Memory, Sealer
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.operator.api.training_status import TrainingRunStatus
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.simulated_environment import Traffic, World
from dwcp_ml.rollout.spec import (
    Analysis,
    DivergenceTest,
    ErrorRateTest,
    Revision,
    RolloutSpec,
    TruthTest,
)
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.verdict import Verdict
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
    assert to_rollout_spec(rollout(), STABLE) == RolloutSpec(
        model="bandwidth_predictor",
        candidate=Revision(version=CANDIDATE["version"], digest=FIRST, uri=CANDIDATE["storageUri"]),
        stable=STABLE,
        generation=3,
    )


def test_everything_that_is_chosen_arrives():
    spec = to_rollout_spec(ModelRollout.parse(FULL), None)
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
        truth=TruthTest(),
    )
    assert (spec.watch_seconds, spec.paused, spec.abort) == (60, True, False)
    assert spec.skip is not None
    assert (spec.skip.traffic_percent, spec.skip.reason) == (5, "no traffic")


def test_a_test_that_is_off_spends_no_alpha():
    both = to_rollout_spec(rollout(), STABLE).analysis
    changes = {"spec.analysis": {"latency": {"enabled": False}}}
    one = to_rollout_spec(rollout(**changes), STABLE).analysis
    assert one.enabled == ("error_rate",)
    assert one.alpha_each > both.alpha_each


def test_a_skip_is_for_the_candidate_it_names():
    skip = {"version": "v-of-last-week", "trafficPercent": 5, "reason": "no traffic at night"}
    assert to_rollout_spec(rollout(**{"spec.skip": skip}), STABLE).skip is None


def test_a_service_with_a_name_of_its_own_says_its_model():
    changes = {"metadata.name": "eu", "spec.inferenceService": "eu"}
    resource = rollout(**changes, **{"spec.model": "consensus_latency"})
    assert to_rollout_spec(resource, None).model == "consensus_latency"


def test_a_digest_has_the_name_of_its_algorithm_outside_and_not_inside():
    assert bare_digest(marked_digest(FIRST)) == FIRST
    assert marked_digest(marked_digest(FIRST)) == f"sha256:{FIRST}"


@pytest.mark.parametrize(("errors", "end"), [(0.001, Phase.PROMOTED), (0.2, Phase.ROLLED_BACK)])
def test_every_status_of_a_whole_rollout_is_one_that_the_schema_takes(errors, end):
    """With its memory, which goes through text at every look and changes nothing."""
    settings = {"divergence": {}, "truth": {}, "warmUpSeconds": 0}
    resource = rollout(**{"spec.analysis": settings})
    spec = to_rollout_spec(resource, STABLE)
    traffic = Traffic(
        requests_per_second=200, candidate_errors=errors, divergence=0.02, truth_share=0.5
    )
    world = World(spec, traffic, np.random.default_rng(7))
    sealer, memory, shown, seen = Sealer(b"k" * 32), Memory(stable=STABLE), None, []
    for _ in range(400):
        remembered, write = decide(spec, memory.rollout, world.observe(), world.now)
        memory = Memory(rollout=remembered, stable=STABLE)
        text, seal = sealer.seal(memory, "uid")
        assert sealer.open(text, seal, "uid") == memory
        before = shown.conditions if shown is not None else ()
        shown = status_of(remembered, world.live_percent, SHARES, STABLE, before)
        shown = shown.replace(memory=text, seal=seal)
        body = {**edited(ROLLOUT, {}), "status": shown.to_dict()}
        STATUS.validate(json.loads(json.dumps(body)))
        assert ModelRollout.parse(body).status == shown.model_validate(shown.to_dict())
        seen.append((shown.phase, shown.step, shown.live_percent))
        world.make(write)
        if remembered.ended:
            break
        world.pass_time(10)
    assert shown is not None
    assert shown.phase is end
    conditions = {one.type: one.status for one in shown.conditions}
    assert conditions == {"Progressing": "False", "Promoted": str(end is Phase.PROMOTED)}
    assert (Phase.PROGRESSING, "1/5", 1) in seen or end is Phase.ROLLED_BACK
    if end is Phase.PROMOTED:
        assert (Phase.WATCHING, "5/5", 100) in seen
        assert {one.test for one in shown.verdicts} >= {"error_rate", "latency", "truth"}
    else:
        assert seen[-2:] == [(Phase.ROLLING_BACK, "0/5", 1), (Phase.ROLLED_BACK, "0/5", 0)]
        assert shown.barred == (f"sha256:{FIRST}",)


def test_a_status_before_the_first_look_says_nothing_it_does_not_know():
    shown = status_of(RolloutStatus(), None, SHARES)
    assert (
        shown.to_dict()
        .keys()
        .isdisjoint({"livePercent", "candidate", "stable", "startedAt", "since"})
    )
    assert (shown.phase, shown.step) == (Phase.PENDING, "0/5")


def test_a_promotion_is_unknown_until_the_end_and_keeps_its_time():
    at = 1_767_268_800.0
    going = RolloutStatus(phase=Phase.PROGRESSING, reason="on its way.", last_look=at)
    first = status_of(going, 5, SHARES)
    later = going.replace(last_look=at + 60, phase=Phase.WATCHING)
    second = status_of(later, 100, SHARES, None, first.conditions)
    over = later.replace(last_look=at + 120, phase=Phase.PROMOTED)
    third = status_of(over, 100, SHARES, None, second.conditions)
    states = [{c.type: c for c in one.conditions} for one in (first, second, third)]
    assert [one["Promoted"].status for one in states] == ["Unknown", "Unknown", "True"]
    times = [one["Promoted"].last_transition_time.timestamp() - at for one in states]
    assert times == [0, 0, 120]
    assert [one["Progressing"].reason for one in states] == ["Progressing", "Watching", "Promoted"]


def test_since_when_is_the_time_of_the_newest_change():
    at = 1_767_268_800.0
    risen = RolloutStatus().told(at, Phase.PROGRESSING, "to 1 %.", target_percent=1)
    later = risen.told(at + 60, Phase.PROGRESSING, "holding: too few.", target_percent=1)
    assert status_of(later, 1, SHARES).to_dict()["since"] == "2026-01-01T12:00:00Z"
    further = later.told(at + 90, Phase.PROGRESSING, "to 5 %.", target_percent=5)
    assert status_of(further, 1, SHARES).to_dict()["since"] == "2026-01-01T12:01:30Z"


def test_long_sentences_do_not_break_a_status():
    verdict = Verdict(test="error_rate", outcome="pass", sentence="s" * 9000)
    remembered = RolloutStatus(reason="r" * 9000, verdicts=(verdict,))
    shown = status_of(remembered, 1, SHARES)
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


def test_the_version_of_a_run_is_its_time_and_its_own():
    metadata = {
        "metadata.creationTimestamp": "2026-01-02T03:04:05Z",
        "metadata.uid": "6f1c0d2e-1111-4222-8333-444455556666",
    }
    version = version_of(TrainingRun.parse(edited(TRAINING, metadata)))
    assert version == "20260102-030405-6f1c"
    candidate = {"storageUri": f"s3://m/{version}", "version": version, "digest": f"sha256:{FIRST}"}
    for name in (spec.kubernetes_name for spec in MODELS.values()):
        wanted = {"metadata.name": name, "spec.inferenceService": name, "spec.candidate": candidate}
        model = {"spec.model": name.replace("-", "_")}
        ModelRollout.parse(edited(ROLLOUT, wanted | model))


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
