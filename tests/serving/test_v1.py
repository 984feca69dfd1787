"""V1: instances in, predictions out."""

import json

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving import v1
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput
from tests.errors import about
from tests.serving.bundles import MODELS, rows_for


@pytest.mark.parametrize("name", MODELS)
def test_a_request_holds_its_rows(models, name):
    rows = rows_for(name, 3)
    body = json.dumps({"instances": rows.astype(float).tolist()}).encode()
    np.testing.assert_array_equal(v1.decode(body, models[name], Limits()), rows)


def test_keys_that_tensorflow_serving_knows_are_accepted(models):
    body = b'{"signature_name": "x", "parameters": {"a": true}, "instances": [[1,2,3,4,5,6]]}'
    rows = v1.decode(body, models["reliability_detector"], Limits())
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
        (b"[" * 100_000, (ErrorCode.MALFORMED, "body")),
        (b'{"a":' * 100_000, (ErrorCode.MALFORMED, "body")),
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
        v1.decode(body, models["reliability_detector"], Limits())
    assert str(rejected.value).isprintable()
    assert len(str(rejected.value)) < 300


@pytest.mark.parametrize("name", MODELS)
def test_a_response_has_one_object_with_every_output_for_each_row(models, name):
    outputs = models[name].run(rows_for(name, 3))
    predictions = json.loads(v1.encode(outputs))["predictions"]
    assert len(predictions) == 3
    for place, prediction in enumerate(predictions):
        assert list(prediction) == list(outputs)
        for output, values in outputs.items():
            received = np.array(prediction[output], values.dtype)
            np.testing.assert_array_equal(received, values[place])


def test_the_dtypes_of_the_response_are_those_of_json(models):
    def first(name):
        return json.loads(v1.encode(models[name].run(rows_for(name, 1))))["predictions"][0]

    assert type(first("reliability_detector")["is_anomaly"]) is bool
    assert type(first("compression_selector")["compression_level"]) is int
    assert type(first("compression_selector")["probabilities"][0]) is float
