"""V2 over HTTP: named tensors, as JSON and as bytes."""

import json

import numpy as np
import pytest

from dwcp_ml.serving import v2
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge
from tests.serving.bundles import MODELS, VERSION, rows_for

NAME = "compression_selector"


def tensor(**changes):
    return {"name": "features", "datatype": "FP32", "shape": [1, 6], "data": [1, 2, 3, 4, 5, 6],
            **changes}  # fmt: skip


def decode(models, request, tail=b"", json_length=None):
    text = json.dumps(request).encode()
    length = len(text) if tail and json_length is None else json_length
    return v2.decode(text + tail, length, models[NAME], Limits())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("nested", [False, True])
def test_json_holds_its_rows(models, name, nested):
    rows = rows_for(name, 2)
    data = rows.astype(float) if nested else rows.astype(float).ravel()
    request = {"inputs": [tensor(shape=list(rows.shape), data=data.tolist())]}
    got, requested = v2.decode(json.dumps(request).encode(), None, models[name], Limits())
    np.testing.assert_array_equal(got, rows)
    assert requested == v2.RequestedOutputs()


def test_bytes_after_the_json_are_the_rows(models):
    rows = rows_for(NAME, 3)
    binary = tensor(shape=[3, 6], parameters={"binary_data_size": rows.nbytes})
    del binary["data"]
    got, _ = decode(models, {"inputs": [binary]}, rows.tobytes())
    np.testing.assert_array_equal(got, rows)


def test_the_selected_outputs_are_read(models):
    request = {
        "id": "client-id",
        "inputs": [tensor()],
        "outputs": [
            {"name": "probabilities", "parameters": {"binary_data": True}},
            {"name": "compression_level"},
        ],
    }
    _, requested = decode(models, request)
    names = ("probabilities", "compression_level")
    assert requested == v2.RequestedOutputs("client-id", names, frozenset({"probabilities"}))
    every = {"inputs": [tensor()], "parameters": {"binary_data_output": True}}
    assert decode(models, every)[1].binary == {"compression_level", "probabilities"}
    but_one = every | {
        "outputs": [
            {"name": "compression_level", "parameters": {"binary_data": False}},
            {"name": "probabilities"},
        ]
    }
    assert decode(models, but_one)[1].binary == {"probabilities"}


def deep(levels=900):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "'inputs' must be a list of one tensor, 'features'"),
        ({"inputs": {}}, "'inputs' must be a list"),
        ({"inputs": []}, "'inputs' must be a list"),
        ({"inputs": [tensor(), tensor()]}, "'inputs' must be a list of one"),
        ({"inputs": [[]]}, "'inputs' must be a list"),
        ({"inputs": [tensor(name="other")]}, "has one input, 'features'"),
        ({"inputs": [tensor(name=None)]}, "has one input"),
        ({"inputs": [tensor(datatype="BYTES")]}, "'datatype' must be FP32"),
        ({"inputs": [tensor(datatype="BOOL")]}, "'datatype' must be"),
        ({"inputs": [tensor(datatype=None)]}, "'datatype' must be"),
        ({"inputs": [tensor(datatype=[])]}, "'datatype' must be"),
        ({"inputs": [tensor(datatype={})]}, "'datatype' must be"),
        ({"inputs": [tensor(shape=None)]}, "'shape' must be a list"),
        ({"inputs": [tensor(shape="16")]}, "'shape' must be a list"),
        ({"inputs": [tensor(shape=[1, 7])]}, "'shape' must be \\[n, 6\\], not \\[1, 7\\]"),
        ({"inputs": [tensor(shape=deep())]}, "'shape' must be \\[n, 6\\], not \\[\\?\\]"),
        ({"inputs": [tensor(shape=[2, 6])]}, "requires 12 values"),
        ({"inputs": [tensor(data=None)]}, "'data' must be a list"),
        ({"inputs": [tensor(data=deep())]}, "'data' must be flat"),
        ({"inputs": [tensor(data=["1"] * 6)]}, "must be a number"),
        ({"inputs": [tensor(parameters=3)]}, "'parameters' must be an object"),
        ({"inputs": [tensor(parameters={"binary_data_size": 24})]}, "have no 'data'"),
        ({"inputs": [tensor()], "parameters": [1]}, "'parameters' must be an object"),
        ({"inputs": [tensor()], "id": 7}, "'id' must be a string"),
        ({"inputs": [tensor()], "id": "x" * 201}, "'id' must be a string"),
        ({"inputs": [tensor()], "outputs": 3}, "'outputs' must be a list"),
        ({"inputs": [tensor()], "outputs": ["x"]}, "'outputs' must be a list"),
        ({"inputs": [tensor()], "outputs": [{"name": "x"}]}, "has no output 'x': compression_l"),
        ({"inputs": [tensor()], "outputs": [{}]}, "has no output 'a NoneType'"),
        ({"inputs": [tensor()], "outputs": [{"name": deep()}]}, "has no output 'a list'"),
        ({"inputs": [tensor()], "outputs": [{"name": "probabilities"}] * 2}, "requested twice"),
    ],
)  # fmt: skip
def test_invalid_requests_are_rejected(models, request_, message):
    with pytest.raises(BadInput, match=message):
        decode(models, request_)


