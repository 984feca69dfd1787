"""The spec of a rollout; a ``ModelRollout`` on a cluster, a YAML file on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.record import Record

TESTS: Final = (
    "error_rate", "latency", "prediction_distribution", "reported_loss", "divergence",
    "ground_truth",
)  # fmt: skip
"""Names of the tests, which are fields of ``Analysis``."""

PASSING_TESTS: Final = tuple(name for name in TESTS if name != "prediction_distribution")
"""The tests that can pass a step; the other one only finds harm."""


class Revision(Record):
    """One bundle, by content, and what serves it."""

    version: str
    digest: str = Field(description="SHA-256 of the bundle's manifest.json")
    uri: str = ""
    runtime: str = Field(
        default="",
        description="name of the runtime that serves it, where the user chose one for it",
    )

    @property
    def identity(self) -> str:
        """What makes another revision: the digest, and the runtime where one was chosen."""
        return f"{self.digest}/{self.runtime}" if self.runtime else self.digest


class Step(Record):
    """One share of the live traffic, and what must be seen at it before the next."""

    traffic_percent: int = Field(
        ge=1, le=100, description="the candidate's weight, percent of the traffic"
    )
    minimum_requests: int = Field(
        default=200, ge=0, description="requests of the candidate at this step, warm-up left out"
    )
    dwell_seconds: float = Field(default=120.0, ge=0, description="time at this step, at least")


class ShadowStep(Record):
    """Before any live request: the candidate predicts requests that the stable has answered."""

    minimum_pairs: int = Field(default=500, ge=1, description="requests that both have answered")
    each_flag: bool = Field(
        default=True, description="of a detector, wait for as many flagged requests, and ones that "
        "are not, as show a candidate whose flag is constant",
    )  # fmt: skip


class ErrorRateTest(Record):
    """Whether the candidate's share of failed requests, or that of 4xx responses, is higher."""

    margin: float = Field(
        default=0.01, gt=0, lt=1, description="a step passes when the excess is surely below this"
    )


class LatencyTest(Record):
    """Whether more of the candidate's responses are slower than the stable's p99."""

    margin: float = Field(
        default=0.03, gt=0, lt=1, description="excess share of slow responses that is no harm: a "
        "step passes when it is surely below, the candidate is rolled back when surely above",
    )  # fmt: skip


class PredictionDistributionTest(Record):
    """Whether the candidate's predictions are distributed differently, in the same traffic."""

    margin: float = Field(
        default=0.1, gt=0, lt=0.5, description="difference of the two distribution functions that "
        "is meant: a model that was trained again differs; the candidate is rolled back when it is "
        "surely above",
    )  # fmt: skip


class ReportedLossTest(Record):
    """Whether the candidate's predictions are further from what came true, as callers report it."""

    margin: float = Field(
        default=0.02, gt=0, lt=0.5, description="excess share of large losses that is no harm; "
        "large is above the 75th and the 95th percentile of the stable's",
    )  # fmt: skip
    required: bool = Field(default=False, description="a step waits for this test to pass")


class DivergenceTest(Record):
    """Whether the two predict differently for the same requests, by more than was meant."""

    tolerance: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="mean difference of the predictions, 0 the same and 1 opposite, for a "
        "candidate whose bundle does not say how it differs from this stable",
    )
    margin: float = Field(
        default=0.1, gt=0, lt=0.5, description="excess share of differences, over what the gate "
        "measured between the two, that is no fault",
    )  # fmt: skip
    required: bool = Field(default=False, description="a step waits for this test to pass")


class GroundTruthTest(Record):
    """Whether the candidate's loss against the ground truth is higher, once that is known."""

    margin: float = Field(
        default=0.02, gt=0, lt=1, description="mean excess loss that does not count as worse"
    )
    required: bool = Field(default=False, description="a step waits for this test to pass")


class Analysis(Record):
    """Error probabilities of the decision, and its tests; ``null`` turns a test off."""

    alpha: float = Field(
        default=0.05, gt=0, lt=0.5,
        description="chance that a candidate as good as the stable is rolled back, for the whole "
        "rollout; each test that can roll it back has a fixed share of it",
    )  # fmt: skip
    promotion_alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="chance that a step passes beyond its margin"
    )
    warm_up_seconds: float = Field(
        default=20.0, ge=0,
        description="after the first response of a replica; its responses do not count; 0 for no "
        "warm-up",
    )  # fmt: skip
    warm_up_requests: int = Field(
        default=5, ge=0, description="first responses of a replica that do not count either"
    )
    max_restarts: int = Field(
        default=3, ge=1, description="restarts of the candidate's containers that roll it back"
    )
    unready_seconds: float = Field(
        default=180.0,
        gt=0,
        description="time with traffic and without readiness after which it is rolled back",
    )
    error_rate: ErrorRateTest | None = ErrorRateTest()
    latency: LatencyTest | None = LatencyTest()
    prediction_distribution: PredictionDistributionTest | None = PredictionDistributionTest()
    reported_loss: ReportedLossTest | None = None
    divergence: DivergenceTest | None = DivergenceTest()
    ground_truth: GroundTruthTest | None = None

    @property
    def enabled(self) -> tuple[str, ...]:
        """The names of the enabled tests."""
        return tuple(name for name in TESTS if getattr(self, name) is not None)

    def alpha_of(self, test: str) -> float:
        """Return the share of ``alpha`` that a test may spend, whichever others are on."""
        return self.alpha * ALPHA_SHARES[test]


