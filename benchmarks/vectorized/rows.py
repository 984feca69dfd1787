"""Arrays of one row a rollout, which shrink together when rollouts end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rows:
    """A state whose arrays, every one of them, have the rollouts on their first axis."""

    def keep(self, rows: Bools) -> None:
        """Keep these rollouts only.

        Parameters
        ----------
        rows
            Which, shape (n_rollouts,).
        """
        value: Any
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[rows])
            elif isinstance(value, Rows):
                value.keep(rows)
