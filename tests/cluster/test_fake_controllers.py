"""The loop of a fake controller: it retries, keeps real faults, and drops what can't succeed."""

import pytest
import urllib3

from tests.cluster.fake_controllers import FakeController
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected

KEY = ("ours", "one")


class Scripted(FakeController):
    """Meets the given faults one after the other, then finds everything right."""

    def __init__(self, *faults):
        super().__init__(rest=None)
        self.faults = list(faults)
        self.calls = 0

    def reconcile(self, key):
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)


@pytest.fixture
def start():
    controllers = []

    def start_one(*faults):
        controller = Scripted(*faults)
        controllers.append(controller)
        controller.start()
        controller.enqueue(KEY)
        return controller

    yield start_one
    for controller in controllers:
        controller.stop()
        assert not controller._thread.is_alive()


@pytest.mark.parametrize("fault", [
    RequestRejected(409, "the object has been modified"),
    RequestRejected(404, "not found"),
    RequestRejected(429, "storage is (re)initializing"),
    RequestRejected(503, "apiserver not ready"),
    urllib3.exceptions.ProtocolError("connection broken"),
])  # fmt: skip
def test_what_passes_by_itself_is_tried_again_and_is_no_fault(start, fault):
    controller = start(fault)
    eventually(lambda: controller.calls == 2, 10.0)
    assert not controller.errors


@pytest.mark.parametrize(
    "fault", [RequestRejected(422, "spec.replicas: required"), KeyError("spec")]
)
def test_a_fault_is_kept_and_the_key_is_tried_again(start, fault):
    controller = start(fault)
    eventually(lambda: controller.calls == 2, 10.0)
    (error,) = controller.errors
    assert "spec" in error


def test_a_namespace_that_goes_needs_nothing(start):
    controller = start(RequestRejected(403, "forbidden: namespace ours is being terminated"))
    eventually(lambda: controller.calls == 1, 10.0)
    with pytest.raises(Exception, match="the answer is False"):
        eventually(lambda: controller.calls > 1, 0.3)
    assert not controller.errors


def test_a_key_that_waits_is_looked_at_once(start):
    controller = start()
    eventually(lambda: controller.calls == 1, 10.0)
    with controller.pause():
        for _ in range(50):
            controller.enqueue(KEY)
    eventually(lambda: controller.calls >= 2, 10.0)
    assert controller.calls <= 3
