"""The server's answers, on every path of every protocol, are those of the bare ONNX Runtime."""

import json

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from dwcp_ml.contract.bundle import ONNX_NAME
from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.running import LONGEST

pytestmark = pytest.mark.server

ROWS = (1, 3, 200)
"""Answered alone, and in the thread for large requests."""


@pytest.fixture(params=["server", "full_server"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def bare(model_dir):
    """Outputs by name of a model's file, run by a session that nothing of ours touched."""
    sessions = {
        name: ort.InferenceSession(
            str(model_dir / name / VERSION / ONNX_NAME), providers=["CPUExecutionProvider"]
        )
        for name in MODELS
    }

    def answers(name, rows):
        session = sessions[name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"features": rows}), strict=True))

    return answers


def same(told, expected):
    """Assert that outputs by name are equal to the last bit."""
    assert told.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(told[name], values.dtype), values)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", ["/v1/models/{}:predict", "/v1/models/{}/versions/{}:predict"])
def test_v1(either, bare, name, rows, path):
    asked = rows_for(name, rows)
    body = {"instances": asked.astype(float).tolist()}
    status, headers, content = either.post(path.format(name, VERSION), body)
    assert (status, headers["content-type"]) == (200, "application/json")
    predictions = json.loads(content)["predictions"]
    columns = {key: [one[key] for one in predictions] for key in predictions[0]}
    same(columns, bare(name, asked))


def infer(path, name):
    return path.format(name, VERSION)


PATHS = ["/v2/models/{}/infer", "/v2/models/{}/versions/{}/infer"]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_v2_json(either, bare, name, rows, path):
    asked = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(asked.shape),
              "data": asked.astype(float).ravel().tolist()}  # fmt: skip
    body = {"id": "mine", "inputs": [tensor]}
    status, _, content = either.post(infer(path, name), body)
    assert status == 200
    told = json.loads(content)
    assert (told["model_name"], told["model_version"], told["id"]) == (name, VERSION, "mine")
    outputs = {one["name"]: np.reshape(one["data"], one["shape"]) for one in told["outputs"]}
    same(outputs, bare(name, asked))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("path", PATHS)
def test_v2_bytes(either, bare, name, rows, path):
    asked = rows_for(name, rows)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(asked.shape),
              "parameters": {"binary_data_size": asked.nbytes}}  # fmt: skip
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(request).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    status, headers, content = either.post(infer(path, name), text + asked.tobytes(), length)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    start = int(headers["inference-header-content-length"])
    outputs = {}
    for one in json.loads(content[:start])["outputs"]:
        end = start + one["parameters"]["binary_data_size"]
        dtype = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[one["datatype"]]
        outputs[one["name"]] = np.frombuffer(content[start:end], dtype).reshape(one["shape"])
        start = end
    assert start == len(content)
    same(outputs, bare(name, asked))


def read_raw(response):
    outputs = {}
    for one, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        dtype = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[one.datatype]
        outputs[one.name] = np.frombuffer(raw, dtype).reshape(list(one.shape))
    return outputs


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("version", ["", VERSION])
def test_grpc_raw(stub, pb, bare, name, rows, version):
    asked = rows_for(name, rows)
    request = pb.ModelInferRequest(model_name=name, model_version=version, id="mine")
    request.inputs.add(name="features", datatype="FP32", shape=asked.shape)
    request.raw_input_contents.append(asked.tobytes())
    response = stub.ModelInfer(request, timeout=LONGEST)
    told = (response.model_name, response.model_version, response.id)
    assert told == (name, VERSION, "mine")
    same(read_raw(response), bare(name, asked))


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
    asked = np.abs(np.round(rows_for(name, 3)))
    cells = asked.ravel().tolist()
    request = pb.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="features", datatype=datatype, shape=asked.shape)
    getattr(tensor.contents, field).extend(cells if "fp" in field else map(int, cells))
    same(read_raw(stub.ModelInfer(request, timeout=LONGEST)), bare(name, asked))


def test_only_the_outputs_asked_for_come_back(either, stub, pb):
    name = "compression_selector"
    asked = rows_for(name, 1)
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6],
              "data": asked.astype(float).ravel().tolist()}  # fmt: skip
    body = {"inputs": [tensor], "outputs": [{"name": "probabilities"}]}
    _, _, content = either.post(f"/v2/models/{name}/infer", body)
    assert [one["name"] for one in json.loads(content)["outputs"]] == ["probabilities"]
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    request.outputs.add(name="probabilities")
    request.raw_input_contents.append(asked.tobytes())
    response = stub.ModelInfer(request, timeout=LONGEST)
    assert [one.name for one in response.outputs] == ["probabilities"]


def test_grpc_tells_what_it_serves(stub, pb):
    assert stub.ServerLive(pb.ServerLiveRequest(), timeout=LONGEST).live
    assert stub.ServerReady(pb.ServerReadyRequest(), timeout=LONGEST).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=LONGEST).name
    for name in MODELS:
        assert stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=LONGEST).ready
        told = stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=LONGEST)
        assert list(told.versions) == [VERSION]
        assert list(told.inputs[0].shape) == [-1, *MODELS[name].input.shape]
    for ask, request in (
        (stub.ModelReady, pb.ModelReadyRequest(name="x")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="x")),
        (stub.ModelReady, pb.ModelReadyRequest(name=name, version="1")),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            ask(request, timeout=LONGEST)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_request_id_is_the_clients_or_made(server, stub, pb):
    name = "reliability_detector"
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 6])
    request.raw_input_contents.append(rows_for(name, 1).tobytes())
    _, call = stub.ModelInfer.with_call(
        request, timeout=LONGEST, metadata=(("x-request-id", "mine"),)
    )
    assert dict(call.trailing_metadata())["x-request-id"] == "mine"
    response, call = stub.ModelInfer.with_call(request, timeout=LONGEST)
    made = dict(call.trailing_metadata())["x-request-id"]
    assert len(made) == 32
    assert response.id == made
