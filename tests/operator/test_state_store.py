"""The state of a rollout is read back exactly, or rejected with the field that is wrong."""

import json

import pytest

from dwcp_ml.operator.state_store import (
    InvalidState,
    RolloutState,
    read_state,
    write_state,
)
from dwcp_ml.rollout.counters import ArmCounters
from dwcp_ml.rollout.observation import Histogram, ReplicaSample
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import Phase, RolloutStatus

STATE = RolloutState(
    rollout=RolloutStatus(phase=Phase.PROGRESSING, passed_percent=5, blocked=("c" * 64,)),
    stable=Revision(version="v0", digest="d" * 64),
)


def test_what_was_written_is_read_back():
    text = write_state(STATE)
    assert read_state(text) == STATE
    assert json.loads(text)["rollout"]["passed_percent"] == 5
    assert json.loads(text)["version"] == 1


def test_an_empty_text_is_no_state():
    assert read_state("") is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda state: state.update(version=0), "version"),
        (lambda state: state["rollout"].update(target_percent="many"), "rollout.target_percent"),
        (lambda state: state["rollout"].update(phase="Lost"), "rollout.phase"),
    ],
)
def test_a_state_that_was_edited_is_rejected_by_the_field(change, field):
    state = json.loads(write_state(STATE))
    change(state)
    with pytest.raises(InvalidState, match=f"'{field}' is not valid"):
        read_state(json.dumps(state))


def test_fields_of_a_newer_release_are_ignored():
    state = json.loads(write_state(STATE))
    state |= {"version": 7, "mood": "good"}
    state["rollout"]["pace"] = {"fast": True}
    assert read_state(json.dumps(state)) == STATE.replace(version=7)


def test_a_reason_of_a_newer_release_costs_only_what_is_for_users():
    state = json.loads(write_state(STATE))
    state["rollout"]["cause"] = {"reason": "MoonIsFull"}
    assert read_state(json.dumps(state)) == STATE


def test_evidence_of_a_newer_release_is_gathered_again():
    state = json.loads(write_state(STATE))
    state["rollout"]["evidence"] = {"error_rate": {"harm": "a lot"}}
    state["rollout"]["exposed_requests"] = 12
    assert read_state(json.dumps(state)) == STATE


@pytest.mark.parametrize("text", ["{", "[]", "null", "so it goes", '{"rollout": 7}'])
def test_what_is_no_state_is_rejected(text):
    with pytest.raises(InvalidState):
        read_state(text)


def _with_replicas(count):
    histogram = Histogram(edges=tuple(range(25)), counts=(1_000_000,) * 26)
    replicas = {
        f"bandwidth-predictor-v20260101-000000-predictor-6d4cf56db6-{place:05}": ReplicaSample(
            replica=f"bandwidth-predictor-v20260101-000000-predictor-6d4cf56db6-{place:05}",
            started_at=1_767_268_800.123456,
            requests=1_000_000,
            errors=1000,
            latency=histogram,
        )
        for place in range(count)
    }
    rollout = RolloutStatus(candidate_counters=ArmCounters(replicas=replicas))
    return STATE.replace(rollout=rollout)


def test_a_state_of_too_many_replicas_is_stored_without_their_counters():
    assert read_state(write_state(_with_replicas(700))) == _with_replicas(700)
    read = read_state(write_state(_with_replicas(2000)))
    assert read == STATE.replace(rollout=RolloutStatus())
