"""What a client may send as features, and what it is received otherwise."""

import tracemalloc

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge
from dwcp_ml.serving.tensors import (
    cells_of_bytes,
    cells_of_data,
    cells_of_instances,
    cells_of_typed,
    check_shape,
    rows_of_all,
)
from tests.errors import about

LIMITS = Limits(rows=4)


def rows_of(instances, shape, limits, *, plain):
    return rows_of_all([cells_of_instances(instances, shape, limits, plain=plain)], shape)


def rows_of_flat(data, declared, shape, limits):
    return rows_of_all([cells_of_data(data, declared, shape, limits)], shape)


def rows_of_bytes(raw, declared, shape, limits):
    return rows_of_all([cells_of_bytes(raw, declared, shape, limits)], shape)


def rows_of_typed(values, declared, shape, limits):
    return rows_of_all([cells_of_typed(values, declared, shape, limits)], shape)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_instances_become_float32_rows():
    rows = rows_of([[1, 2.5], [-3, 1e-3]], (2,), LIMITS, plain=True)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.array([[1, 2.5], [-3, 1e-3]], np.float32))


@pytest.mark.parametrize("largest", [2**63, 2**64 - 1, 3.4028234e38, -3.4028234e38])
def test_whatever_float32_holds_is_taken(largest):
    assert rows_of([[largest, 1]], (2,), LIMITS, plain=True)[0, 0] == np.float32(largest)


@pytest.mark.parametrize(
    ("instances", "fault"),
    [
        (None, (ErrorCode.WRONG_TYPE, "instances")),
        ({}, (ErrorCode.WRONG_TYPE, "instances")),
        ([], (ErrorCode.WRONG_TYPE, "instances")),
        ("12", (ErrorCode.WRONG_TYPE, "instances")),
        ([1, 2], (ErrorCode.WRONG_SHAPE, "[]")),
        ([[1]], (ErrorCode.WRONG_SHAPE, "[1]")),
        ([[1, 2, 3]], (ErrorCode.WRONG_SHAPE, "[3]")),
        ([[[1, 2]]], (ErrorCode.WRONG_SHAPE, "[1, 2]")),
        ([[1, 2], [1]], (ErrorCode.WRONG_SHAPE, "instances")),
        ([[1, [2]]], (ErrorCode.WRONG_SHAPE, "instances")),
        ([[], []], (ErrorCode.WRONG_SHAPE, "[0]")),
        ([nested(70)], (ErrorCode.WRONG_SHAPE, "instances")),
        ([nested(900)], (ErrorCode.WRONG_SHAPE, "instances")),
        ([["1", "2"]], (ErrorCode.WRONG_TYPE, "feature")),
        ([[1, None]], (ErrorCode.WRONG_TYPE, "feature")),
        ([[True, 1.5]], (ErrorCode.WRONG_TYPE, "feature")),
        ([[1, {}]], (ErrorCode.WRONG_TYPE, "feature")),
        ([[1, 1e39]], (ErrorCode.NOT_FINITE, "feature")),
        ([[1, -1e300]], (ErrorCode.NOT_FINITE, "feature")),
    ],
)
def test_invalid_instances_are_rejected(instances, fault):
    with pytest.raises(BadInput, check=about(*fault)) as rejected:
        rows_of(instances, (2,), LIMITS, plain=False)
    assert str(rejected.value).endswith(".")


def test_an_object_among_numbers_is_rejected_even_where_the_check_was_skipped():
    with pytest.raises(BadInput, check=about(ErrorCode.WRONG_TYPE, "feature")):
        rows_of([[1, {}]], (2,), LIMITS, plain=True)


def test_more_rows_than_allowed_are_rejected_before_they_are_checked():
    rows_of([[1, 2]] * 4, (2,), LIMITS, plain=True)
    with pytest.raises(TooLarge, check=about(ErrorCode.TOO_LARGE, "rows")):
        rows_of([[None]] * 5, (2,), LIMITS, plain=False)


