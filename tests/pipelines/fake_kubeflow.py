"""A fake of Kubeflow Pipelines on loopback, which holds every request against its description.

It knows runs and experiments, and one bearer token that is valid now. Its responses are checked
against the description as well, so that it can't promise what Kubeflow does not have. A pipeline
must be one by Kubeflow's own protocol buffers.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.pipelines.kubeflow_api import ERROR, faults_of, faults_of_request, operation_of

TOKEN = "a token that is valid now"


class FakeKubeflow:
    """A Kubeflow that plays a script.

    ``script`` holds what the run looks like at each poll; the last state stays; see ``polls``.
    ``tokens`` are those that are valid; empty for no login. ``faults`` says what goes wrong before
    a response: (method, end of the path) -> list of ``"lost"`` (acts, and breaks the
    connection off), ``"dropped"`` (breaks it off at once), or a status.
    ``before`` is called before each request, ``refused`` counts those whose token was not valid.
    """

    def __init__(self):
        self.before, self.refused = lambda: None, 0
        self.script, self.tokens, self.faults = [{"state": "PENDING"}], set(), {}
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

    def respond(self, method, url, headers, body):
        """Return (status, content), or ``None`` to close the connection."""
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
            if fault == "dropped":
                return None
            if isinstance(fault, int):
                return _error(fault, 14, "upstream connect error")
            status, found = self._act(method, url, json.loads(body or b"null"))
            if status == 200:
                kind = operation_of(method, url).response
                self.violations += [
                    f"the fake's response: {one}" for one in faults_of(found, kind, "it")
                ]
            return None if fault == "lost" else (status, found)

    def _fault(self, method, path):
        for (verb, end), planned in self.faults.items():
            if verb == method and path.endswith(end) and planned:
                return planned.pop(0)
        return None

    def _act(self, method, url, body):
        parts = urlsplit(url)
        path, query = parts.path.removeprefix("/apis/v2beta1/"), parse_qs(parts.query)
        status, found = 200, {}
        match method, path.split("/"):
            case "GET", ["healthz"]:
                found = {"multi_user": False}
            case "GET", ["experiments"]:
                found = _listed("experiments", self.experiments, query)
            case "POST", ["experiments"]:
                found = _stored(self.experiments, "experiment", body)
            case "GET", ["runs"]:
                found = _listed("runs", self.runs, query)
            case "POST", ["runs"] if faults := _faults_of_pipeline(body["pipeline_spec"]):
                self.violations += faults
                status, found = _error(400, 3, faults[0])
            case "POST", ["runs"]:
                found = _stored(self.runs, "run", {**body, "state": "PENDING"})
            case "GET", ["runs", run_id] if run_id in self.runs:
                state = self.script[min(self.polls, len(self.script) - 1)]
                self.polls += 1
                found = {**self.runs[run_id], **state}
            case _:
                status, found = _error(404, 5, f"{path} not found")
        return status, found


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


def _stored(things, kind, body):
    key = f"{kind}-{len(things) + 1}"
    things[key] = {**body, f"{kind}_id": key, "created_at": "2026-01-01T00:00:00Z"}
    return things[key]


def _listed(kind, things, query):
    (test,) = json.loads(query["filter"][0])["predicates"]
    assert (test["operation"], test["key"]) in {("EQUALS", "name"), ("EQUALS", "display_name")}
    found = [one for one in things.values() if one["display_name"] == test["string_value"]]
    return {kind: found[: int(query["page_size"][0])]} if found else {}


def _error(status, code, message):
    found = {"code": code, "message": message, "details": []}
    assert faults_of(found, ERROR, "error") == []
    return status, found


def _handler(fake):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = fake.respond(self.command, self.path, dict(self.headers), body)
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

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *given):
            pass

    return Handler
