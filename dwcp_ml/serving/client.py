"""A small Python client of the server's protocols over HTTP, for checks, tests and the operator.

One connection and no retries, so that it shows what the server returns. Applications use the Go
client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.http_client import HttpSession, Response

DTYPES: Final = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}

Predictions = dict[str, NDArray[Any]]
"""Outputs by name, each of shape (n, *shape)."""


class ResponseRefused(DwcpError):
    """The server responded, and not with predictions.

    Parameters
    ----------
    status
        The HTTP status; 200 for a body that holds no predictions.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class HttpClient:
    """V1 and V2 over HTTP.

    Parameters
    ----------
    address
        ``http://host:port``, or ``host:port``.
    timeout_seconds
        For each request.
    """

    def __init__(self, address: str, timeout_seconds: float = 10.0) -> None:
        self._address = address if "//" in address else f"http://{address}"
        self._timeout_seconds = timeout_seconds
        self._http = HttpSession()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request; raises ``HttpError`` if there is no response."""
        return self._http.request(
            method, f"{self._address}{path}", self._timeout_seconds, headers=headers, body=body
        )

    def predict(self, model: str, rows: NDArray[np.float32]) -> Predictions:
        """Request predictions over V1, and return them as arrays.

        Raises
        ------
        DwcpError
            If the response is not a list of predictions.
        """
        body = json.dumps({"instances": rows.tolist()}).encode()
        response = self.send("POST", f"/v1/models/{model}:predict", body)
        content = response.json()
        if response.status != 200 or not isinstance(content, dict) or "predictions" not in content:
            raise DwcpError(f"{model} over V1: {response.status} {response.body[:200]!r}.")
        predictions = content["predictions"]
        return {key: np.array([row[key] for row in predictions]) for key in predictions[0]}

    def infer(
        self, model: str, rows: NDArray[np.float32], headers: Mapping[str, str] | None = None
    ) -> Predictions:
        """Request predictions over V2, and return them as arrays.

        Raises
        ------
        HttpError
            If there is no response.
        ResponseRefused
            If it is not a list of predictions.
        """
        tensor = {
            "name": "features",
            "datatype": "FP32",
            "shape": rows.shape,
            "data": rows.reshape(-1).tolist(),
        }
        body = json.dumps({"inputs": [tensor]}).encode()
        response = self.send("POST", f"/v2/models/{model}/infer", body, headers)
        content = response.json()
        text = f"{model} over V2: {response.status} {response.body[:200]!r}."
        if response.status != 200 or not isinstance(content, dict) or "outputs" not in content:
            raise ResponseRefused(text, response.status)
        try:
            return {
                str(output["name"]): np.array(output["data"], DTYPES[output["datatype"]]).reshape(
                    output["shape"]
                )
                for output in content["outputs"]
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:  # no tensors of V2
            raise ResponseRefused(text, response.status) from error
