"""A client of Kubeflow Pipelines' REST API v2beta1: submit a run, read its state, terminate it.

``kfp.Client`` does the same, but its dependencies are too large for the operator. It also never
reads the token again, stops waiting at the first lost connection, and does not know that a
cancelled run has ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.http_client import HttpError, HttpSession, NoResponse, Response
from dwcp_ml.kubeflow.run_state import RunState, TaskState, state_of

__all__ = ["KubeflowApi", "KubeflowError", "RunRequest", "RunState", "TaskState"]

TIMEOUT_SECONDS: Final = 15.0
MAX_BYTES: Final = 16_000_000
_ROOT: Final = "/apis/v2beta1"


class KubeflowError(DwcpError):
    """Kubeflow gave no response, or an error; whether the request took effect is unknown.

    Parameters
    ----------
    status
        HTTP status of the response; ``None`` if there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(
            message,
            code=ErrorCode.NO_RESPONSE if status is None else ErrorCode.STATUS,
            subject=status or "",
        )
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether a retry can help: there was no response, or the server is busy or broken."""
        return self.status is None or self.status in (408, 429) or self.status >= 500


@dataclass(frozen=True)
class RunRequest:
    """A run to submit.

    Parameters
    ----------
    name
        Unique: a run is found by it if the response to its submission is lost.
    experiment, namespace
        Of the run; the namespace is empty for a single-user Kubeflow.
    pipeline_root, service_account
        Empty for Kubeflow's defaults.
    """

    name: str
    experiment: str
    namespace: str
    pipeline: Mapping[str, Any]
    arguments: Mapping[str, Any]
    pipeline_root: str = ""
    service_account: str = ""


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

    def submit(self, request: RunRequest) -> str:
        """Submit a run; return its id."""
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
        return str(_need(self._send("POST", "/runs", body), "run_id"))

    def find(self, name: str, namespace: str) -> str:
        """Return the id of the run of this name; empty if there is none."""
        runs = self._named("/runs", name, namespace).get("runs") or []
        return str(runs[0].get("run_id", "")) if runs else ""

    def run(self, run_id: str) -> RunState | None:
        """Return the state of a run; ``None`` if there is no such run."""
        run = self._send("GET", f"/runs/{quote(run_id, safe='')}", missing_is_empty=True)
        return state_of(run) if run else None

    def terminate(self, run_id: str) -> None:
        """Terminate a run; no effect on a run that has ended."""
        self._send("POST", f"/runs/{quote(run_id, safe='')}:terminate", {})

    def artifact(self, artifact_id: str) -> bytes:
        """Return the content of an artifact."""
        artifact = self._send("GET", f"/artifacts/{quote(artifact_id, safe='')}?view=DOWNLOAD")
        # The URL is signed: the token is not sent there.
        return self._request("GET", str(_need(artifact, "download_url")), None, {}).body

    def _experiment(self, name: str, namespace: str) -> str:
        experiments = self._named("/experiments", name, namespace).get("experiments") or []
        if experiments:
            return str(_need(experiments[0], "experiment_id"))
        body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
        return str(_need(self._send("POST", "/experiments", body), "experiment_id"))

    def _named(self, path: str, name: str, namespace: str) -> dict[str, Any]:
        predicate = {"operation": "EQUALS", "key": "name", "string_value": name}
        query = {"filter": json.dumps({"predicates": [predicate]}), "page_size": "1"}
        if namespace:
            query["namespace"] = namespace
        return self._send("GET", f"{path}?{urlencode(query)}")

    def _send(
        self, method: str, path: str, body: Any = None, *, missing_is_empty: bool = False
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token_file is not None:
            try:
                headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
            except OSError as error:
                raise UsageError(f"Can't read {self._token_file}: {error.strerror}.") from error
        response = self._request(method, f"{self._address}{_ROOT}{path}", body, headers)
        status = response.status
        if status == 404 and missing_is_empty:
            return {}
        if 300 <= status < 400:
            reason = "it redirects, perhaps to a login page: check the address and the token"
            raise KubeflowError(f"Kubeflow responded with {status}: {reason}.", status)
        content = response.json() if response.body else {}
        if not 200 <= status < 300:
            reason = _reason(content, response.body)
            raise KubeflowError(f"Kubeflow responded with {status}: {reason}.", status)
        if not isinstance(content, dict):
            raise KubeflowError(f"Kubeflow responded with {status} without JSON.", status)
        return content

    def _request(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Response:
        content = None if body is None else json.dumps(body).encode()
        try:
            return self._http.request(method, url, TIMEOUT_SECONDS, headers=headers, body=content)
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
