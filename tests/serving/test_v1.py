"""V1: instances in, predictions out."""

import json

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge
from dwcp_ml.serving.tensors import rows_of_all
from dwcp_ml.serving.v1 import V1
from tests.errors import about
from tests.serving.bundles import MODELS, rows_for


def decode(body, model):
    return rows_of_all([V1().decode(body, model, Limits())], model.shape)


def encode(outputs):
    rows = len(next(iter(outputs.values())))
    return V1().encode(V1.columns(outputs), 0, rows, None).body


@pytest.mark.parametrize("name", MODELS)
def test_a_request_holds_its_rows(models, name):
    rows = rows_for(name, 3)
    body = json.dumps({"instances": rows.astype(float).tolist()}).encode()
    np.testing.assert_array_equal(decode(body, models[name]), rows)


def test_keys_that_tensorflow_serving_knows_are_accepted(models):
    body = b'{"signature_name": "x", "parameters": {"a": true}, "instances": [[1,2,3,4,5,6]]}'
    rows = decode(body, models["reliability_detector"])
    assert rows.tolist() == [[1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", (ErrorCode.MISSING, "body")),
        (b"{", (ErrorCode.MALFORMED, "body")),
        (b"\xff\xfe{}", (ErrorCode.MALFORMED, "body")),
        (b'{"instances": [[NaN]]}', (ErrorCode.MALFORMED, "body")),
        (b'{"instances": [[Infinity]]}', (ErrorCode.MALFORMED, "body")),
        (b'{"instances": [[1e999]]}', (ErrorCode.MALFORMED, "body")),
        (b"[" * 20_000, (ErrorCode.MALFORMED, "body")),
        (b'{"a":' * 20_000, (ErrorCode.MALFORMED, "body")),
        (b"[1]", (ErrorCode.WRONG_TYPE, "body")),
        (b"null", (ErrorCode.WRONG_TYPE, "body")),
        (b"{}", (ErrorCode.WRONG_TYPE, "instances")),
        (b'{"inputs": []}', (ErrorCode.UNKNOWN_NAME, "inputs")),
        (b'{"\\u0007\\u001b[31m": 1}', (ErrorCode.UNKNOWN_NAME, "??[31m")),
        (
            b'{"%s": 1}' % (b"k" * 1000),
            (
                ErrorCode.UNKNOWN_NAME,
                "k" * 57 + "...",
            ),
        ),
        (b'{"instances": [[1,2,3,4,5,"6"]]}', (ErrorCode.WRONG_TYPE, "feature")),
        (b'{"instances": [[1,2,3,4,5,null]]}', (ErrorCode.WRONG_TYPE, "feature")),
        (b'{"instances": [[1,2,3,4,5,true]]}', (ErrorCode.WRONG_TYPE, "feature")),
        (b'{"instances": [[1,2,3,4,5,{}]]}', (ErrorCode.WRONG_TYPE, "feature")),
    ],
)
def test_invalid_bodies_are_rejected(models, body, fault):
    with pytest.raises(BadInput, check=about(*fault)) as rejected:
        decode(body, models["reliability_detector"])
    assert str(rejected.value).isprintable()
    assert len(str(rejected.value)) < 300


@pytest.mark.parametrize("part", [b"[", b'{"a":', b"1,"])
def test_a_text_of_many_values_is_rejected_before_it_is_parsed(models, part):
    with pytest.raises(TooLarge, check=about(ErrorCode.TOO_LARGE, "values")):
        decode(part * 30_000, models["reliability_detector"])


@pytest.mark.parametrize("name", MODELS)
def test_a_response_has_one_object_with_every_output_for_each_row(models, name):
    outputs = models[name].run(rows_for(name, 3))
    predictions = json.loads(encode(outputs))["predictions"]
    assert len(predictions) == 3
    for place, prediction in enumerate(predictions):
        assert list(prediction) == list(outputs)
        for output, values in outputs.items():
            received = np.array(prediction[output], values.dtype)
            np.testing.assert_array_equal(received, values[place])


def test_the_dtypes_of_the_response_are_those_of_json(models):
    def first(name):
        return json.loads(encode(models[name].run(rows_for(name, 1))))["predictions"][0]

    assert type(first("reliability_detector")["is_anomaly"]) is bool
    assert type(first("compression_selector")["compression_level"]) is int
    assert type(first("compression_selector")["probabilities"][0]) is float
