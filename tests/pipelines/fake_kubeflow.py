"""A fake of Kubeflow Pipelines on loopback, which holds every request against its description.

It knows runs and experiments, and one bearer token that is valid now. Its responses are checked
against the description as well, so that it can't promise what Kubeflow does not have. A pipeline
must be one by Kubeflow's own protocol buffers.

Held against recordings of a real API server 2.17.0 (single user) on 2026-11-29: the fields of runs,
experiments and errors (``recorded.json``, ``test_fake_kubeflow.py``); that creating a run takes
seconds and is aborted when the client hangs up; 500 for an invalid pipeline, 400 for bad arguments,
404 for a missing run; that ``:terminate`` leads to CANCELING and a second one to 400; that a run
which has not ended has ``finished_at`` at the epoch; that names of runs repeat and those of
experiments do not; filters by ``name``; that the namespace is ignored. Not held against it:
``task_details``, tokens, the response to an invalid pipeline beyond its status, the status 409 of
a name that is taken, and that a run's ``description`` is returned as it was sent.
"""

import contextlib
import json
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.pipelines.kubeflow_api import ERROR, faults_of, faults_of_request, operation_of

TOKEN = "a token that is valid now"
CREATED, NEVER = "2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z"
UNDER_WAY = ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED")
"""States of a run that can be terminated."""

RUN_FIELDS = frozenset(
    ("experiment_id", "run_id", "display_name", "description", "storage_state", "runtime_config",
     "service_account", "created_at", "scheduled_at", "finished_at", "state", "state_history")
)  # fmt: skip
EXPERIMENT_FIELDS = frozenset(
    ("experiment_id", "display_name", "description", "created_at", "storage_state",
     "last_run_created_at")
)  # fmt: skip


class FakeKubeflow:
    """A Kubeflow that plays a script.

    ``script`` holds what the run looks like at each poll; the last state stays; see ``polls``.
    ``tokens`` are those that are valid; empty for no login. ``faults`` says what goes wrong before
    a response: (method, end of the path) -> list of ``"lost"`` (acts, and breaks the
    connection off), ``"dropped"`` (breaks it off at once), ``"late"`` (breaks it off at once, and
    acts ``late_seconds`` later), or a status. ``creation_seconds`` are the times that the next
    creations of a run take, after which they take none.
    ``before`` is called before each request, ``refused`` counts those whose token was not valid.
    """

    def __init__(self):
        self.before, self.refused = lambda: None, 0
        self.script, self.tokens, self.faults = [{"state": "PENDING"}], set(), {}
        self.creation_seconds, self.late_seconds, self.aborted = [], 0.5, 0
        self.requests, self.violations = [], []
        self.experiments, self.runs, self.polls = {}, {}, 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def run(self):
        """The only run, as it was sent."""
        (one,) = self.runs.values()
        return one

    def sent(self, method, path):
        """Return the bodies that were sent to a path."""
        return [
            json.loads(body or b"null")
            for verb, url, _, body in self.requests
            if (verb, urlsplit(url).path) == (method, f"/apis/v2beta1{path}")
        ]

    def respond(self, method, url, headers, body, hung_up=lambda seconds: False):
        """Return (status, content), or ``None`` to close the connection.

        ``hung_up`` waits for some seconds; returns whether the client hung up meanwhile.
        """
        creates = (method, urlsplit(url).path) == ("POST", "/apis/v2beta1/runs")
        if creates and self.creation_seconds and hung_up(self.creation_seconds.pop(0)):
            self.aborted += 1
            return None
        with self._lock:
            self.before()
            self.requests.append((method, url, headers, body))
            faults = faults_of_request(method, url, headers, body)
            if faults:
                self.violations += faults
                return _error(400, 3, "; ".join(faults))
            if self.tokens and headers.get("Authorization") not in {
                f"Bearer {t}" for t in self.tokens
            }:
                self.refused += 1
                return _error(401, 16, "Request header error: the token has expired")
            fault = self._fault(method, urlsplit(url).path)
            if fault == "late":
                act = threading.Timer(self.late_seconds, self._act_late, (method, url, body))
                act.daemon = True
                act.start()
            if fault in ("dropped", "late"):
                return None
            if isinstance(fault, int):
                return _error(fault, 13 if fault == 500 else 14, "upstream connect error")
            status, found = self._act(method, url, json.loads(body or b"null"))
            if status == 200:
                kind = operation_of(method, url).response
                self.violations += [
                    f"the fake's response: {one}" for one in faults_of(found, kind, "it")
                ]
            return None if fault == "lost" else (status, found)

    def _act_late(self, method, url, body):
        with self._lock:
            self._act(method, url, json.loads(body))

    def _fault(self, method, path):
        for (verb, end), planned in self.faults.items():
            if verb == method and path.endswith(end) and planned:
                return planned.pop(0)
        return None

    def _act(self, method, url, body):
        parts = urlsplit(url)
        path, query = parts.path.removeprefix("/apis/v2beta1/"), parse_qs(parts.query)
        response = _error(404, 5, f"{path} not found")
        match method, path.split("/"):
            case "GET", ["healthz"]:
                response = 200, {"multi_user": False, "pipeline_store": "database"}
            case "GET", ["experiments"]:
                response = 200, _listed("experiments", self.experiments, query, EXPERIMENT_FIELDS)
            case "POST", ["experiments"]:
                response = self._create_experiment(body)
            case "GET", ["runs"]:
                response = 200, _listed("runs", self.runs, query, RUN_FIELDS)
            case "POST", ["runs"]:
                response = self._create_run(body)
            case "GET", ["runs", run_id] if run_id in self.runs:
                state = self._state(run_id)
                self.polls += 1
                response = 200, {**_shown(self.runs[run_id], RUN_FIELDS), **state}
            case "POST", ["runs", action] if action.removesuffix(":terminate") in self.runs:
                response = self._terminate(action.removesuffix(":terminate"))
        return response

    def _create_experiment(self, body):
        if body["display_name"] in {one["display_name"] for one in self.experiments.values()}:
            return _error(409, 6, "there is an experiment of that name")
        made = _stored(self.experiments, "experiment", {**body, "last_run_created_at": NEVER})
        return 200, _shown(made, EXPERIMENT_FIELDS)

    def _create_run(self, body):
        if faults := _faults_of_pipeline(body["pipeline_spec"]):
            self.violations += faults
            return _error(500, 13, f"Failed to create a run: {faults[0]}")
        if faults := _faults_of_arguments(body):
            return _error(400, 3, faults[0])
        made = {
            "service_account": "pipeline-runner", **body, "state": "PENDING",
            "state_history": [{"update_time": CREATED, "state": "PENDING"}],
            "scheduled_at": CREATED, "finished_at": NEVER,
        }  # fmt: skip
        return 200, _shown(_stored(self.runs, "run", made), RUN_FIELDS)

    def _terminate(self, run_id):
        if self._state(run_id)["state"] not in UNDER_WAY:
            return _error(400, 3, f"Failed to terminate a run {run_id}. Row not found")
        self.runs[run_id]["state"] = "CANCELING"
        return 200, {}

    def _state(self, run_id):
        """Return what the script says of a run; one that was terminated is CANCELING until then."""
        state = self.script[min(self.polls, len(self.script) - 1)]
        if self.runs[run_id]["state"] == "CANCELING" and state["state"] in UNDER_WAY:
            return {"state": "CANCELING"}
        return state


