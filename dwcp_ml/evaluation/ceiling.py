"""What no model can beat, and whether one seems to: then something leaks into it.

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

SIGMAS: Final = 3.0
"""Standard errors over the ceiling that are still chance: one in a thousand, one-sided."""


@dataclass(frozen=True)
class Ceiling:
    """The ceiling of one form of a model's answer: values and standard errors by metric."""

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None, form: str) -> Self | None:
        """Return the ceiling of one form from the simulator's entry; None where there is none."""
        found = (entry or {}).get(form)
        if not isinstance(found, Mapping) or not found.get("ceiling"):
            return None
        return cls(finite(found["ceiling"]), finite(found.get("standard_error", {})))

    def passed_by(self, metric: str, value: float, error: float, count: int) -> bool:
        """Return whether a model's value passes the ceiling by more than the statistical error.

        The error is that of the difference of two independent estimates, sqrt(own^2 + ceiling's^2),
        times ``SIGMAS``. The two share the test rows, which makes the true error smaller, so this
        is on the safe side of an accusation.

        Parameters
        ----------
        metric, value
            What the model reached.
        error
            Its bootstrap standard error. A share is never taken as surer than independent rows
            would be at the ceiling, sqrt(c (1 - c) / count): a model that made no mistake on this
            split has a bootstrap error of 0, and yet may be lucky.
        count
            Examples that the metric is a mean of.
        """
        limit = self.values[metric]
        excess = (limit - value) if is_error(metric) else (value - limit)
        if is_share(metric) and 0.0 < limit < 1.0:
            error = max(error, math.sqrt(limit * (1.0 - limit) / max(count, 1)))
        spread = math.hypot(error, self.errors.get(metric, 0.0))
        # Without a standard error nothing can be said, and rounding is no leak.
        return excess > SIGMAS * spread + 1e-9


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