@pytest.mark.parametrize("data", [[[["", "a" * 1_000_000]] * 4], ["a" * 1_000_000, ""] * 4])
def test_long_text_takes_no_memory_of_its_length_a_row(data):
    tracemalloc.start()
    try:
        with pytest.raises(BadInput):
            rows_of(data, (2,), Limits(), plain=False)
        with pytest.raises(BadInput):
            rows_of_flat(data, [4, 2], (2,), LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_flat_and_nested_data_are_the_same_rows():
    flat = rows_of_flat([1, 2, 3, 4], [2, 2], (2,), LIMITS)
    np.testing.assert_array_equal(flat, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(rows_of_flat([[1, 2], [3, 4]], [2, 2], (2,), LIMITS), flat)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (None, (ErrorCode.WRONG_TYPE, "data")),
        (3, (ErrorCode.WRONG_TYPE, "data")),
        ([1, 2, 3], (ErrorCode.WRONG_SHAPE, "3 values")),
        ([[1, 2, 3, 4]], (ErrorCode.WRONG_SHAPE, "data")),
        ([[1, 2], [3]], (ErrorCode.WRONG_SHAPE, "data")),
        ([1, 2, 3, "4"], (ErrorCode.WRONG_TYPE, "feature")),
        ([1, 2, 3, False], (ErrorCode.WRONG_TYPE, "feature")),
        ([1, 2, 3, 1e39], (ErrorCode.NOT_FINITE, "feature")),
        (nested(900), (ErrorCode.WRONG_SHAPE, "data")),
    ],
)
def test_invalid_data_is_rejected(data, fault):
    with pytest.raises(BadInput, check=about(*fault)):
        rows_of_flat(data, [2, 2], (2,), LIMITS)


@pytest.mark.parametrize(
    "declared",
    [[], [2], [1, 3], [1, 2, 1], [1.0, 2], [True, 2], ["1", 2], [None, 2], [nested(900), 2]],
)
def test_an_invalid_shape_is_rejected(declared):
    with pytest.raises(BadInput, check=about(ErrorCode.WRONG_SHAPE, "shape")):
        check_shape(declared, (2,), LIMITS)


@pytest.mark.parametrize(("rows", "error"), [(0, BadInput), (-1, BadInput), (5, TooLarge),
                                               (2**63, TooLarge)])  # fmt: skip
def test_an_invalid_number_of_rows_is_rejected(rows, error):
    code = ErrorCode.OUT_OF_RANGE if error is BadInput else ErrorCode.TOO_LARGE
    with pytest.raises(error, check=about(code, "rows")):
        check_shape([rows, 2], (2,), LIMITS)


def test_bytes_are_little_endian_float32():
    rows = rows_of_bytes(np.array([1, 2], ">f4").byteswap().tobytes(), [1, 2], (2,), LIMITS)
    np.testing.assert_array_equal(rows, [[1, 2]])


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\0" * 7, (ErrorCode.WRONG_SHAPE, "bytes")),
        (b"\0" * 4, (ErrorCode.WRONG_SHAPE, "1 values")),
        (b"", (ErrorCode.WRONG_SHAPE, "0 values")),
        (np.array([1, np.nan], np.float32).tobytes(), (ErrorCode.NOT_FINITE, "feature")),
        (np.array([1, np.inf], np.float32).tobytes(), (ErrorCode.NOT_FINITE, "feature")),
    ],
)
def test_invalid_bytes_are_rejected(raw, fault):
    with pytest.raises(BadInput, check=about(*fault)):
        rows_of_bytes(raw, [1, 2], (2,), LIMITS)


def test_typed_numbers_become_rows():
    np.testing.assert_array_equal(rows_of_typed([3, 4], [1, 2], (2,), LIMITS), [[3, 4]])
    with pytest.raises(BadInput, check=about(ErrorCode.WRONG_SHAPE, "1 values")):
        rows_of_typed([3], [1, 2], (2,), LIMITS)
    with pytest.raises(BadInput, check=about(ErrorCode.NOT_FINITE, "feature")):
        rows_of_typed([3, 1e300], [1, 2], (2,), LIMITS)


def test_requests_of_every_form_become_one_array_in_their_order():
    raw = np.array([5, 6], "<f4").tobytes()
    group = [
        cells_of_instances([[1, 2]], (2,), LIMITS, plain=True),
        cells_of_data([3, 4], [1, 2], (2,), LIMITS),
        cells_of_bytes(raw, [1, 2], (2,), LIMITS),
        cells_of_typed([7, 8], [1, 2], (2,), LIMITS),
        cells_of_data([[9, 10], [11, 12]], [2, 2], (2,), LIMITS),
    ]
    rows = rows_of_all(group, (2,))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.arange(1, 13, dtype=np.float32).reshape(6, 2))
    for cells in group:
        alone = rows_of_all([cells], (2,))
        np.testing.assert_array_equal(rows_of_all([cells, cells], (2,)), [*alone, *alone])


@pytest.mark.parametrize("wrong", [[["1", 2]], [[1]], [[1, 1e39]], [[1, [2]]]])
def test_one_wrong_request_makes_its_group_invalid(wrong):
    good = cells_of_instances([[1, 2]], (2,), LIMITS, plain=True)
    with pytest.raises(BadInput):
        rows_of_all([good, cells_of_instances(wrong, (2,), LIMITS, plain=False), good], (2,))
