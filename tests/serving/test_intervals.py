"""Prediction intervals are outputs that only who requests them gets."""

import json

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving import proto
from dwcp_ml.serving.grpc_codec import Grpc
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.v1 import V1
from dwcp_ml.serving.v2 import V2
from tests.errors import about
from tests.serving.bundles import HALF_WIDTH, rows_for

NAME = "bandwidth_predictor"
OUTPUT = "next_throughput_mbps"


@pytest.fixture
def outputs(models):
    return models[NAME].run(rows_for(NAME, 4))


def expected(values, sign):
    ends = (values.astype(float) + 1) * np.exp(sign * HALF_WIDTH) - 1
    return np.maximum(ends, 0).astype(np.float32)


def v2(models, predicted, model=NAME, **selected):
    rows = rows_for(model, 1)
    values = {"name": "features", "datatype": "FP32", "shape": list(rows.shape),
              "data": rows.ravel().tolist()}  # fmt: skip
    codec = V2(None)
    codec.decode(json.dumps({"inputs": [values], **selected}).encode(), models[model], Limits())
    request = PredictRequest(models[model], codec, b"", "made", None, None, print)
    return codec.encode(codec.columns(predicted), 1, 3, request)


def test_a_v2_request_that_names_them_gets_them(models, outputs):
    selected = [{"name": name} for name in ("upper", OUTPUT, "lower")]
    response = json.loads(v2(models, outputs, outputs=selected).body)
    found = {each["name"]: each for each in response["outputs"]}
    assert list(found) == ["upper", OUTPUT, "lower"]
    given = outputs[OUTPUT][1:3]
    for name, sign in (("lower", -1), ("upper", 1)):
        assert found[name]["datatype"] == "FP32"
        assert found[name]["shape"] == [2]
        np.testing.assert_array_equal(np.float32(found[name]["data"]), expected(given, sign))
    assert np.float32(found[OUTPUT]["data"]).tolist() == given.tolist()


def test_they_come_as_bytes_as_well(models, outputs):
    selected = [{"name": "lower", "parameters": {"binary_data": True}}]
    response = v2(models, outputs, outputs=selected)
    blob = np.frombuffer(response.body[response.json_length :], "<f4")
    np.testing.assert_array_equal(blob, expected(outputs[OUTPUT][1:3], -1))


def test_a_request_that_names_none_gets_the_same_bytes_as_without_intervals(models, outputs):
    answered = [v2(models, outputs).body, v2(models, outputs, outputs=[{"name": OUTPUT}]).body]
    manifest = models[NAME].manifest
    models[NAME].manifest = manifest.replace(interval=None)
    try:
        assert [v2(models, outputs).body] * 2 == answered
    finally:
        models[NAME].manifest = manifest
    assert [each["name"] for each in json.loads(answered[0])["outputs"]] == [OUTPUT]


def test_v1_has_the_model_s_own_outputs_only(models, outputs):
    codec = V1()
    request = PredictRequest(models[NAME], codec, b"", "made", None, None, print)
    response = json.loads(codec.encode(codec.columns(outputs), 0, 4, request).body)
    assert {key for each in response["predictions"] for key in each} == {OUTPUT}


def test_grpc_has_them_too(models, outputs):
    message = proto.message("ModelInferRequest")(model_name=NAME)
    message.inputs.add(name="features", datatype="FP32", shape=[1, 10, 7])
    message.raw_input_contents.append(rows_for(NAME, 1).tobytes())
    for name in ("lower", "upper"):
        message.outputs.add(name=name)
    codec = Grpc(message)
    codec.decode(b"", models[NAME], Limits())
    request = PredictRequest(models[NAME], codec, b"", "made", None, None, print)
    body = codec.encode(codec.columns(outputs), 1, 3, request).body
    response = proto.message("ModelInferResponse").FromString(body)
    assert [each.name for each in response.outputs] == ["lower", "upper"]
    for content, sign in zip(response.raw_output_contents, (-1, 1), strict=True):
        np.testing.assert_array_equal(
            np.frombuffer(content, "<f4"), expected(outputs[OUTPUT][1:3], sign)
        )


def test_a_model_without_intervals_has_no_such_output(models):
    with pytest.raises(BadInput, check=about(ErrorCode.UNKNOWN_NAME, "lower")):
        v2(models, {}, "reliability_detector", outputs=[{"name": "lower"}])
