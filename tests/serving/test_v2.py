"""V2 over HTTP: named tensors, as JSON and as bytes."""

import json

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.tensors import rows_of_all
from dwcp_ml.serving.v2 import DATATYPES, V2
from tests.errors import about
from tests.serving.bundles import MODELS, VERSION, rows_for

NAME = "compression_selector"


def tensor(**changes):
    return {"name": "features", "datatype": "FP32", "shape": [1, 6], "data": [1, 2, 3, 4, 5, 6],
            **changes}  # fmt: skip


def decode(models, request, tail=b"", json_length=None, name=NAME):
    text = json.dumps(request).encode()
    length = len(text) if tail and json_length is None else json_length
    codec = V2(length)
    return rows_of_all([codec.decode(text + tail, models[name], Limits())], models[name].shape)


def encode(models, predicted, name=NAME, **selected):
    """Return the response to a request that selects these outputs, and the length of its JSON."""
    shape = [1, *models[name].shape]
    codec = V2(None)
    values = tensor(shape=shape, data=np.ones(shape).ravel().tolist())
    codec.decode(json.dumps({"inputs": [values], **selected}).encode(), models[name], Limits())
    request = PredictRequest(models[name], codec, b"", "made", None, None, print)
    rows = len(next(iter(predicted.values())))
    return codec.encode(codec.columns(predicted), 0, rows, request)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("nested", [False, True])
def test_json_holds_its_rows(models, name, nested):
    rows = rows_for(name, 2)
    data = rows.astype(float) if nested else rows.astype(float).ravel()
    request = {"inputs": [tensor(shape=list(rows.shape), data=data.tolist())]}
    np.testing.assert_array_equal(decode(models, request, name=name), rows)


def test_bytes_after_the_json_are_the_rows(models):
    rows = rows_for(NAME, 3)
    binary = tensor(shape=[3, 6], parameters={"binary_data_size": rows.nbytes})
    del binary["data"]
    got = decode(models, {"inputs": [binary]}, rows.tobytes())
    np.testing.assert_array_equal(got, rows)


@pytest.mark.parametrize(
    ("selected", "binary"),
    [
        ({}, []),
        ({"parameters": {"binary_data_output": True}}, ["compression_level", "probabilities"]),
        (
            {
                "outputs": [
                    {"name": "probabilities", "parameters": {"binary_data": True}},
                    {"name": "compression_level"},
                ]
            },
            ["probabilities"],
        ),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [
                    {"name": "compression_level", "parameters": {"binary_data": False}},
                    {"name": "probabilities"},
                ],
            },
            ["probabilities"],
        ),
    ],
)
def test_the_selected_outputs_are_returned(models, selected, binary):
    outputs = models[NAME].run(rows_for(NAME, 2))
    body, length = encode(models, outputs, **selected)
    received = json.loads(body[:length])["outputs"]
    names = [output["name"] for output in selected.get("outputs", [])] or list(outputs)
    assert [output["name"] for output in received] == names
    assert [output["name"] for output in received if "data" not in output] == binary


def deep(levels=900):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({}, (ErrorCode.WRONG_TYPE, "inputs")),
        ({"inputs": {}}, (ErrorCode.WRONG_TYPE, "inputs")),
        ({"inputs": []}, (ErrorCode.WRONG_TYPE, "inputs")),
        ({"inputs": [tensor(), tensor()]}, (ErrorCode.WRONG_TYPE, "inputs")),
        ({"inputs": [[]]}, (ErrorCode.WRONG_TYPE, "inputs")),
        ({"inputs": [tensor(name="other")]}, (ErrorCode.UNKNOWN_NAME, "input")),
        ({"inputs": [tensor(name=None)]}, (ErrorCode.UNKNOWN_NAME, "input")),
        ({"inputs": [tensor(datatype="BYTES")]}, (ErrorCode.WRONG_TYPE, "datatype")),
        ({"inputs": [tensor(datatype="BOOL")]}, (ErrorCode.WRONG_TYPE, "datatype")),
        ({"inputs": [tensor(datatype=None)]}, (ErrorCode.WRONG_TYPE, "datatype")),
        ({"inputs": [tensor(datatype=[])]}, (ErrorCode.WRONG_TYPE, "datatype")),
        ({"inputs": [tensor(datatype={})]}, (ErrorCode.WRONG_TYPE, "datatype")),
        ({"inputs": [tensor(shape=None)]}, (ErrorCode.WRONG_TYPE, "shape")),
        ({"inputs": [tensor(shape="16")]}, (ErrorCode.WRONG_TYPE, "shape")),
        ({"inputs": [tensor(shape=[1, 7])]}, (ErrorCode.WRONG_SHAPE, "shape")),
        ({"inputs": [tensor(shape=deep())]}, (ErrorCode.WRONG_SHAPE, "shape")),
        ({"inputs": [tensor(shape=[2, 6])]}, (ErrorCode.WRONG_SHAPE, "6 values")),
        ({"inputs": [tensor(data=None)]}, (ErrorCode.WRONG_TYPE, "data")),
        ({"inputs": [tensor(data=deep())]}, (ErrorCode.WRONG_SHAPE, "data")),
        ({"inputs": [tensor(data=["1"] * 6)]}, (ErrorCode.WRONG_TYPE, "feature")),
        ({"inputs": [tensor(parameters=3)]}, (ErrorCode.WRONG_TYPE, "parameters")),
        ({"inputs": [tensor(parameters={"binary_data_size": 24})]},
         (ErrorCode.WRONG_TYPE, "binary_data_size")),
        ({"inputs": [tensor()], "parameters": [1]}, (ErrorCode.WRONG_TYPE, "parameters")),
        ({"inputs": [tensor()], "id": 7}, (ErrorCode.WRONG_TYPE, "id")),
        ({"inputs": [tensor()], "id": "x" * 201}, (ErrorCode.WRONG_TYPE, "id")),
        ({"inputs": [tensor()], "outputs": 3}, (ErrorCode.WRONG_TYPE, "outputs")),
        ({"inputs": [tensor()], "outputs": ["x"]}, (ErrorCode.WRONG_TYPE, "outputs")),
        ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, (ErrorCode.UNKNOWN_NAME, "x")),
        ({"inputs": [tensor()], "outputs": [{}]}, (ErrorCode.UNKNOWN_NAME, "a NoneType")),
        ({"inputs": [tensor()], "outputs": [{"name": deep()}]}, (ErrorCode.UNKNOWN_NAME, "a list")),
        ({"inputs": [tensor()], "outputs": [{"name": "probabilities"}] * 2},
         (ErrorCode.AMBIGUOUS, "outputs")),
    ],
)  # fmt: skip
def test_invalid_requests_are_rejected(models, request_, fault):
    with pytest.raises(BadInput, check=about(*fault)):
        decode(models, request_)


