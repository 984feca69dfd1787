"""A memory is believed only where, and as, the operator wrote it."""

import json

import pytest

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.operator.api.state import Memory, NotBelieved, Sealer
from dwcp_ml.rollout.counters import ArmCounters
from dwcp_ml.rollout.observation import Histogram, ReplicaSample
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import Phase, RolloutStatus

KEY, OTHER = b"a" * 32, b"b" * 32
MEMORY = Memory(
    rollout=RolloutStatus(phase=Phase.PROGRESSING, passed_percent=5, barred=("c" * 64,)),
    stable=Revision(version="v0", digest="d" * 64),
)


def test_what_was_sealed_is_read_back():
    text, seal = Sealer(KEY).seal(MEMORY, "uid-1")
    assert Sealer(KEY).open(text, seal, "uid-1") == MEMORY
    assert json.loads(text)["rollout"]["passed_percent"] == 5


def test_nothing_is_nothing():
    assert Sealer(KEY).open("", "", "uid-1") is None


@pytest.mark.parametrize(
    "forge",
    [
        lambda text, seal: (text.replace('"passed_percent":5', '"passed_percent":50'), seal),
        lambda text, seal: (text.replace("c" * 64, ""), seal),
        lambda text, seal: (text + " ", seal),
        lambda text, seal: (text, ""),
        lambda text, seal: ("", seal),
        lambda text, seal: (text, seal[:-1]),
        lambda text, seal: (text, seal.upper()),
        lambda text, seal: (text, f"{seal[:-1]}é"),
        lambda text, _: Sealer(OTHER).seal(MEMORY, "uid-1"),
        lambda text, _: Sealer(KEY).seal(MEMORY, "uid-2"),
        lambda text, _: (text, Sealer(KEY).seal(MEMORY.model_copy(), "uid-")[1]),
    ],
)
def test_a_forged_memory_is_not_believed(forge):
    text, seal = forge(*Sealer(KEY).seal(MEMORY, "uid-1"))
    with pytest.raises(NotBelieved, match="not written by this operator"):
        Sealer(KEY).open(text, seal, "uid-1")


def test_a_key_can_be_replaced_while_a_rollout_is_under_way():
    old = Sealer(KEY).seal(MEMORY, "uid-1")
    both = Sealer(OTHER, KEY)
    assert both.open(*old, "uid-1") == MEMORY
    new = both.seal(MEMORY, "uid-1")
    assert Sealer(OTHER).open(*new, "uid-1") == MEMORY
    with pytest.raises(NotBelieved):
        Sealer(OTHER).open(*old, "uid-1")


@pytest.mark.parametrize("keys", [(), (b"",), (KEY, b"short")])
def test_a_key_that_can_be_guessed_is_refused(keys):
    with pytest.raises(UsageError, match="at least 32 bytes"):
        Sealer(*keys)


def test_a_memory_of_another_release_is_not_guessed_at():
    class Newer(Memory):
        mood: str = "good"

    text, seal = Sealer(KEY).seal(Newer(**dict(MEMORY)), "uid-1")
    with pytest.raises(NotBelieved, match="another release: 'mood'"):
        Sealer(KEY).open(text, seal, "uid-1")


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
    return MEMORY.replace(rollout=rollout)


def test_a_memory_has_room_for_hundreds_of_replicas_and_says_when_it_has_not():
    Sealer(KEY).seal(_with_replicas(700), "uid-1")
    with pytest.raises(DwcpError, match="2000 replicas are too many"):
        Sealer(KEY).seal(_with_replicas(2000), "uid-1")
