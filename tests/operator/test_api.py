"""The types take and refuse what the API server does, and say why in one sentence."""

import re
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from docs.generators.crd import RESOURCES
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.manifests import STEPS_PERCENT, revision_name
from dwcp_ml.operator.api.model_rollout import MAX_NAMES, ModelRollout
from dwcp_ml.operator.api.parts import (
    KUBERNETES_NAMES,
    MAX_SENTENCE,
    Condition,
    ModelName,
    shortened,
    with_condition,
)
from dwcp_ml.operator.api.training_run import (
    MUTABLE,
    ExportFormat,
    ModelOverrides,
    TrainingRun,
    TrainingRunSpec,
)
from dwcp_ml.training_run.options import EXPORT_FORMATS, ModelOptions
from tests.operator.crd_examples import (
    CHANGES,
    FULL,
    FULL_TRAINING,
    REFUSED,
    ROLLOUT,
    TAKEN,
    TRAINING,
    edited,
)

KINDS = {one.names.kind: one for one in RESOURCES}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("example", TAKEN, ids=lambda one: one.name)
def test_the_type_takes(example):
    KINDS[example.kind].parse(example.new)


@pytest.mark.parametrize("example", REFUSED, ids=lambda one: one.name)
def test_the_type_refuses_in_one_sentence(example):
    with pytest.raises(UsageError) as refusal:
        KINDS[example.kind].parse(example.new)
    text = str(refusal.value)
    assert example.refused in text
    assert text.startswith(f"This {example.kind} is not valid")
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("example", CHANGES, ids=lambda one: one.name)
def test_both_sides_of_a_change_are_whole(example):
    """So that it is the change that the API server refuses."""
    KINDS[example.kind].parse(example.old)
    if "inferenceService can't be changed" in example.refused:
        return  # its name can't be changed either, and both are the same
    KINDS[example.kind].parse(example.new)


@pytest.mark.parametrize("resource", [FULL, FULL_TRAINING], ids=["ModelRollout", "TrainingRun"])
def test_what_was_set_comes_back_as_it_was(resource):
    spec = KINDS[resource["kind"]].parse(resource).spec.to_dict()

    def holds(given, came):
        if isinstance(given, dict):
            return all(holds(value, came[key]) for key, value in given.items())
        if isinstance(given, list):
            return len(given) == len(came) and all(map(holds, given, came))
        return given == came

    assert holds(resource["spec"], spec)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.stepps", []),
        ("spec.watch_seconds", 5),
        ("spec.candidate.sha", "x"),
        ("spec.template.predicter", {}),
        ("kind", "Rollout"),
        ("apiVersion", "ml.dwcp.io/v1"),
    ],
)
def test_a_field_that_is_not_known_is_refused(path, value):
    with pytest.raises(UsageError, match=path.rpartition(".")[2]):
        ModelRollout.parse(edited(ROLLOUT, {path: value}))


def test_a_refusal_is_one_line_whatever_a_key_is_called():
    with pytest.raises(UsageError) as refusal:
        ModelRollout.parse(edited(ROLLOUT, {"spec.template.labels": {"two\nlines": 5}}))
    assert "\n" not in str(refusal.value)


def test_a_status_of_a_newer_operator_is_read():
    newer = edited(ROLLOUT, {"status.phase": "Progressing", "status.mood": "good"})
    assert ModelRollout.parse(newer).status.phase == "Progressing"


def test_what_the_api_server_adds_to_the_metadata_is_passed_over():
    body = edited(ROLLOUT, {"metadata.managedFields": [{}], "metadata.generation": 4})
    assert ModelRollout.parse(body).metadata.generation == 4


def test_the_names_are_those_of_the_contract():
    assert get_args(ModelName) == tuple(MODELS)
    assert get_args(ExportFormat) == EXPORT_FORMATS
    assert {one.kubernetes_name: one.name for one in MODELS.values()} == KUBERNETES_NAMES


def test_the_usual_steps_are_those_of_the_gate():
    assert ModelRollout.parse(edited(ROLLOUT, {})).spec.shares == STEPS_PERCENT


def test_a_model_is_chosen_within_the_same_bounds_as_on_one_machine():
    here = ModelOverrides.model_json_schema(by_alias=False)["properties"]
    there = ModelOptions.model_json_schema()["properties"]
    for name in here.keys() & there.keys() - {"settings"}:
        bounds = [
            {key: value for key, value in sub.items() if "inimum" in key or "aximum" in key}
            for one in (here, there)
            for sub in one[name].get("anyOf", [one[name]])
        ]
        assert bounds[: len(bounds) // 2] == bounds[len(bounds) // 2 :], name
    assert there.keys() - here.keys() == {"targets"}


def test_a_run_is_frozen_in_every_field_but_two():
    (frozen,) = [rule.cel for rule in TrainingRunSpec.rules if "self.seed ==" in rule.cel]
    fields = {field.alias for field in TrainingRunSpec.model_fields.values()}
    assert fields - set(MUTABLE) == set(re.findall(r"oldSelf\.(\w+)", frozen))
    assert fields >= set(MUTABLE)


def test_the_longest_names_still_make_a_service():
    service, version = "s" * 20, "v" * (MAX_NAMES - 20)
    assert len(f"{service}-v{version}-predictor") == 63
    assert len(f"isvc.{service}-{revision_name(version, service)}-predictor") <= 63


def test_a_condition_keeps_its_time_until_its_status_changes():
    def said(before, status, minutes):
        at = NOON + timedelta(minutes=minutes)
        return with_condition(before, "Ready", status, "Word", f"said {minutes}", at=at)

    first = said((), None, 0)
    same = said(first, None, 1)
    other = said(same, True, 2)
    assert [one.last_transition_time for (one,) in (first, same, other)] == [
        NOON,
        NOON,
        NOON + timedelta(minutes=2),
    ]
    assert [one.message for (one,) in (same, other)] == ["said 1", "said 2"]
    both = with_condition(other, "Else", False, "Word", "text", at=NOON)
    assert [(one.type, one.status) for one in both] == [("Ready", "True"), ("Else", "False")]


def test_a_condition_is_written_as_kubernetes_writes_it():
    zone = NOON.astimezone().replace(microsecond=5)
    (one,) = with_condition((), "Ready", True, "Word", "text", at=zone, generation=3)
    assert one.to_dict() == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-01T12:00:00Z",
        "reason": "Word",
        "message": "text",
    }
    assert Condition.model_validate(one.to_dict()).last_transition_time == NOON


def test_a_long_sentence_is_cut_where_the_field_ends():
    assert shortened("x" * MAX_SENTENCE) == "x" * MAX_SENTENCE
    cut = shortened("x" * (MAX_SENTENCE + 1))
    assert len(cut) == MAX_SENTENCE
    assert cut.endswith("…")


def test_a_training_run_without_a_choice_is_that_of_the_command_line():
    spec = TrainingRun.parse(TRAINING).spec
    assert spec.models == tuple(MODELS)
    assert not spec.suspend
    assert not spec.cancel
