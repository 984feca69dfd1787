"""JSON to and from an API server, without a class for each kind of object."""

import json

import urllib3

_SECONDS = 30.0

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class RequestRejected(Exception):
    """The API server said no.

    Attributes
    ----------
    status
        The HTTP status.
    """

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Rest:
    """Requests with the address and the credentials of a ``kubernetes.client.ApiClient``."""

    def __init__(self, api):
        self._api = api
        self._host = api.configuration.host.rstrip("/")

    def stream(self, path, seconds=_SECONDS):
        """Return the open answer to a GET; the caller closes it."""
        return self._send("GET", path, None, None, seconds, stream=True)

    def request(self, method, path, body=None, content_type="application/json"):
        """Return the answer as a dictionary, or as text where it is not JSON.

        Raises
        ------
        RequestRejected
            If the status is not 2xx.
        """
        answer = self._send(method, path, body, content_type, _SECONDS, stream=False)
        return _content(answer.data)

    def get(self, path):
        return self.request("GET", path)

    def find(self, path):
        """Return the object, or None where there is none."""
        try:
            return self.get(path)
        except RequestRejected as error:
            if error.status == 404:
                return None
            raise

    def create(self, path, body):
        return self.request("POST", path, body)

    def merge(self, path, body):
        return self.request("PATCH", path, body, MERGE)

    def put(self, path, body):
        return self.request("PUT", path, body)

    def apply(self, path, body, manager="dwcp-ml-tests"):
        """Apply on the server's side: no annotation to outgrow, and no read before."""
        return self.request("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)

    def delete(self, path):
        """Delete an object that may be gone already."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background"})
        except RequestRejected as error:
            if error.status != 404:
                raise

    def _send(self, method, path, body, content_type, seconds, stream):
        headers = {"Accept": "application/json", **self._api.default_headers}
        if body is not None:
            headers["Content-Type"] = content_type
        self._api.update_params_for_auth(headers, [], ["BearerToken"])
        answer = self._api.rest_client.pool_manager.request(
            method,
            self._host + path,
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=urllib3.Timeout(connect=5.0, read=seconds),
            retries=False,
            preload_content=not stream,
        )
        if answer.status >= 300:
            said = _content(answer.data)
            answer.close()
            message = said.get("message", said) if isinstance(said, dict) else said
            raise RequestRejected(answer.status, message)
        return answer


def _content(data):
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")
