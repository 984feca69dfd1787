"""Bad requests over gRPC: a status with one sentence, and the server continues."""

import math

import grpc
import numpy as np
import pytest

from tests.serving.bundles import VERSION, rows_for
from tests.serving.running import TIMEOUT_SECONDS

pytestmark = pytest.mark.server

NAME = "reliability_detector"


def infer(pb, rows=None, name=NAME, **changes):
    inputs = rows_for(NAME, 1) if rows is None else rows
    tensor = {"name": "features", "datatype": "FP32", "shape": inputs.shape, **changes}
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(**tensor)
    request.raw_input_contents.append(inputs.tobytes())
    return request


def typed(pb, datatype="FP32", shape=(1, 6), **contents):
    request = pb.ModelInferRequest(model_name=NAME)
    tensor = request.inputs.add(name="features", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def spoiled(request, change):
    change(request)
    return request


def cells(value):
    return np.array([[value, 2, 3, 4, 5, 6]], np.float32)


GRPC = {
    "wrong shape": ("INVALID_ARGUMENT", lambda pb: infer(pb, shape=[1, 5])),
    "negative": ("INVALID_ARGUMENT", lambda pb: infer(pb, shape=[-1, 6])),
    "empty shape": ("INVALID_ARGUMENT", lambda pb: infer(pb, shape=[])),
    "too few bytes": ("INVALID_ARGUMENT", lambda pb: infer(pb, shape=[2, 6])),
    "odd bytes": (
        "INVALID_ARGUMENT",
        lambda pb: spoiled(infer(pb), lambda r: r.raw_input_contents.__setitem__(0, b"123")),
    ),
    "two inputs": ("INVALID_ARGUMENT", lambda pb: spoiled(infer(pb), lambda r: r.inputs.add())),
    "no inputs": ("INVALID_ARGUMENT", lambda pb: pb.ModelInferRequest(model_name=NAME)),
    "other input": (
        "INVALID_ARGUMENT",
        lambda pb: spoiled(infer(pb), lambda r: setattr(r.inputs[0], "name", "x")),
    ),
    "raw twice": (
        "INVALID_ARGUMENT",
        lambda pb: spoiled(infer(pb), lambda r: r.raw_input_contents.append(b"")),
    ),
    "raw and typed": (
        "INVALID_ARGUMENT",
        lambda pb: spoiled(infer(pb), lambda r: r.inputs[0].contents.fp32_contents.append(1)),
    ),
    "string": ("INVALID_ARGUMENT", lambda pb: typed(pb, "BYTES", bytes_contents=[b"1"] * 6)),
    "bool": ("INVALID_ARGUMENT", lambda pb: typed(pb, "BOOL", bool_contents=[True] * 6)),
    "raw int": ("INVALID_ARGUMENT", lambda pb: infer(pb, datatype="INT64")),
    "other field": ("INVALID_ARGUMENT", lambda pb: typed(pb, "FP64", fp32_contents=[1] * 6)),
    "NaN": ("INVALID_ARGUMENT", lambda pb: infer(pb, cells(math.nan))),
    "Infinity": ("INVALID_ARGUMENT", lambda pb: infer(pb, cells(-math.inf))),
    "1e300": ("INVALID_ARGUMENT", lambda pb: typed(pb, "FP64", fp64_contents=[1e300] * 6)),
    "typed NaN": ("INVALID_ARGUMENT", lambda pb: typed(pb, fp32_contents=[math.nan] * 6)),
    "empty list": ("INVALID_ARGUMENT", lambda pb: infer(pb, np.empty((0, 6), np.float32))),
    "5000 rows": ("RESOURCE_EXHAUSTED", lambda pb: infer(pb, rows_for(NAME, 5000))),
    "1e6 rows": ("RESOURCE_EXHAUSTED", lambda pb: infer(pb, shape=[1_000_000, 6])),
    "2^62 rows": ("RESOURCE_EXHAUSTED", lambda pb: infer(pb, shape=[2**62, 6])),
    "100 MB": ("RESOURCE_EXHAUSTED", lambda pb: infer(pb, np.ones((4_000_000, 6), np.float32))),
    "unknown model": ("NOT_FOUND", lambda pb: infer(pb, name="unknown")),
    "no model": ("NOT_FOUND", lambda pb: infer(pb, name="")),
    "wrong version": (
        "NOT_FOUND",
        lambda pb: spoiled(infer(pb), lambda r: setattr(r, "model_version", "1")),
    ),
    "unknown output": (
        "INVALID_ARGUMENT",
        lambda pb: spoiled(infer(pb), lambda r: r.outputs.add(name="x")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("case", GRPC)
def test_over_grpc(server, stub, pb, case, packed):
    code, make = GRPC[case]
    before = server.memory()
    with pytest.raises(grpc.RpcError) as rejected:
        stub.ModelInfer(make(pb), timeout=TIMEOUT_SECONDS, compression=packed)
    assert rejected.value.code() == getattr(grpc.StatusCode, code)
    text = rejected.value.details()
    assert "Traceback" not in text
    if case != "100 MB":  # gRPC's own sentence
        assert text.endswith(".")
    assert server.memory() - before < 150e6
    assert stub.ModelInfer(infer(pb), timeout=TIMEOUT_SECONDS).model_version == VERSION


@pytest.mark.parametrize("what", ["Load", "Unload"])
def test_loading_over_grpc(stub, pb, what):
    request = getattr(pb, f"RepositoryModel{what}Request")(model_name=NAME)
    with pytest.raises(grpc.RpcError) as rejected:
        getattr(stub, f"RepositoryModel{what}")(request, timeout=TIMEOUT_SECONDS)
    assert rejected.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert stub.ModelInfer(infer(pb), timeout=TIMEOUT_SECONDS).model_version == VERSION
