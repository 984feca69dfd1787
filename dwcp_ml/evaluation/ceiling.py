"""The ceiling: the best possible metrics on simulated data; a model above it shows a leak.

The simulator writes, for each model and form, the best reachable value of each metric, computed
from its own hidden state, and that value's standard error:

    {"next_throughput_mbps": {"ceiling": {"mape_percent": 4.2},
                              "standard_error": {"mape_percent": 0.05}}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from dwcp_ml.evaluation.labels import is_error, is_share

MAX_STANDARD_ERRORS: Final = 3.0
"""Standard errors above the ceiling that chance explains, in one of 1,000 cases, one-sided."""


@dataclass(frozen=True)
class Ceiling:
    """The ceiling of one output form of a model: values and standard errors by metric."""

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None, form: str) -> Self | None:
        """Return the ceiling of one form from the simulator's entry; None where there is none."""
        ceiling = (entry or {}).get(form)
        if not isinstance(ceiling, Mapping) or not ceiling.get("ceiling"):
            return None
        return cls(finite(ceiling["ceiling"]), finite(ceiling.get("standard_error", {})))

    def exceeded_by(self, metric: str, value: float, error: float, count: int) -> bool:
        """Return whether a model's value exceeds the ceiling by more than the statistical error.

        The error is that of the difference of two independent estimates, sqrt(own^2 + ceiling's^2),
        times ``MAX_STANDARD_ERRORS``. Both use the same test rows, which makes the true error
        smaller, so that a leak is rather missed than wrongly reported. ``error`` is the bootstrap
        standard error of the value; for a share it is at least that of ``count`` independent rows
        at the ceiling, sqrt(c (1 - c) / count), because a model without a wrong prediction has a
        bootstrap error of 0.
        """
        limit = self.values[metric]
        excess = (limit - value) if is_error(metric) else (value - limit)
        if is_share(metric) and 0.0 < limit < 1.0:
            error = max(error, math.sqrt(limit * (1.0 - limit) / max(count, 1)))
        spread = math.hypot(error, self.errors.get(metric, 0.0))
        # A standard error of NaN is no excess, and neither is a rounding error.
        return excess > MAX_STANDARD_ERRORS * spread + 1e-9


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are finite numbers.

    >>> finite({"accuracy": 0.99, "recall": float("nan"), "note": "x"})
    {'accuracy': 0.99}
    """
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
