"""The loop of a player: it tries again, keeps real faults, and forgets what is of no use."""

import pytest
import urllib3

from tests.cluster.fake_controllers import Player
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected

KEY = ("ours", "one")


class Scripted(Player):
    """Meets the given faults one after the other, then finds everything right."""

    def __init__(self, *faults):
        super().__init__(rest=None)
        self.faults = list(faults)
        self.looks = 0

    def look(self, key):
        self.looks += 1
        if self.faults:
            raise self.faults.pop(0)


@pytest.fixture
def play():
    players = []

    def start(*faults):
        player = Scripted(*faults)
        players.append(player)
        player.start()
        player.again(KEY)
        return player

    yield start
    for player in players:
        player.stop()
        assert not player._thread.is_alive()


@pytest.mark.parametrize("fault", [
    RequestRejected(409, "the object has been modified"),
    RequestRejected(404, "not found"),
    RequestRejected(429, "storage is (re)initializing"),
    RequestRejected(503, "apiserver not ready"),
    urllib3.exceptions.ProtocolError("connection broken"),
])  # fmt: skip
def test_what_passes_by_itself_is_tried_again_and_is_no_fault(play, fault):
    player = play(fault)
    eventually(lambda: player.looks == 2, 10.0)
    assert not player.errors


@pytest.mark.parametrize(
    "fault", [RequestRejected(422, "spec.replicas: required"), KeyError("spec")]
)
def test_a_fault_is_kept_and_the_key_is_tried_again(play, fault):
    player = play(fault)
    eventually(lambda: player.looks == 2, 10.0)
    (error,) = player.errors
    assert "spec" in error


def test_a_namespace_that_goes_needs_nothing(play):
    player = play(RequestRejected(403, "forbidden: namespace ours is being terminated"))
    eventually(lambda: player.looks == 1, 10.0)
    with pytest.raises(Exception, match="the answer is False"):
        eventually(lambda: player.looks > 1, 0.3)
    assert not player.errors


def test_a_key_that_waits_is_looked_at_once(play):
    player = play()
    eventually(lambda: player.looks == 1, 10.0)
    with player.pause():
        for _ in range(50):
            player.again(KEY)
    eventually(lambda: player.looks >= 2, 10.0)
    assert player.looks <= 3
