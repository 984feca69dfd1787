"""A client of Kubeflow Pipelines' REST API v2beta1: submit a run, read its state, terminate it.

``kfp.Client`` does the same, but its dependencies are too large for the operator. It also never
reads the token again, stops waiting at the first lost connection, and does not know that a
cancelled run has ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.http_client import HttpError, HttpSession, NoResponse, Response
from dwcp_ml.kubeflow.run_state import CANCELING, RunState, TaskState, state_of

__all__ = [
    "KubeflowApi",
    "KubeflowError",
    "RunRequest",
    "RunState",
    "SubmissionLost",
    "SubmissionRejected",
    "TaskState",
]

TIMEOUT_SECONDS: Final = 15.0

SUBMIT_SECONDS: Final = 60.0
"""Time limit of the request that creates a run.

A busy server takes 5 to 15 s for our pipeline, and makes no run if the client hangs up before.
"""

APPEAR_SECONDS: Final = 30.0
"""How long after a lost response the run may still appear: a proxy's time limit, for example, ends
the client's connection and not the server's work."""

MAX_BYTES: Final = 16_000_000
_ROOT: Final = "/apis/v2beta1"


class KubeflowError(DwcpError):
    """Kubeflow gave no response, or an error; whether the request took effect is unknown.

    Parameters
    ----------
    status
        HTTP status of the response; ``None`` if there was none.
    from_server
        Whether Kubeflow's API server itself sent the error, not a proxy in front of it.
    """

    def __init__(
        self, message: str, status: int | None = None, *, from_server: bool = False
    ) -> None:
        super().__init__(
            message,
            code=ErrorCode.NO_RESPONSE if status is None else ErrorCode.STATUS,
            subject=status or "",
        )
        self.status = status
        self.from_server = from_server

    @property
    def transient(self) -> bool:
        """Whether a retry can help: there was no response, or the server is busy or broken."""
        return self.status is None or self.status in (408, 429) or self.status >= 500


class SubmissionLost(KubeflowError):
    """There was no response to a submission that says what became of it.

    The run may exist, or still appear within ``APPEAR_SECONDS``: look for it before submitting it
    again.
    """

    @property
    def is_internal(self) -> bool:
        """Whether the API server responded with an internal error.

        That is its response to an invalid pipeline, which no retry makes valid, but also to a fault
        of its database after it has started the run.
        """
        return self.status == HTTPStatus.INTERNAL_SERVER_ERROR and self.from_server


class SubmissionRejected(KubeflowError):
    """The API server responded with an internal error, and no run appeared."""

    @property
    def transient(self) -> bool:
        """Whether a retry can help: no."""
        return False


@dataclass(frozen=True)
class RunRequest:
    """A run to submit.

    Parameters
    ----------
    name
        Kubeflow allows several runs of one name.
    experiment, namespace
        Of the run; the namespace is empty for a single-user Kubeflow.
    pipeline_root, service_account
        Empty for Kubeflow's defaults.
    submission
        Identifies this submission among runs of the same name, so that its run is found if the
        response is lost. Kubeflow shows it as the run's description. Empty where the name alone is
        unique.
    """

    name: str
    experiment: str
    namespace: str
    pipeline: Mapping[str, Any]
    arguments: Mapping[str, Any]
    pipeline_root: str = ""
    service_account: str = ""
    submission: str = ""


class KubeflowApi:
    """A Kubeflow at an address. Every method may raise ``KubeflowError``.

    Parameters
    ----------
    address
        ``http://host:port``, or the URL before ``/apis``.
    token_file
        File of a bearer token, read for every request because tokens are renewed; ``None`` for
        none.
    """

    def __init__(self, address: str, token_file: Path | None = None) -> None:
        self._address = address.rstrip("/")
        self._token_file = token_file
        self._http = HttpSession(max_bytes=MAX_BYTES)

    def check(self, request: RunRequest) -> None:
        """Check that a run may be submitted, without a request: here any may."""

    def submit(self, request: RunRequest) -> str:
        """Submit a run; return its id.

        Raises
        ------
        SubmissionLost
            If it is unknown whether there is a run now.
        """
        self.check(request)
        body: dict[str, Any] = {
            "display_name": request.name,
            "experiment_id": self._experiment(request.experiment, request.namespace),
            "pipeline_spec": request.pipeline,
            "runtime_config": {"parameters": dict(request.arguments)},
        }
        if request.pipeline_root:
            body["runtime_config"]["pipeline_root"] = request.pipeline_root
        if request.service_account:
            body["service_account"] = request.service_account
        if request.submission:
            body["description"] = request.submission
        try:
            run = self._send("POST", "/runs", body, timeout_seconds=SUBMIT_SECONDS)
            return str(_need(run, "run_id"))
        except KubeflowError as error:
            if error.transient:
                lost = SubmissionLost(str(error), error.status, from_server=error.from_server)
                raise lost from error
            raise

    def find(self, name: str, namespace: str, submission: str = "") -> str:
        """Return the id of a run of this name; empty if there is none.

        Parameters
        ----------
        submission
            Of the run; empty for any.
        """
        for run in self._named("/runs", name, namespace).get("runs") or []:
            if submission in ("", run.get("description")):
                return str(run.get("run_id", ""))
        return ""

    def run(self, run_id: str) -> RunState | None:
        """Return the state of a run; ``None`` if there is no such run."""
        run = self._send("GET", f"/runs/{quote(run_id, safe='')}", missing_is_empty=True)
        return state_of(run) if run else None

    def terminate(self, run_id: str) -> None:
        """Terminate a run; no effect on a run that is being terminated, or has ended.

        Kubeflow rejects the request for such a run, as it does for one that does not exist.
        """
        try:
            self._send("POST", f"/runs/{quote(run_id, safe='')}:terminate", {})
        except KubeflowError as error:
            run = None if error.transient else self.run(run_id)
            if run is None or not (run.ended or run.state == CANCELING):
                raise

    def artifact(self, artifact_id: str) -> bytes:
        """Return the content of an artifact."""
        artifact = self._send("GET", f"/artifacts/{quote(artifact_id, safe='')}?view=DOWNLOAD")
        # The URL is signed: the token is not sent there.
        return self._request("GET", str(_need(artifact, "download_url")), None, {}).body

    def _experiment(self, name: str, namespace: str) -> str:
        """Return the id of the experiment; create it if it is missing."""
        body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
        experiment = self._find_experiment(name, namespace)
        if experiment is None:
            try:
                experiment = self._send("POST", "/experiments", body)
            except KubeflowError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                experiment = self._find_experiment(name, namespace)  # another client created it
                if experiment is None:
                    raise
        return str(_need(experiment, "experiment_id"))

    def _find_experiment(self, name: str, namespace: str) -> dict[str, Any] | None:
        experiments = self._named("/experiments", name, namespace).get("experiments") or []
        return dict(experiments[0]) if experiments else None

    def _named(self, path: str, name: str, namespace: str) -> dict[str, Any]:
        predicate = {"operation": "EQUALS", "key": "name", "string_value": name}
        query = {"filter": json.dumps({"predicates": [predicate]}), "page_size": "100"}
        if namespace:
            query["namespace"] = namespace
        return self._send("GET", f"{path}?{urlencode(query)}")

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        missing_is_empty: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            except OSError as error:
                raise UsageError(f"Can't read {self._token_file}: {error.strerror}.") from error
        url = f"{self._address}{_ROOT}{path}"
        response = self._request(method, url, body, headers, timeout_seconds)
        status = response.status
        if status == 404 and missing_is_empty:
            return {}
        if 300 <= status < 400:
            reason = "it redirects, perhaps to a login page: check the address and the token"
            raise KubeflowError(f"Kubeflow responded with {status}: {reason}.", status)
        content = response.json() if response.body else {}
        if not 200 <= status < 300:
            reason = _reason(content, response.body)
            # Every error of the API server is a google.rpc.Status, with a code.
            from_server = isinstance(content, dict) and isinstance(content.get("code"), int)
            raise KubeflowError(
                f"Kubeflow responded with {status}: {reason}.", status, from_server=from_server
            )
        if not isinstance(content, dict):
            raise KubeflowError(f"Kubeflow responded with {status} without JSON.", status)
        return content

    def _request(
        self,
        method: str,
        url: str,
        body: Any,
        headers: Mapping[str, str],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Response:
        content = None if body is None else json.dumps(body).encode()
        try:
            return self._http.request(method, url, timeout_seconds, headers=headers, body=content)
        except NoResponse as error:
            raise KubeflowError(f"Kubeflow gave no response: {error.reason}.") from error
        except HttpError as error:
            raise KubeflowError(f"Kubeflow can't be used: {error}") from error


def _reason(content: Any, body: bytes) -> str:
    """Return the server's sentence in a response that is an error.

    A proxy in front of Kubeflow responds with plain text: "RBAC: access denied".
    """
    if isinstance(content, dict):
        text = str(content.get("message") or content.get("error") or "")
    else:
        text = body.decode(errors="replace")
        text = "" if text.lstrip().startswith("<") else text
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:300].rstrip(".") or "no reason"


def _need(content: Mapping[str, Any], key: str) -> Any:
    value = content.get(key)
    if not value:
        raise KubeflowError(f"Kubeflow's response has no {key}.")
    return value
