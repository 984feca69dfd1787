"""Compare a running server with the contract: names, shapes, types, ranges, error codes.

The reference is the contract's signature of each model, and the bundle's ONNX graph run in this
process. The server is called over every protocol that it offers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import TensorRecord
from dwcp_ml.contract.checks import Check
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.export.probes import probe_inputs
from dwcp_ml.serving.client import HttpClient, Predictions
from dwcp_ml.serving.grpc_client import GrpcClient
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.v2 import DATATYPES

TOLERANCE: Final = 1e-5
"""Maximum relative difference of a prediction: |a - b| <= tolerance * max(1, |a|)."""

ROWS: Final = 64
_KINDS: Final = {"float32": "f", "int64": "iu", "bool": "b"}
_DECISIONS: Final = ("int64", "bool")


def check_endpoint(
    models: Mapping[str, ServedModel], http: HttpClient, grpc: GrpcClient | None
) -> Iterator[Check]:
    """Yield every check of a server that should be serving ``models``."""
    for model in models.values():
        yield _checked(f"{model.name}: signature in the bundle", lambda m=model: signature_fault(m))
        yield _checked(f"{model.name}: V2 metadata", lambda m=model: _metadata(m, http))
        rows = probe_inputs(model_spec(model.name), _no_rows(model), n=ROWS)
        expected = model.run(rows)
        calls = {"V1": http.predict, "V2 over HTTP": http.infer}
        if grpc is not None:
            calls["V2 over gRPC"] = grpc.infer
        for protocol, call in calls.items():
            yield _checked(
                f"{model.name}: {protocol} predictions",
                lambda m=model, c=call, r=rows, e=expected: _predictions(m, c(m.name, r), e),
            )
        yield from _rejections(model, http, grpc)
    yield _checked("unknown model is 404", lambda: _unknown(http))
    yield _checked("request id is kept", lambda: _request_id(next(iter(models.values())), http))
    yield _checked("metrics of the contract", lambda: _metrics(models, http))


def _checked(name: str, find_fault: Any) -> Check:
    try:
        fault = find_fault()
    except DwcpError as error:
        fault = str(error)
    return Check(name=name, passed=not fault, detail=fault or "")


def signature_fault(model: ServedModel) -> str:
    """Return what of a model's manifest is not as its contract says; empty if all is.

    Raises
    ------
    UsageError
        If there is no such model, or it has no such form.
    """
    spec = model_spec(model.name)
    form = spec.form(model.manifest.form)
    if model.input != TensorRecord.of(spec.input):
        return f"The input is {model.input}, the contract says {spec.input}."
    if model.outputs != tuple(TensorRecord.of(tensor) for tensor in form.outputs):
        return "The outputs are not those of the contract."
    if model.manifest.feature_order != spec.features:
        return f"The features are {model.manifest.feature_order}, not {spec.features}."
    return ""


def _metadata(model: ServedModel, http: HttpClient) -> str:
    response = http.send("GET", f"/v2/models/{model.name}")
    content = response.json()
    if response.status != 200 or not isinstance(content, dict):
        return f"{response.status} {response.body[:200]!r}."
    for kind, tensors in (("inputs", (model.input,)), ("outputs", model.outputs)):
        actual = {
            item["name"]: (item["datatype"], item["shape"]) for item in content.get(kind) or ()
        }
        expected = {item.name: (DATATYPES[item.dtype], [-1, *item.shape]) for item in tensors}
        if actual != expected:
            return f"The {kind} are {actual}, the contract says {expected}."
    return ""


def _predictions(model: ServedModel, actual: Predictions, expected: Predictions) -> str:
    if list(actual) != [output.name for output in model.outputs]:
        return f"The outputs are {list(actual)}."
    for output in model.outputs:
        fault = _one_output(output, actual[output.name], expected[output.name])
        if fault:
            return f"{output.name} {fault}"
    return ""


def _one_output(output: TensorRecord, values: NDArray[Any], expected: NDArray[Any]) -> str:
    if values.shape != expected.shape:
        return f"has shape {values.shape}, not {expected.shape}."
    if values.dtype.kind not in _KINDS[output.dtype]:
        return f"is of type {values.dtype}, not {output.dtype}."
    if output.dtype in _DECISIONS:
        wrong = int((values != expected).sum())
        return f"decides {wrong} of {len(values)} rows otherwise than the graph." if wrong else ""
    if not np.isfinite(values).all():
        return "is not finite."
    low, high = output.minimum, output.maximum
    if (low is not None and values.min() < low) or (high is not None and values.max() > high):
        unit = f" {output.unit}" if output.unit else ""
        return f"is between {values.min():g} and {values.max():g}{unit}, outside {low} to {high}."
    worst = float((np.abs(values - expected) / np.maximum(1.0, np.abs(expected))).max())
    return f"differs from the graph's by {worst:.1e}." if worst > TOLERANCE else ""


def _rejections(model: ServedModel, http: HttpClient, grpc: GrpcClient | None) -> Iterator[Check]:
    good = np.ones((1, *model.shape), np.float32)
    narrow = good[..., :-1]
    text = json.dumps({"instances": good.tolist()})
    bodies = {
        "wrong shape": json.dumps({"instances": narrow.tolist()}),
        "text for a number": text.replace("1.0", '"1.0"', 1),
        "NaN": text.replace("1.0", "NaN", 1),
        "no instance": '{"instances": []}',
        "no JSON": text[:-1],
    }
    path = f"/v1/models/{model.name}"
    for what, body in bodies.items():
        yield _checked(
            f"{model.name}: {what} is 400",
            lambda b=body: _status(http, f"{path}:predict", b, 400),
        )
    wrong = f"{path}/versions/0:predict"
    yield _checked(f"{model.name}: wrong version is 404", lambda: _status(http, wrong, text, 404))
    if grpc is not None:
        for what, rows, version, status in (
            ("wrong shape", narrow, "", "INVALID_ARGUMENT"),
            ("NaN", good * np.nan, "", "INVALID_ARGUMENT"),
            ("wrong version", good, "0", "NOT_FOUND"),
        ):
            yield _checked(
                f"{model.name}: {what} is {status} over gRPC",
                lambda r=rows, v=version, s=status: _grpc_status(grpc, model.name, r, v, s),
            )


def _status(http: HttpClient, path: str, body: str, expected: int) -> str:
    response = http.send("POST", path, body.encode())
    if response.status != expected:
        return f"The response is {response.status} {response.body[:120]!r}."
    content = response.json()
    if not isinstance(content, dict) or not isinstance(content.get("error"), str):
        return f"The response has no 'error': {response.body[:120]!r}."
    return ""


def _grpc_status(
    grpc: GrpcClient, model: str, rows: NDArray[np.float32], version: str, expected: str
) -> str:
    actual = grpc.status_of(model, rows, version)
    return "" if actual == expected else f"The status is {actual}."


def _unknown(http: HttpClient) -> str:
    return _status(http, "/v1/models/no_such_model:predict", '{"instances": [[1]]}', 404)


def _request_id(model: ServedModel, http: HttpClient) -> str:
    body = json.dumps({"instances": np.ones((1, *model.shape)).tolist()}).encode()
    path = f"/v1/models/{model.name}:predict"
    returned = http.send("POST", path, body, {"X-Request-Id": "check-1"}).headers.get(
        "x-request-id"
    )
    generated = http.send("POST", path, body).headers.get("x-request-id")
    if returned != "check-1":
        return f"The id check-1 came back as {returned}."
    return "" if generated else "No id is generated where none is given."


def _metrics(models: Mapping[str, ServedModel], http: HttpClient) -> str:
    text = http.send("GET", "/metrics").body.decode()
    for model in models.values():
        labels = f'model="{model.name}",version="{model.version}"'
        for series in (
            f'dwcp_model_info{{contract="{model.contract}",digest="{model.digest}",{labels}}} 1.0',
            f'dwcp_requests_total{{code="200",{labels}}}',
            f'dwcp_request_seconds_bucket{{le="0.01",{labels}}}',
        ):
            if series not in text:
                return f"/metrics has no {series}."
    return ""


def _no_rows(model: ServedModel) -> NDArray[np.float32]:
    return np.empty((0, *model.shape), np.float32)