def test_too_many_rows_are_too_large(models):
    with pytest.raises(TooLarge):
        decode(models, {"inputs": [tensor(shape=[5000, 6])]})


@pytest.mark.parametrize("size", [0, 23, 25, True, "24", None, [24], {}])
def test_a_wrong_size_of_bytes_is_rejected(models, size):
    binary = tensor(parameters={"binary_data_size": size})
    if size is not None:
        del binary["data"]
    code = ErrorCode.MISSING if size is None else ErrorCode.OUT_OF_RANGE
    with pytest.raises(BadInput, check=about(code, "binary_data_size")):
        decode(models, {"inputs": [binary]}, b"\0" * 24)


@pytest.mark.parametrize("json_length", [0, 10_000])
def test_a_json_length_outside_the_body_is_rejected(models, json_length):
    with pytest.raises(
        BadInput, check=about(ErrorCode.OUT_OF_RANGE, "Inference-Header-Content-Length")
    ):
        decode(models, {"inputs": [tensor()]}, b"", json_length)


def test_bytes_of_another_type_are_rejected(models):
    binary = tensor(datatype="INT64", parameters={"binary_data_size": 24})
    del binary["data"]
    with pytest.raises(BadInput, check=about(ErrorCode.WRONG_TYPE, "binary_data_size")):
        decode(models, {"inputs": [binary]}, b"\0" * 24)


@pytest.mark.parametrize("name", MODELS)
def test_a_json_response_holds_every_output(models, name):
    outputs = models[name].run(rows_for(name, 3))
    text, length = encode(models, outputs, name)
    assert length is None
    received = json.loads(text)
    assert (received["model_name"], received["model_version"], received["id"]) == (
        name,
        VERSION,
        "made",
    )
    for output in received["outputs"]:
        values = outputs[output["name"]]
        assert output["datatype"] == DATATYPES[values.dtype.name]
        assert output["shape"] == list(values.shape)
        np.testing.assert_array_equal(np.array(output["data"], values.dtype), values.ravel())


def test_a_binary_response_holds_the_requested_outputs_in_order(models):
    outputs = models[NAME].run(rows_for(NAME, 3))
    names = ("probabilities", "compression_level")
    body, length = encode(
        models,
        outputs,
        id="client-id",
        parameters={"binary_data_output": True},
        outputs=[{"name": name} for name in names],
    )
    received = json.loads(body[:length])
    assert received["id"] == "client-id"
    assert [output["name"] for output in received["outputs"]] == list(names)
    start = length
    for output in received["outputs"]:
        assert "data" not in output
        end = start + output["parameters"]["binary_data_size"]
        values = outputs[output["name"]]
        little = values.dtype.newbyteorder("<")
        got = np.frombuffer(body[start:end], little).reshape(output["shape"])
        np.testing.assert_array_equal(got, values)
        start = end
    assert start == len(body)


def test_a_part_of_the_response_may_be_bytes(models):
    outputs = models[NAME].run(rows_for(NAME, 1))
    selected = [
        {"name": "compression_level"},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    body, length = encode(models, outputs, outputs=selected)
    level, probabilities = json.loads(body[:length])["outputs"]
    assert level["data"] == outputs["compression_level"].tolist()
    assert probabilities["parameters"] == {"binary_data_size": 40}
    assert body[length:] == outputs["probabilities"].tobytes()
