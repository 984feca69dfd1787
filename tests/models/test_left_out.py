"""What a model is not trained on is counted."""

import numpy as np
import pytest

from dwcp_ml.contract.data_use import LeftOut
from dwcp_ml.contract.examples import Examples
from dwcp_ml.models import create


@pytest.mark.parametrize("rows", [0, 1, 7, 100])
@pytest.mark.parametrize("stride", [1, 3])
def test_every_example_is_learnt_or_left_out(rows, stride):
    model = create("consensus_latency", {"training": {"stride": stride}})
    abnormal = np.arange(rows) % 10 == 9
    examples = Examples(
        np.ones((rows, 20), np.float32),
        abnormal,
        np.arange(rows) * 60.0,
        np.zeros(rows, np.int64),
        np.where(abnormal, 0, -1),
    )
    left_out = model.left_out(examples)
    assert left_out[LeftOut.ABNORMAL] == abnormal.sum()
    assert len(model.learnable(examples)) == rows - sum(left_out.values())