ALPHA_SHARES: Final = {
    "error_rate": 0.33,
    "latency": 0.33,
    "latency_tail": 0.1,
    "rejection_rate": 0.12,
    "prediction_distribution": 0.03,
    "divergence": 0.03,
    "reported_loss": 0.03,
    "ground_truth": 0.03,
}
"""Most goes to the tests that decide most rollouts: at an alpha of 0.05 the first two need an
e-value of 61, which three blocks reach."""

DEFAULT_STEPS = tuple(Step(traffic_percent=percent) for percent in (1, 5, 25, 50, 100))


class Skip(Record):
    """A step that the user lets pass without proof; 0 percent is the shadow step."""

    traffic_percent: int
    reason: str = Field(min_length=1)


class Retry(Record):
    """A digest that was rolled back, and that the user wants to be rolled out once more."""

    digest: str
    reason: str = Field(min_length=1)
    manager: str = Field(
        default="", description="field manager that wrote it, where the API server says so"
    )


WATCHES: Final = 100
"""Mean time until the watch gives a false alarm, in lengths of the watch, at least."""

BLOCK_SECONDS: Final = 10.0
"""Time between two reconciliations, as far as the watch goes."""

_MIN_RUN_LENGTH: Final = 500.0
_MAX_RUN_LENGTH: Final = 1e9


class RolloutSpec(Record):
    """One rollout: which revision, over which steps, on what evidence."""

    model: str
    candidate: Revision
    stable: Revision | None = Field(description="what is live; null for a first deployment")
    steps: tuple[Step, ...] = Field(default=DEFAULT_STEPS, min_length=1)
    shadow: ShadowStep | None = Field(
        default=ShadowStep(),
        description="compare predictions before the first live request; needs the test divergence",
    )
    analysis: Analysis = Analysis()
    watch_seconds: float = Field(
        default=300.0, ge=0, description="time at 100 % before the stable is removed"
    )
    paused: bool = Field(
        default=False, description="the weight does not rise; a bad candidate is still rolled back"
    )
    abort: bool = Field(default=False, description="roll the candidate back now")
    skip: Skip | None = None
    retry: Retry | None = None
    template_runtime: str = Field(
        default="",
        description="the runtime of a candidate for which none was chosen; empty if unknown",
    )
    generation: int = Field(default=1, ge=0, description="rises with every edit")

    @model_validator(mode="after")
    def _steps_rise_to_all(self) -> Self:
        shares = [step.traffic_percent for step in self.steps]
        if shares != sorted(set(shares)) or shares[-1] != 100:
            raise ValueError(f"steps must rise and end at 100 percent, not {shares}")
        if len(shares) == 1:
            raise ValueError("a step below 100 percent is needed: there is no comparison at 100")
        if not set(self.analysis.enabled) & set(PASSING_TESTS):
            raise ValueError(
                f"at least one of {', '.join(PASSING_TESTS)} must be on to pass a step"
            )
        return self

    @property
    def has_shadow_step(self) -> bool:
        """Whether predictions are compared before the first live request."""
        return self.shadow is not None and self.analysis.divergence is not None

    @property
    def watch_run_length(self) -> float:
        """Mean number of blocks until the watch gives a false alarm, at least."""
        blocks = WATCHES * self.watch_seconds / BLOCK_SECONDS
        return min(max(blocks, _MIN_RUN_LENGTH), _MAX_RUN_LENGTH)

    @property
    def shares(self) -> tuple[int, ...]:
        """The steps' shares of traffic, percent."""
        return tuple(step.traffic_percent for step in self.steps)


def rollout_spec(settings: Mapping[str, Any] | None = None, **values: Any) -> RolloutSpec:
    """Return a spec from the settings of a user.

    Parameters
    ----------
    settings
        Steps, analysis and watch_seconds, as a YAML file has them.

    Raises
    ------
    UsageError
        If a key or a value is wrong; the message names it.
    """
    try:
        return RolloutSpec(**{**(settings or {}), **values})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the settings"
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from error


def any_rollout(settings: Mapping[str, Any] | None = None) -> RolloutSpec:
    """Return the spec of a rollout of no model in particular, for simulations.

    Raises
    ------
    UsageError
        As ``rollout_spec``.
    """
    return rollout_spec(
        settings,
        model="synthetic",
        candidate=Revision(version="candidate", digest="1" * 64),
        stable=Revision(version="stable", digest="0" * 64),
    )
