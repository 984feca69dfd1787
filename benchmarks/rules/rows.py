"""The simulated environments in which the rules are compared, and the rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.rules.argo import Argo
from benchmarks.rules.flagger import Flagger
from benchmarks.rules.kayenta import Kayenta
from benchmarks.rules.points import Limits
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.simulated_environment import Shape, Traffic
from dwcp_ml.rollout.simulation import Rule
from dwcp_ml.rollout.spec import Analysis, ReportedLossTest, Revision, RolloutSpec

OURS: Final = "dwcp-ml"

STABLE_P99_SECONDS: Final = 0.002 * math.exp(0.35 * 2.3263478740408408)
"""99th percentile of the stable's latency: log-normal, median 2 ms, sigma 0.35."""

STABLE_LOSS: Final = 0.045
TRUTH_SHARE: Final = 0.25
"""Share of the predictions whose outcome callers report, two minutes later."""

BASES: Final = (0.001, 0.005, 0.01, 0.02)
SHAPES: Final[tuple[Shape, ...]] = ("constant", "diurnal", "bursts")


@dataclass(frozen=True)
class Row:
    """One simulated environment.

    Parameters
    ----------
    name
        Its name in the table.
    traffic
        Load, errors and latencies of both arms.
    fault
        The candidate is worse than the stable.
    truth
        Delayed labels are a test and a metric.
    """

    name: str
    traffic: Traffic
    fault: bool
    truth: bool = False

    @property
    def base(self) -> float:
        """The stable's share of errors."""
        return self.traffic.stable_errors

    @property
    def spec(self) -> RolloutSpec:
        """The rollout, with defaults; where outcomes are reported, with the test of them."""
        losses = ReportedLossTest(required=True) if self.truth else None
        return RolloutSpec(
            model="simulated",
            candidate=Revision(version="candidate", digest="1" * 64),
            stable=Revision(version="stable", digest="0" * 64),
            analysis=Analysis(reported_loss=losses),
        )

    def limits(self, success: float = 0.99) -> Limits:
        """Return the absolute limits that a user of such a rule would set."""
        return Limits(
            success=success,
            p99_seconds=2.0 * STABLE_P99_SECONDS,
            loss=1.5 * STABLE_LOSS if self.truth else None,
        )

    def rules(self) -> dict[str, Rule]:
        """Return the rules by name, ours first.

        If the stable itself fails as often as the documented limit of 99 % allows, the absolute
        rules appear a second time with twice the stable's share of errors as their limit.
        """
        default = self.limits()
        rules: dict[str, Rule] = {
            OURS: decide,
            "Flagger": Flagger(default),
            "Argo Rollouts": Argo(default),
            "Kayenta": Kayenta(default),
        }
        suited = 1.0 - 2.0 * self.base
        if suited < default.success:
            rules[f"Flagger, limit {suited:.0%}"] = Flagger(self.limits(suited))
            rules[f"Argo Rollouts, limit {suited:.0%}"] = Argo(self.limits(suited))
        return rules


def equal_rows() -> list[Row]:
    """Return the environments where the candidate is as good as the stable."""
    rows = [
        Row(
            f"{base:.1%}, {shape}",
            Traffic(shape=shape, stable_errors=base, candidate_errors=base),
            fault=False,
        )
        for base in BASES
        for shape in SHAPES
    ]
    return [*rows, Row("0.1%, constant, with truth", _truth(1.0), fault=False, truth=True)]


def fault_rows() -> list[Row]:
    """Return the environments where it is worse."""
    rows = [
        Row(
            f"errors ×{factor}, base {base:.1%}",
            Traffic(stable_errors=base, candidate_errors=base * factor),
            fault=True,
        )
        for base in (0.001, 0.01)
        for factor in (2, 5, 20)
    ]
    rows += [
        Row(f"p99 ×{factor:g}, base 0.1%", Traffic(slower=factor), fault=True)
        for factor in (1.5, 2.0, 3.0)
    ]
    return rows + [
        Row(f"MAPE ×{factor:g}, base 0.1%", _truth(factor), fault=True, truth=True)
        for factor in (1.2, 1.5, 2.0)
    ]


def _truth(factor: float) -> Traffic:
    return Traffic(
        stable_loss=STABLE_LOSS,
        candidate_loss=STABLE_LOSS * factor,
        labelled_share=TRUTH_SHARE,
    )
