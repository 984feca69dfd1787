"""The contract's own promises."""

import doctest
import math
import pickle

import pytest
from pydantic import ValidationError

from dwcp_ml.contract import columns, errors
from dwcp_ml.contract.bundle import signature
from dwcp_ml.contract.models import BANDWIDTH, LATENCY, MODELS, Target
from dwcp_ml.contract.records import DataReport, Parity


@pytest.mark.parametrize("module", [columns, errors])
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_feature_is_a_column():
    for spec in MODELS.values():
        for feature in spec.features:
            column = columns.column_of_feature(feature)
            assert feature == (f"{column.name}_encoded" if column.codes else column.name)


def test_shapes_are_those_of_the_http_interface():
    shapes = {spec.short_name: spec.input.shape for spec in MODELS.values()}
    assert shapes == {
        "bandwidth": (10, 7),
        "compression": (6,),
        "reliability": (6,),
        "latency": (20,),
    }


@pytest.mark.parametrize(
    ("direction", "value", "achieved", "met"),
    [
        (">=", 0.98, 0.98, True),
        (">=", 0.98, 0.9799, False),
        ("<=", 5.0, 5.0, True),
        ("<=", 5.0, 5.01, False),
        ("<", 5.0, 5.0, False),
        ("<", 5.0, 4.99, True),
        (">", 0.0, 0.0, False),
        (">=", 0.98, None, False),
        ("<", 5.0, math.nan, False),
    ],
)
def test_a_target_is_met_or_not(direction, value, achieved, met):
    assert Target("m", direction, value).met_by(achieved) is met


def test_a_signature_lists_what_a_client_needs():
    record = signature(BANDWIDTH, "bandwidth_class")
    assert [tensor.name for tensor in record["outputs"]] == ["bandwidth_class", "probabilities"]
    assert record["inputs"][0].shape == (10, 7)
    assert signature(LATENCY, "high_latency")["window"] == 20


def test_records_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        DataReport(
            path="x",
            md5="0",
            size_bytes=1,
            rows=1,
            rows_quarantined=0,
            columns=(),
            links=1,
            surprise=1,
        )


def test_a_replaced_record_is_a_copy_of_pydantic_with_other_fields():
    parity = Parity(rows=2, largest_relative_difference=0.1, flipped_decisions=0, tolerance=0.2)
    replaced = parity.replace(rows=3)
    expected = parity.model_copy(update={"rows": 3})
    assert (replaced, replaced.model_fields_set) == (expected, expected.model_fields_set)
    assert replaced.model_dump_json() == expected.model_dump_json()
    assert (parity.rows, pickle.loads(pickle.dumps(replaced))) == (2, expected)
    with pytest.raises(ValidationError):
        replaced.rows = 4
    with pytest.raises(TypeError):
        parity.replace(row=3)