def polls(*stages, state="SUCCEEDED", message=""):
    """Return a script: at each poll the tasks of one more stage have ended, then the run has.

    A stage is a list of tasks; the last one ends in ``state`` if the run does not succeed. Kubeflow
    also lists the driver and the executor of a task.
    """
    script, ended = [{"state": "PENDING"}], []
    for index, stage in enumerate(stages):
        script.append(_poll("RUNNING", [*ended, *(_task(name, "RUNNING") for name in stage)]))
        last = index == len(stages) - 1
        ended += [
            _task(name, state if last else "SUCCEEDED", message if last else "") for name in stage
        ]
    error = {"error": {"code": 13, "message": message}} if message else {}
    return [*script, {**_poll(state, ended), **error, "finished_at": "2026-01-01T00:10:00Z"}]


def _poll(state, tasks):
    others = [
        _task(name, "SUCCEEDED") for name in ("root", "root-driver", "executor", "gate-driver")
    ]
    return {"state": state, "run_details": {"task_details": [*others, *tasks]}}


def _task(name, state, message=""):
    ended = (
        "2026-01-01T00:01:30Z" if state not in ("PENDING", "RUNNING") else "1970-01-01T00:00:00Z"
    )
    task = {"display_name": name, "task_id": name, "state": state,
            "start_time": "2026-01-01T00:01:00Z", "end_time": ended}  # fmt: skip
    return task | ({"error": {"code": 13, "message": message}} if message else {})


def _faults_of_pipeline(body):
    """Return why Kubeflow's protocol buffers do not take a pipeline; nothing if they do."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec, platform = body.get("pipeline_spec", body), body.get("platform_spec", {})
    try:
        found = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        return [f"the pipeline: {error}"]
    return [] if found.pipeline_info.name else ["the pipeline has no name"]


def _faults_of_arguments(body):
    """Return which arguments the pipeline does not declare."""
    spec = body["pipeline_spec"].get("pipeline_spec", body["pipeline_spec"])
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    given = body.get("runtime_config", {}).get("parameters", {})
    return [f"the pipeline has no parameter {name}" for name in given.keys() - declared.keys()]


def _stored(things, kind, body):
    key = f"{kind}-{len(things) + 1}"
    things[key] = {
        **body, f"{kind}_id": key, "created_at": CREATED, "storage_state": "AVAILABLE"
    }  # fmt: skip
    return things[key]


def _shown(thing, fields):
    return {name: value for name, value in thing.items() if name in fields}


def _listed(kind, things, query, fields):
    (test,) = json.loads(query["filter"][0])["predicates"]
    assert (test["operation"], test["key"]) in {("EQUALS", "name"), ("EQUALS", "display_name")}
    found = [one for one in things.values() if one["display_name"] == test["string_value"]]
    shown = [_shown(one, fields) for one in found[: int(query["page_size"][0])]]
    return {kind: shown, "total_size": len(found)} if found else {}


def _error(status, code, message):
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
    found = {"code": code, "message": message, "details": [detail]}
    assert faults_of(found, ERROR, "error") == []
    return status, found


def _handler(fake):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = fake.respond(
                self.command, self.path, dict(self.headers), body, self.hung_up
            )  # fmt: skip
            if found is None:
                self.close_connection = True
                return
            status, content = found
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def hung_up(self, seconds):
            """Wait; return whether the client has closed the connection."""
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                if not select.select([self.connection], [], [], left)[0]:
                    return False
                with contextlib.suppress(ConnectionError):
                    if self.connection.recv(1, socket.MSG_PEEK):
                        raise AssertionError("a request came before the response to the last one")
                return True
            return False

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *given):
            pass

    return Handler
