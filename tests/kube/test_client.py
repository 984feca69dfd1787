"""The API server over the wire: what is sent, and what each answer means."""

import json
import time
from types import SimpleNamespace

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.http_client import Response
from dwcp_ml.kube import client
from dwcp_ml.kube.api import (
    DEPLOYMENT,
    INFERENCE_SERVICE,
    KINDS,
    LEASE,
    MODEL_ROLLOUT,
    POD,
    AccessDenied,
    ApiUnavailable,
    Conflict,
    Gone,
    Invalid,
    KubeError,
    kind_of,
)
from dwcp_ml.kube.client import KubeApi, connect
from tests.metrics_sources.fakes import FakeServer

OBJECT = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "a", "namespace": "models", "resourceVersion": "7"},
    "spec": {"predictor": {}},
}
BASE = "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices"


def status(message, code=0, **fields):
    return json.dumps({"kind": "Status", "message": message, "code": code, **fields}).encode()


RBAC = {
    "reason": "Forbidden",
    "details": {"group": "serving.kserve.io", "kind": "inferenceservices"},
}


def api_of(server, seconds=5.0):
    import kubernetes  # takes seconds

    configuration = kubernetes.client.Configuration(host=f"http://{server.address}")
    configuration.api_key = {"authorization": "Bearer secret"}
    return KubeApi(kubernetes.client.ApiClient(configuration), timeout_seconds=seconds)


@pytest.fixture
def server():
    with FakeServer((200, json.dumps(OBJECT).encode())) as made:
        yield made


def sent(server):
    first, headers, body = server.seen[-1]
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    return method, path, query, headers, json.loads(body) if body else None


@pytest.mark.server
def test_what_is_read(server):
    api = api_of(server)
    assert api.get(INFERENCE_SERVICE, "models", "a") == OBJECT
    method, path, _, headers, _ = sent(server)
    assert (method, path) == ("GET", f"{BASE}/a")
    assert headers["authorization"] == "Bearer secret"
    server.answer = (404, status("not found"))
    assert api.get(INFERENCE_SERVICE, "models", "a") is None


@pytest.mark.server
def test_what_is_written(server):
    api = api_of(server)
    assert api.create(OBJECT) == OBJECT
    assert sent(server)[:3] == ("POST", BASE, "fieldManager=dwcp-ml-operator")
    api.replace(OBJECT)
    method, path, query, headers, body = sent(server)
    assert (method, path, query) == ("PUT", f"{BASE}/a", "fieldManager=dwcp-ml-operator")
    assert (headers["content-type"], body) == ("application/json", OBJECT)
    api.replace(OBJECT, status=True)
    assert sent(server)[1] == f"{BASE}/a/status"
    with pytest.raises(UsageError, match="no resourceVersion"):
        api.replace({**OBJECT, "metadata": {"name": "a", "namespace": "models"}})


@pytest.mark.server
def test_a_read_is_tried_again_and_a_write_is_not(server):
    api = api_of(server)
    server.answer = (503, status("overloaded"))
    with pytest.raises(ApiUnavailable):
        api.get(INFERENCE_SERVICE, "models", "a")
    assert len(server.seen) == client.READ_ATTEMPTS
    with pytest.raises(ApiUnavailable):
        api.replace(OBJECT)
    assert len(server.seen) == client.READ_ATTEMPTS + 1
    server.answer = (403, status("forbidden", **RBAC))
    with pytest.raises(AccessDenied):
        api.get(INFERENCE_SERVICE, "models", "a")
    assert len(server.seen) == client.READ_ATTEMPTS + 2


@pytest.mark.parametrize(("asked", "tries"), [("1", client.READ_ATTEMPTS), ("2", 1)])
def test_a_server_that_asks_for_more_than_a_second_is_left_alone(monkeypatch, asked, tries):
    waited, sent_to = [], []

    def busy(method, path, what, **how):
        sent_to.append(path)
        error = ApiUnavailable("busy.")
        error.retry_after_seconds = float(asked)
        raise error

    monkeypatch.setattr(client.time, "sleep", waited.append)
    api = KubeApi(
        SimpleNamespace(configuration=SimpleNamespace(host="http://127.0.0.1:1")),
        http=SimpleNamespace(),
    )
    monkeypatch.setattr(api, "_send", busy)
    with pytest.raises(ApiUnavailable):
        api.get(INFERENCE_SERVICE, "models", "a")
    assert len(sent_to) == tries
    assert waited == [1.0] * (tries - 1)


@pytest.mark.server
def test_what_is_applied(server):
    api = api_of(server)
    managed = {**OBJECT, "metadata": {**OBJECT["metadata"], "managedFields": [{}]}}
    api.apply(managed, manager="me", resource_version="9", force=True)
    method, path, query, headers, body = sent(server)
    assert (method, path, query) == ("PATCH", f"{BASE}/a", "fieldManager=me&force=true")
    assert headers["content-type"] == "application/apply-patch+yaml"
    assert body["metadata"] == {"name": "a", "namespace": "models", "resourceVersion": "9"}
    api.apply(managed, manager="me", resource_version=None)
    assert sent(server)[2] == "fieldManager=me"
    assert "resourceVersion" not in sent(server)[4]["metadata"]


