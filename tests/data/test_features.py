import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.data.features import (
    bandwidth_class,
    feature_matrix,
    series_index,
    series_reference,
)


def test_features_are_raw_and_categories_are_coded_as_in_the_contract(telemetry):
    frame = telemetry.assign(link_type="edge", network_tier="tier1", rtt_ms=7.25)
    matrix = feature_matrix(frame, BANDWIDTH.features)
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(frame), 7)
    assert (matrix[:, 0] == 7.25).all()
    assert (matrix[:, 4] == 3).all()
    assert (matrix[:, 5] == 1).all()


def test_an_unknown_word_is_refused(telemetry):
    with pytest.raises(DataRefused, match="Column 'link_type' holds 'lan': allowed are dc, metro"):
        feature_matrix(telemetry.assign(link_type="lan"), ["link_type_encoded"])


def test_series_are_named_in_the_order_of_their_keys():
    frame = pd.DataFrame({"node_id": ["b", "a", "b", "a"], "peer_id": ["x", "y", "x", "x"]})
    index, names = series_index(frame, ("node_id", "peer_id"))
    assert names == ("a->x", "a->y", "b->x")
    assert index.tolist() == [2, 1, 2, 0]
    assert series_index(frame, ("node_id",))[1] == ("a", "b")
    assert series_index(frame.iloc[:0], ("node_id",))[1] == ()


def test_the_reference_looks_at_training_rows_only():
    values = np.array([1.0, 2.0, 3.0, 1e9, 5.0])
    series = np.array([0, 0, 0, 0, 1])
    trained = np.array([True, True, True, False, False])
    reference = series_reference(values, series, trained, 2, 0.5)
    assert reference[0] == 2.0
    assert np.isnan(reference[1])


def test_bandwidth_class_is_a_share_of_the_reference():
    throughput = np.array([70.0, 69.9, 40.0, 39.9, 0.0])
    assert bandwidth_class(throughput, np.full(5, 100.0), 0.7, 0.4).tolist() == [0, 1, 1, 2, 2]
