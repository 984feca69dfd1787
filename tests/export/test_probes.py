"""The inputs of the comparison: the whole test split, and the whole range of the contract."""

import numpy as np
import pytest

from dwcp_ml.contract.columns import COLUMNS, ColumnType, column_of_feature
from dwcp_ml.contract.models import BANDWIDTH, LATENCY, MODELS, RELIABILITY
from dwcp_ml.export.probes import CEILINGS, column_range, probe_inputs


def some_rows(spec, n=50):
    rng = np.random.default_rng(3)
    rows = rng.random((n, spec.window, len(spec.features))) * 3 + 1.25
    return rows.astype(np.float32).reshape(n, *spec.input.shape)


def flat(spec, inputs):
    return inputs.reshape(len(inputs), spec.window, len(spec.features))


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.short_name)
def test_the_test_split_comes_first_and_whole(spec):
    rows = some_rows(spec)
    probes = probe_inputs(spec, rows, n=1000, seed=1)
    assert probes.dtype == np.float32
    assert probes.shape == (1050, *spec.input.shape)
    np.testing.assert_array_equal(probes[:50], rows)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.short_name)
def test_probes_stay_inside_the_contract_and_reach_its_ends(spec):
    empty = np.empty((0, *spec.input.shape), dtype=np.float32)
    probes = flat(spec, probe_inputs(spec, empty, n=4000, seed=2))
    assert np.isfinite(probes).all()
    for position, feature in enumerate(spec.features):
        column = column_of_feature(feature)
        low, high = (np.float32(end) for end in column_range(column))
        values = probes[:, :, position]
        assert values.min() == low, feature
        assert values.max() == high, feature
        if column.exclusive_minimum:
            assert values.min() > column.minimum
        if column.codes:
            assert set(np.unique(values)) == {code for _, code in column.codes}
        if column.kind is ColumnType.INTEGER:
            np.testing.assert_array_equal(values, np.rint(values))


def test_small_values_are_probed_as_well_as_large_ones():
    empty = np.empty((0, *RELIABILITY.input.shape), dtype=np.float32)
    rtt = probe_inputs(RELIABILITY, empty, n=4000)[:, RELIABILITY.features.index("rtt_ms")]
    for low, high in ((0, 0.1), (0.1, 10), (10, 1000), (1000, 60_000)):
        assert np.mean((rtt > low) & (rtt <= high)) > 0.05


def test_every_code_is_probed_about_as_often():
    empty = np.empty((0, *BANDWIDTH.input.shape), dtype=np.float32)
    links = flat(BANDWIDTH, probe_inputs(BANDWIDTH, empty, n=4000))[:, 0, 4]
    shares = np.unique(links, return_counts=True)[1] / len(links)
    assert BANDWIDTH.features[4] == "link_type_encoded"
    assert len(shares) == 4
    assert shares.min() > 0.15


def test_there_are_corners_and_constant_windows_and_mixed_rows():
    rows = some_rows(BANDWIDTH)
    probes = flat(BANDWIDTH, probe_inputs(BANDWIDTH, rows, n=2000, seed=5)[len(rows) :])
    ends = np.array([column_range(column_of_feature(f)) for f in BANDWIDTH.features], np.float32)
    at_end = (probes == ends[:, 0]) | (probes == ends[:, 1])
    assert 120 < at_end.all(axis=(1, 2)).sum() < 280
    assert 120 < (probes == probes[:, :1]).all(axis=(1, 2)).sum() < 280
    known = np.isin(probes, rows).all(axis=(1, 2))
    assert 300 < known.sum() < 500


def test_the_seed_decides_all_of_it():
    rows = some_rows(LATENCY)
    first, same, other = (probe_inputs(LATENCY, rows, n=500, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_every_open_feature_has_a_ceiling():
    for spec in MODELS.values():
        for feature in spec.features:
            low, high = column_range(column_of_feature(feature))
            assert low < high
    assert set(CEILINGS) <= set(COLUMNS)
    assert all(COLUMNS[name].maximum is None for name in CEILINGS)
