"""Alertmanager's webhook: an alert that fires asks for a training run.

``POST /v1/retrainings/<name>`` takes the webhook's JSON of version 4. The response is 200 with the
decision whether or not a run is started, so that Alertmanager does not send the alert again at
once; while an alert fires it repeats it every ``repeat_interval``. It is 503 if the API server
gives no response, which Alertmanager retries.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Collection, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel, Field, ValidationError

from dwcp_ml.contract.champion import TRIGGER_PATTERN
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.kube.api import Api, ApiUnavailable
from dwcp_ml.operator.health import QuietHandler
from dwcp_ml.operator.settings import SYSTEM_CLOCK, Clock
from dwcp_ml.retraining.decide import Skip, sentence
from dwcp_ml.retraining.settings import Retraining
from dwcp_ml.retraining.start import start

MAX_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 10.0
PATH: Final = "/v1/retrainings/"

STARTED: Final = "Started"
FAILED: Final = "Failed"

_LOG = logging.getLogger("dwcp_ml.retraining")
_JSON: Final = "application/json"


class _Alert(BaseModel):
    """One alert of a notification; other fields are ignored."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict)


class Notification(BaseModel):
    """What Alertmanager posts to a webhook; other fields are ignored."""

    version: Literal["4"]
    alerts: list[_Alert] = Field(max_length=10_000)

    def trigger(self, models: Collection[str], namespace: str) -> str | None:
        """Return the trigger of a run, by the first alert's name; None if no alert asks for one.

        An alert does if it fires, and is about one of the models in the namespace, or about no
        model: it has the label ``model``, and ``namespace`` if Prometheus sets it.
        """
        for alert in self.alerts:
            model = alert.labels.get("model")
            is_ours = model in models and alert.labels.get("namespace", namespace) == namespace
            if alert.status == "firing" and (is_ours or model is None):
                break
        else:
            return None
        trigger = f"alert/{alert.labels.get('alertname', 'unnamed')}"
        return trigger if re.fullmatch(TRIGGER_PATTERN, trigger) else "alert/unnamed"


class Response(NamedTuple):
    """What is sent: an HTTP status, and a JSON object."""

    status: int
    body: Mapping[str, Any]


class Webhook:
    """Starts runs for notifications.

    Parameters
    ----------
    token_file
        Holds the bearer token that a notification must have; read each time, so it may change.
        ``None`` accepts any.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        retrainings: Mapping[str, Retraining],
        token_file: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._retrainings = retrainings
        self._token_file = token_file
        self._clock = clock
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "dwcp_retraining_notifications",
            "Notifications of firing alerts, by what was decided.",
            ["retraining", "decision"],
            registry=self.registry,
        )
        for name in retrainings:
            for decision in (STARTED, FAILED, *Skip):
                self._decisions.labels(name, decision)

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def receive(self, path: str, authorization: str, body: bytes) -> Response:
        """Return the response to a notification, after starting a run if it is time for one."""
        name = path.removeprefix(PATH)
        retraining = self._retrainings.get(name) if path.startswith(PATH) else None
        if not self._is_authorized(authorization):
            return Response(401, {"error": "The bearer token is missing or wrong."})
        if retraining is None:
            known = ", ".join(sorted(self._retrainings))
            return Response(404, {"error": f"Paths are {PATH}<name>; names are {known}."})
        try:
            notification = Notification.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the body"
            text = f"It is not a notification of Alertmanager: {place}: {first['msg']}."
            return Response(400, {"error": text})
        trigger = notification.trigger(retraining.models, self._namespace)
        if trigger is None:
            _LOG.info("%s: no alert of the notification asks for a run", name)
            return Response(200, {"decision": None})
        return self._start(retraining, trigger)

    def _start(self, retraining: Retraining, trigger: str) -> Response:
        try:
            decision = start(self._api, self._namespace, retraining, trigger, self._clock)
        except Exception as error:  # whatever it is, the sender and the alert have to hear of it
            self._decisions.labels(retraining.name, FAILED).inc()
            is_known = isinstance(error, DwcpError)
            _LOG.error("%s: no run is started: %s", retraining.name, error, exc_info=not is_known)
            status = 503 if isinstance(error, ApiUnavailable) else 500
            return Response(status, {"error": str(error) if is_known else "See the webhook's log."})
        self._decisions.labels(retraining.name, decision.skip or STARTED).inc()
        text = sentence(decision)
        _LOG.info("%s (%s)", text, trigger)
        return Response(200, {"decision": decision.model_dump(mode="json"), "message": text})

    def _is_authorized(self, authorization: str) -> bool:
        if self._token_file is None:
            return True
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            _LOG.error("Can't read the token in %s: %s", self._token_file, error)
            return False
        sent = authorization.removeprefix("Bearer ").encode("latin-1")  # as http.server decodes it
        return bool(token) and hmac.compare_digest(sent, token.encode())


def server(webhook: Webhook, port: int, host: str = "0.0.0.0") -> ThreadingHTTPServer:  # noqa: S104 - Alertmanager connects from another host.
    """Return a server of the webhook, ``/healthz`` and ``/metrics``, not yet started.

    Raises
    ------
    DwcpError
        If the port is taken.
    """
    try:
        made = ThreadingHTTPServer((host, port), _handler(webhook))
    except OSError as error:
        raise DwcpError(f"Can't listen on port {port}: {error.strerror}.") from error
    made.daemon_threads = True
    return made


def _handler(webhook: Webhook) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        timeout = TIMEOUT_SECONDS

        def do_GET(self) -> None:  # noqa: N802 - the name of http.server
            """Send the health or the metrics."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                content = "text/plain; version=0.0.4; charset=utf-8"
                self._send(200, webhook.metrics(), content)
            elif path == "/healthz":
                self._send(200, b"ok\n")
            else:
                self._send_json(Response(404, {"error": f"Paths are {PATH}<name>, by POST."}))

        def do_POST(self) -> None:  # noqa: N802 - the name of http.server
            """Receive a notification."""
            length = self.headers.get("Content-Length", "")
            is_number = length.isdecimal()
            # int() reads at most some thousand digits.
            if not is_number or len(length) > len(str(MAX_BYTES)) or int(length) > MAX_BYTES:
                self.close_connection = True
                text = f"Content-Length is needed, of at most {MAX_BYTES:,}."
                self._send_json(Response(413 if is_number else 411, {"error": text}))
                return
            body = self.rfile.read(int(length))
            path, authorization = self.path.partition("?")[0], self.headers.get("Authorization", "")
            self._send_json(webhook.receive(path, authorization, body))

        def _send_json(self, response: Response) -> None:
            self._send(response.status, json.dumps(response.body).encode() + b"\n", _JSON)

    return Handler