@pytest.mark.server
def test_what_is_deleted(server):
    api = api_of(server)
    api.delete(INFERENCE_SERVICE, "models", "a", uid="u", resource_version="7")
    method, path, _, _, body = sent(server)
    assert (method, path) == ("DELETE", f"{BASE}/a")
    assert body["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    server.answer = (404, status("not found"))
    api.delete(INFERENCE_SERVICE, "models", "a")
    assert sent(server)[4]["preconditions"] == {}


@pytest.mark.server
def test_a_long_list_comes_in_pages(server):
    def answer(first, _):
        further = "" if "continue=abc" in first else "abc"
        name = "second" if "continue=abc" in first else "first"
        page = {"metadata": {"continue": further}, "items": [{"metadata": {"name": name}}]}
        return 200, json.dumps(page).encode()

    server.answer = answer
    found = api_of(server).list(POD, "models", "app=a,b")
    assert [one["metadata"]["name"] for one in found] == ["first", "second"]
    assert {(one["apiVersion"], one["kind"]) for one in found} == {("v1", "Pod")}
    _, path, query, _, _ = sent(server)
    assert path == "/api/v1/namespaces/models/pods"
    assert "labelSelector=app%3Da%2Cb" in query
    server.answer = (200, b'{"items": []}')
    assert api_of(server).list(DEPLOYMENT) == []
    assert sent(server)[1] == "/apis/apps/v1/deployments"


FAILURES = [
    (401, "who are you", AccessDenied),
    (400, "bad", Invalid),
    (404, "gone", Gone),
    (409, "the object has been modified", Conflict),
    (410, "too old", Gone),
    (413, "too large", Invalid),
    (422, "spec: invalid", Invalid),
    (429, "too many", ApiUnavailable),
    (500, "failed calling webhook", ApiUnavailable),
    (503, "starting", ApiUnavailable),
    (301, "elsewhere", ApiUnavailable),
]


DENIALS = {
    "RBAC": (RBAC, AccessDenied),
    "a quota": ({**RBAC, "details": {**RBAC["details"], "name": "a"}}, AccessDenied),
    "a webhook": ({"reason": "Forbidden"}, Invalid),
    "a webhook without a reason": ({}, Invalid),
    "a webhook with details": ({"reason": "Forbidden", "details": {"causes": []}}, Invalid),
    "a policy": ({**RBAC, "details": {**RBAC["details"], "causes": [{"message": "no"}]}}, Invalid),
    "a proxy": ({"kind": "Error"}, AccessDenied),
}


@pytest.mark.parametrize("name", DENIALS)
def test_who_denies_is_read_from_fields_not_from_the_message(name):
    fields, error = DENIALS[name]
    for message in ("denied", 'admission webhook "v" denied the request: no'):
        with pytest.raises(KubeError) as caught:
            client._content(Response(403, {}, status(message, 403, **fields)), "replace X a")
        assert type(caught.value) is error


@pytest.mark.parametrize(("code", "message", "kind"), FAILURES)
def test_what_an_answer_means(code, message, kind):
    with pytest.raises(KubeError) as caught:
        client._content(Response(code, {}, status(message + "\n  and more.")), "replace X a")
    assert type(caught.value) is kind
    assert str(caught.value) == f"The API server does not replace X a: {message} and more."


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"\xff"])
def test_an_answer_that_is_none(data):
    with pytest.raises(ApiUnavailable, match="it responded with 200, without a reason"):
        client._content(Response(200, {}, data), "read X a")


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, None), ("Wed, 1 Jan", None)])
def test_how_long_to_wait(header, seconds):
    headers = {} if header is None else {"retry-after": header}
    with pytest.raises(ApiUnavailable) as caught:
        client._content(Response(429, headers, status("later")), "list pods")
    assert caught.value.retry_after_seconds == seconds


def test_a_sentence_is_bounded():
    with pytest.raises(Invalid) as caught:
        client._content(Response(422, {}, status("x" * 10_000)), "create X a")
    assert len(str(caught.value)) < 500


@pytest.mark.server
def test_a_silent_server_leaves_it_open_whether_it_was_done(server):
    def answer(first, headers):
        time.sleep(1.0)
        return 200, b"{}"

    server.answer = answer
    with pytest.raises(ApiUnavailable, match=r"not within.*unknown"):
        api_of(server, seconds=0.2).replace(OBJECT)
    assert len(server.seen) == 1


@pytest.mark.server
def test_a_server_that_is_gone(server):
    api = api_of(server)
    server.stop()
    with pytest.raises(ApiUnavailable, match="whether it was carried out is unknown"):
        api.get(LEASE, "models", "a")


@pytest.mark.server
@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"nonsense\r\n\r\n", b"",
])  # fmt: skip
def test_an_answer_that_breaks_off(server, raw):
    server.answer = (0, raw)
    with pytest.raises(ApiUnavailable):
        api_of(server, seconds=0.5).get(LEASE, "models", "a")


def test_addresses():
    assert client._path(POD, "a b", "c/d") == "/api/v1/namespaces/a%20b/pods/c%2Fd"
    for namespace, name in (("", "a"), ("models", "")):
        with pytest.raises(UsageError):
            client._path(POD, namespace, name)


def test_kinds_are_found_by_what_objects_say():
    for kind in KINDS:
        assert kind_of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind
    assert kind_of({"apiVersion": "ml.dwcp.io/v1alpha1", "kind": "ModelRollout"}) is MODEL_ROLLOUT
    with pytest.raises(UsageError, match="'Service' of 'v1'"):
        kind_of({"apiVersion": "v1", "kind": "Service"})


@pytest.mark.slow  # the import of kubernetes
def test_there_may_be_no_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match="No cluster is configured"):
        connect(tmp_path / "absent")


@pytest.mark.slow
def test_a_kubeconfig_names_the_server(tmp_path):
    file = tmp_path / "config"
    file.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }))  # fmt: skip
    with pytest.raises(ApiUnavailable):
        connect(file).get(LEASE, "models", "a")
    assert connect(file).client.configuration.host == "http://127.0.0.1:1", "for watches"
    with pytest.raises(UsageError, match="No cluster is configured"):
        connect(file, "absent")
