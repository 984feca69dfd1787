"""The API server in memory keeps the promises that a controller builds on."""

import pytest

from dwcp_ml.kube.api import DEPLOYMENT, LEASE, MODEL_ROLLOUT, Conflict, Gone, Invalid
from tests.operator.memory_api import MemoryApi

SPACE = "models"


def rollout(name="a", **fields):
    return {
        "apiVersion": "ml.dwcp.io/v1alpha1", "kind": "ModelRollout",
        "metadata": {"name": name, "namespace": SPACE}, "spec": {"paused": False}, **fields,
    }  # fmt: skip


@pytest.fixture
def api():
    return MemoryApi()


def read(api, name="a"):
    return api.get(MODEL_ROLLOUT, SPACE, name)


def test_what_the_server_adds(api):
    made = api.create(rollout(status={"phase": "forged"}))
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"]
    assert "status" not in made
    assert read(api) == made
    with pytest.raises(Conflict):
        api.create(rollout())


def test_what_is_returned_is_a_copy(api):
    api.create(rollout())["spec"]["paused"] = True
    read(api)["spec"]["paused"] = True
    api.list(MODEL_ROLLOUT)[0]["spec"]["paused"] = True
    assert read(api)["spec"]["paused"] is False


def test_a_stale_write_is_refused(api):
    stale = api.create(rollout())
    api.replace({**stale, "spec": {"paused": True}})
    for status in (False, True):
        with pytest.raises(Conflict):
            api.replace({**stale, "status": {"x": 1}}, status=status)
    with pytest.raises(Conflict):
        api.delete(MODEL_ROLLOUT, SPACE, "a", resource_version=stale["metadata"]["resourceVersion"])
    with pytest.raises(Conflict):
        api.delete(MODEL_ROLLOUT, SPACE, "a", uid="another")
    assert read(api)["spec"] == {"paused": True}


def test_spec_and_status_are_written_apart(api):
    made = api.create(rollout())
    after = api.replace({**made, "spec": {"paused": True}, "status": {"phase": "x"}}, status=True)
    assert (after["spec"], after["status"]) == ({"paused": False}, {"phase": "x"})
    assert after["metadata"]["generation"] == 1
    after = api.replace({**after, "spec": {"paused": True}, "status": {}})
    assert (after["spec"], after["status"]) == ({"paused": True}, {"phase": "x"})
    assert after["metadata"]["generation"] == 2


def test_no_change_is_no_write(api):
    made = api.create(rollout())
    assert api.replace(made) == made
    assert len(api.changes) == 1


def test_finalizers_hold_an_object_back(api):
    made = api.create(rollout())
    made["metadata"]["finalizers"] = ["mine"]
    api.replace(made)
    api.delete(MODEL_ROLLOUT, SPACE, "a")
    going = read(api)
    assert going["metadata"]["deletionTimestamp"]
    going["metadata"]["finalizers"] = []
    api.replace(going)
    assert read(api) is None
    assert [change.type for change in api.changes] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    with pytest.raises(Gone):
        api.replace(going)
    api.delete(MODEL_ROLLOUT, SPACE, "a")


def test_what_is_owned_goes_with_its_owner(api):
    owner = api.create(rollout())
    api.create({
        "apiVersion": "apps/v1", "kind": "Deployment", "spec": {},
        "metadata": {"name": "d", "namespace": SPACE,
                     "ownerReferences": [{"uid": owner["metadata"]["uid"]}]},
    })  # fmt: skip
    api.delete(MODEL_ROLLOUT, SPACE, "a")
    assert api.get(DEPLOYMENT, SPACE, "d") is None


def test_lists_select(api):
    for name, labels in (("a", {"app": "x"}), ("b", {"app": "y", "k": ""}), ("c", {})):
        one = rollout(name)
        one["metadata"]["labels"] = labels
        api.create(one)
    other = rollout("d")
    other["metadata"]["namespace"] = "elsewhere"
    api.create(other)

    def names(*args):
        return [one["metadata"]["name"] for one in api.list(MODEL_ROLLOUT, *args)]

    assert sorted(names()) == ["a", "b", "c", "d"]
    assert names(SPACE) == ["a", "b", "c"]
    assert names(SPACE, "app=x") == ["a"]
    assert names(SPACE, "app,k") == ["b"]
    assert api.list(LEASE) == []


def test_apply(api):
    spec = {"steps": [1], "template": {"a": 1, "b": 2}}
    api.apply(rollout(spec=spec), manager="one", resource_version=None)
    api.apply(rollout(spec={"other": 1}), manager="two", resource_version=None)
    with pytest.raises(Conflict, match=r"spec\.steps is one's"):
        api.apply(rollout(spec={"steps": [2]}), manager="two", resource_version=None)
    api.apply(rollout(spec={"template": {"a": 1}}), manager="one", resource_version=None)
    assert read(api)["spec"] == {"template": {"a": 1}, "other": 1}
    api.apply(
        rollout(spec={"template": {"a": 3}}), manager="two", resource_version=None, force=True
    )
    assert read(api)["spec"]["template"] == {"a": 3}
    with pytest.raises(Conflict):
        api.apply(rollout(), manager="one", resource_version="1")
    with pytest.raises(Conflict):
        api.apply(rollout("new"), manager="one", resource_version="1")


def test_hooks_lose_a_request_or_its_answer(api):
    class Crash(Exception):
        pass

    def crash(call):
        if call.is_write:
            raise Crash

    api.before = crash
    with pytest.raises(Crash):
        api.create(rollout())
    assert read(api) is None
    api.before, api.after = (lambda call: None), crash
    with pytest.raises(Crash):
        api.create(rollout())
    assert read(api) is not None
    assert [call.verb for call in api.writes] == ["create"]
    api.aside().replace({**read(api), "spec": {"paused": True}})
    assert len(api.writes) == 1


def test_a_view_of_the_past(api):
    made = api.create(rollout())
    api.replace({**made, "spec": {"paused": True}})
    api.create(rollout("b"))
    behind = api.lagging(1)
    assert read(behind)["spec"]["paused"] is True
    assert read(behind, "b") is None
    assert len(behind.list(MODEL_ROLLOUT)) == 1
    behind.behind = 2
    assert read(behind)["spec"]["paused"] is False
    with pytest.raises(Conflict):
        behind.replace(read(behind))
    api.delete(MODEL_ROLLOUT, SPACE, "a")
    assert read(api.lagging(0)) is None
    assert read(api.lagging(1)) is not None


def test_admission():
    api = MemoryApi(admit=lambda obj: "no" if obj["spec"].get("bad") else None)
    made = api.create(rollout())
    with pytest.raises(Invalid, match="denied the request: no"):
        api.create(rollout("b", spec={"bad": 1}))
    with pytest.raises(Invalid):
        api.replace({**made, "spec": {"bad": 1}})
    api.replace({**made, "status": {"bad": 1}}, status=True)
