"""The server returns the predictions of a bare ONNX Runtime on every path of every protocol."""

import json

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from dwcp_ml.contract.bundle import ONNX_NAME
from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.running import TIMEOUT_SECONDS

pytestmark = pytest.mark.server

ROWS = (1, 3, 200)
"""Sizes that run on the event loop, and in the thread for large requests."""


@pytest.fixture(scope="module")
def bare(model_dir):
    """Outputs by name of a model's file, run by a separate session."""
    sessions = {
        name: ort.InferenceSession(
            str(model_dir / name / VERSION / ONNX_NAME), providers=["CPUExecutionProvider"]
        )
        for name in MODELS
    }

    def predictions(name, rows):
        session = sessions[name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"features": rows}), strict=True))

    return predictions


def same(received, expected):
    """Assert that outputs by name are equal to the last bit."""
    assert received.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(received[name], values.dtype), values)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", ["/v1/models/{}:predict", "/v1/models/{}/versions/{}:predict"])
def test_v1(server, bare, name, rows, path):
    inputs = rows_for(name, rows)
    body = {"instances": inputs.astype(float).tolist()}
    status, headers, content = server.post(path.format(name, VERSION), body)
    assert (status, headers["content-type"]) == (200, "application/json")
    predictions = json.loads(content)["predictions"]
    columns = {key: [row[key] for row in predictions] for key in predictions[0]}
    same(columns, bare(name, inputs))


def infer(path, name):
    return path.format(name, VERSION)


PATHS = ["/v2/models/{}/infer", "/v2/models/{}/versions/{}/infer"]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_v2_json(server, bare, name, rows, path):
    inputs = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(inputs.shape),
              "data": inputs.astype(float).ravel().tolist()}  # fmt: skip
    body = {"id": "client-id", "inputs": [tensor]}
    status, _, content = server.post(infer(path, name), body)
    assert status == 200
    received = json.loads(content)
    assert (received["model_name"], received["model_version"], received["id"]) == (
        name,
        VERSION,
        "client-id",
    )
    outputs = {
        output["name"]: np.reshape(output["data"], output["shape"])
        for output in received["outputs"]
    }
    same(outputs, bare(name, inputs))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_v2_bytes(server, bare, name, rows, path):
    inputs = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(inputs.shape),
              "parameters": {"binary_data_size": inputs.nbytes}}  # fmt: skip
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(request).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    status, headers, content = server.post(infer(path, name), text + inputs.tobytes(), length)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    start = int(headers["inference-header-content-length"])
    outputs = {}
    for output in json.loads(content[:start])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        dtype = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[output["datatype"]]
        outputs[output["name"]] = np.frombuffer(content[start:end], dtype).reshape(output["shape"])
        start = end
    assert start == len(content)
    same(outputs, bare(name, inputs))


def read_raw(response):
    outputs = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[output.datatype]
        outputs[output.name] = np.frombuffer(raw, dtype).reshape(list(output.shape))
    return outputs


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("version", ["", VERSION])
def test_grpc_raw(stub, pb, bare, name, rows, version):
    inputs = rows_for(name, rows)
    request = pb.ModelInferRequest(model_name=name, model_version=version, id="client-id")
    request.inputs.add(name="features", datatype="FP32", shape=inputs.shape)
    request.raw_input_contents.append(inputs.tobytes())
    response = stub.ModelInfer(request, timeout=TIMEOUT_SECONDS)
    received = (response.model_name, response.model_version, response.id)
    assert received == (name, VERSION, "client-id")
    same(read_raw(response), bare(name, inputs))


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("FP32", "fp32_contents"), ("FP64", "fp64_contents"), ("INT64", "int64_contents"),
        ("INT32", "int_contents"), ("INT16", "int_contents"), ("INT8", "int_contents"),
        ("UINT64", "uint64_contents"), ("UINT32", "uint_contents"), ("UINT8", "uint_contents"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_grpc_typed(stub, pb, bare, name, datatype, field):
    inputs = np.abs(np.round(rows_for(name, 3)))
    cells = inputs.ravel().tolist()
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="features", datatype=datatype, shape=inputs.shape)
    getattr(tensor.contents, field).extend(cells if "fp" in field else map(int, cells))
    same(read_raw(stub.ModelInfer(request, timeout=TIMEOUT_SECONDS)), bare(name, inputs))


def test_only_the_requested_outputs_are_returned(server, stub, pb):
    name = "compression_selector"
    inputs = rows_for(name, 1)
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6],
              "data": inputs.astype(float).ravel().tolist()}  # fmt: skip
    body = {"inputs": [tensor], "outputs": [{"name": "probabilities"}]}
    _, _, content = server.post(f"/v2/models/{name}/infer", body)
    assert [output["name"] for output in json.loads(content)["outputs"]] == ["probabilities"]
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    request.outputs.add(name="probabilities")
    request.raw_input_contents.append(inputs.tobytes())
    response = stub.ModelInfer(request, timeout=TIMEOUT_SECONDS)
    assert [output.name for output in response.outputs] == ["probabilities"]


def test_grpc_describes_the_served_models(stub, pb):
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT_SECONDS).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT_SECONDS).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT_SECONDS).name
    for name in MODELS:
        assert stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=TIMEOUT_SECONDS).ready
        received = stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=TIMEOUT_SECONDS)
        assert list(received.versions) == [VERSION]
        assert list(received.inputs[0].shape) == [-1, *MODELS[name].input.shape]
    for call, request in (
        (stub.ModelReady, pb.ModelReadyRequest(name="x")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="x")),
        (stub.ModelReady, pb.ModelReadyRequest(name=name, version="1")),
    ):
        with pytest.raises(grpc.RpcError) as rejected:
            call(request, timeout=TIMEOUT_SECONDS)
        assert rejected.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_request_id_is_the_clients_or_generated(server, stub, pb):
    name = "reliability_detector"
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    request.raw_input_contents.append(rows_for(name, 1).tobytes())
    _, call = stub.ModelInfer.with_call(
        request, timeout=TIMEOUT_SECONDS, metadata=(("x-request-id", "client-id"),)
    )
    assert dict(call.trailing_metadata())["x-request-id"] == "client-id"
    response, call = stub.ModelInfer.with_call(request, timeout=TIMEOUT_SECONDS)
    made = dict(call.trailing_metadata())["x-request-id"]
    assert len(made) == 32
    assert response.id == made
