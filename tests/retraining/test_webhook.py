"""Notifications of Alertmanager start runs: over real HTTP on the loopback."""

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dwcp_ml.http_client import HttpSession
from dwcp_ml.kube.api import TRAINING_RUN, ApiUnavailable, Invalid
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.operator.settings import SYSTEM_CLOCK
from dwcp_ml.retraining.webhook import MAX_BYTES, PATH, Webhook, server
from tests.operator.memory_api import MemoryApi
from tests.retraining.retrainings import NAMESPACE, NOW, retraining

CLOCK = replace(SYSTEM_CLOCK, wall=NOW.timestamp)
FIRING = {
    "status": "firing",
    "labels": {"alertname": "DwcpFeatureDrift", "model": "bandwidth_predictor"},
    "annotations": {"summary": "A feature drifts."},
    "startsAt": "2026-03-20T12:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "0123456789abcdef",
}


def notification(*alerts, **changes):
    return {
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "retraining", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "alerts": list(alerts), **changes,
    }  # fmt: skip


class Running:
    """A webhook on a server in memory, and what posts to it."""

    def __init__(self, webhook, api):
        self.api, self._server = api, server(webhook, 0, "127.0.0.1")
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._http = HttpSession()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._http.close()

    def send(self, method, path, body=None, **headers):
        response = self._http.request(
            method, f"http://127.0.0.1:{self.port}{path}", 10.0, body=body,
            headers={"Content-Type": "application/json", **headers},
        )  # fmt: skip
        return response.status, response.body

    def notify(self, body, path=f"{PATH}nightly", **headers):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, text = self.send("POST", path, raw, **headers)
        return status, json.loads(text)

    @property
    def decisions(self):
        """How many notifications led to each decision, by the page of metrics."""
        status, page = self.send("GET", "/metrics")
        assert status == 200
        return {
            sample.labels["decision"]: sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if sample.name == "dwcp_retraining_notifications_total" and sample.value
        }

    @property
    def runs(self):
        return self.api.list(TRAINING_RUN, NAMESPACE)


@contextmanager
def running(token_file=None):
    api = MemoryApi(now=lambda: NOW.strftime("%Y-%m-%dT%H:%M:%SZ"))
    webhook = Webhook(api, NAMESPACE, {"nightly": retraining()}, token_file, CLOCK)
    with Running(webhook, api) as found:
        yield found


@pytest.fixture
def hook():
    with running() as found:
        yield found


def test_an_alert_that_fires_starts_one_run(hook):
    status, found = hook.notify(notification(FIRING))
    assert (status, found["decision"]["skip"], found["decision"]["run"]) == (200, None, "nightly-1")
    (run,) = hook.runs
    assert run["spec"]["trigger"] == "alert/DwcpFeatureDrift"
    status, found = hook.notify(notification(FIRING))
    assert (status, found["decision"]["skip"]) == (200, "RunUnderWay")
    assert len(hook.runs) == 1


def test_a_resolved_alert_starts_nothing(hook):
    status, found = hook.notify(notification({**FIRING, "status": "resolved"}))
    assert (status, found["decision"]) == (200, None)
    assert hook.runs == []


@pytest.mark.parametrize(
    ("labels", "starts"),
    [
        ({"model": "bandwidth_predictor", "namespace": NAMESPACE}, True),
        ({"model": "bandwidth_predictor"}, True),  # Prometheus sets no label of the namespace
        ({"model": "consensus_latency", "namespace": NAMESPACE}, False),
        ({"model": "bandwidth_predictor", "namespace": "others"}, False),
        ({"namespace": "others"}, True),  # an alert of the user's, about the telemetry
    ],
)
def test_an_alert_about_another_model_starts_nothing(hook, labels, starts):
    status, found = hook.notify(notification({**FIRING, "labels": {"alertname": "A", **labels}}))
    assert (status, found["decision"] is not None, len(hook.runs)) == (200, starts, starts)


def test_the_first_alert_that_asks_for_a_run_is_its_trigger(hook):
    alerts = [("A", "firing", "consensus_latency"), ("B", "resolved", "bandwidth_predictor"),
              ("C", "firing", "bandwidth_predictor")]  # fmt: skip
    body = notification(
        *({"status": status, "labels": {"alertname": name, "model": model}}
          for name, status, model in alerts)
    )  # fmt: skip
    assert hook.notify(body)[1]["decision"]["trigger"] == "alert/C"


@pytest.mark.parametrize("name", ["", "ünsafe", "a" * 200, "a\nb", "a\n"])
def test_an_alert_of_any_name_starts_a_run(hook, name):
    labels = {"alertname": name}
    assert hook.notify(notification({**FIRING, "labels": labels}))[0] == 200
    (run,) = hook.runs
    assert TrainingRun.model_validate(run).spec.trigger == run["spec"]["trigger"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"4"', b"\xff", b"[" * 100_000,
        notification(FIRING, version="3"), notification({"labels": {}}), {"version": "4"},
        notification({**FIRING, "status": "odd"}), notification({**FIRING, "labels": {"a": 1}}),
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_starts_nothing(hook, body):
    status, found = hook.notify(body)
    assert (status, len(found["error"].splitlines())) == (400, 1)
    assert hook.runs == []


@pytest.mark.parametrize("path", [PATH, f"{PATH}weekly", "/nightly", "/", f"{PATH}nightly/x"])
def test_another_path_is_not_found(hook, path):
    assert hook.notify(notification(FIRING), path)[0] == 404
    assert hook.runs == []


@pytest.mark.parametrize("length", [str(MAX_BYTES + 1), "9" * 5000])
def test_a_body_that_is_too_large_is_not_read(hook, length):
    with socket.create_connection(("127.0.0.1", hook.port), 10) as connection:
        head = f"POST {PATH}nightly HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(100)


def test_without_the_token_nothing_is_started(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    with running(token) as hook:
        body = notification(FIRING)
        assert hook.notify(body)[0] == 401
        assert hook.notify(body, Authorization="Bearer wrong")[0] == 401
        assert hook.notify(body, Authorization="Bearer s\xe9cret")[0] == 401
        token.write_text("")  # no token is never the right one
        assert hook.notify(body, Authorization="Bearer ")[0] == 401
        token.unlink()
        assert hook.notify(body, Authorization="Bearer secret")[0] == 401
        assert hook.runs == []
        token.write_text("rénewed")
        # As bytes: the client writes a text as Latin-1.
        assert hook.notify(body, Authorization="Bearer rénewed".encode())[0] == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(ApiUnavailable("No response."), 503), (Invalid("No such model."), 500)],
)
def test_what_the_api_server_says_reaches_alertmanager_and_the_metrics(hook, error, status):
    def fail(call):
        if call.verb == "create":
            raise error

    hook.api.before = fail
    assert hook.notify(notification(FIRING)) == (status, {"error": str(error)})
    assert hook.decisions == {"Failed": 1}
    hook.api.before = lambda call: None
    hook.notify(notification(FIRING))
    hook.notify(notification(FIRING))
    assert hook.decisions == {"Failed": 1, "Started": 1, "RunUnderWay": 1}


def test_any_other_error_has_a_response_too(hook, caplog):
    def fail(call):
        raise RuntimeError("an error of the client's library")

    hook.api.before = fail
    status, found = hook.notify(notification(FIRING))
    assert (status, list(found)) == (500, ["error"])
    assert hook.decisions == {"Failed": 1}
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.exc_info is not None


def test_pages(hook):
    assert hook.send("GET", "/healthz")[0] == 200
    assert hook.send("GET", "/other")[0] == 404