def test_too_many_rows_are_too_large(models):
    with pytest.raises(TooLarge):
        decode(models, {"inputs": [tensor(shape=[5000, 6])]})


@pytest.mark.parametrize("size", [0, 23, 25, True, "24", None, [24], {}])
def test_a_wrong_size_of_bytes_is_rejected(models, size):
    binary = tensor(parameters={"binary_data_size": size})
    if size is not None:
        del binary["data"]
    with pytest.raises(BadInput, match="binary_data_size"):
        decode(models, {"inputs": [binary]}, b"\0" * 24)


@pytest.mark.parametrize("json_length", [0, 10_000])
def test_a_json_length_outside_the_body_is_rejected(models, json_length):
    with pytest.raises(BadInput, match="not within the body"):
        decode(models, {"inputs": [tensor()]}, b"", json_length)


def test_bytes_of_another_type_are_rejected(models):
    binary = tensor(datatype="INT64", parameters={"binary_data_size": 24})
    del binary["data"]
    with pytest.raises(BadInput, match="must be FP32"):
        decode(models, {"inputs": [binary]}, b"\0" * 24)


@pytest.mark.parametrize("name", MODELS)
def test_a_json_response_holds_every_output(models, name):
    outputs = models[name].run(rows_for(name, 3))
    text, length = v2.encode(outputs, models[name], v2.RequestedOutputs(), "made")
    assert length is None
    received = json.loads(text)
    assert (received["model_name"], received["model_version"], received["id"]) == (
        name,
        VERSION,
        "made",
    )
    for output in received["outputs"]:
        values = outputs[output["name"]]
        assert output["datatype"] == v2.DATATYPES[values.dtype.name]
        assert output["shape"] == list(values.shape)
        np.testing.assert_array_equal(np.array(output["data"], values.dtype), values.ravel())


def test_a_binary_response_holds_the_requested_outputs_in_order(models):
    outputs = models[NAME].run(rows_for(NAME, 3))
    names = ("probabilities", "compression_level")
    requested = v2.RequestedOutputs("client-id", names, frozenset(names))
    body, length = v2.encode(outputs, models[NAME], requested, "made")
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
    requested = v2.RequestedOutputs(binary=frozenset({"probabilities"}))
    body, length = v2.encode(outputs, models[NAME], requested, "made")
    level, probabilities = json.loads(body[:length])["outputs"]
    assert level["data"] == outputs["compression_level"].tolist()
    assert probabilities["parameters"] == {"binary_data_size": 40}
    assert body[length:] == outputs["probabilities"].tobytes()
