"""``ModelRollout``: a candidate that gets traffic step by step in one InferenceService."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from dwcp_ml.operator.api.parts import (
    DIGEST_PATTERN,
    KUBERNETES_NAMES,
    MAX_URI,
    URI_PATTERN,
    VERSION_PATTERN,
    Column,
    CustomResource,
    ModelName,
    Names,
    Part,
    Rule,
    kserve_rule,
)
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.api.scheduling import NAME_PATTERN
from dwcp_ml.operator.api.template import Template
from dwcp_ml.rollout.spec import (
    DEFAULT_STEPS,
    PASSING_TESTS,
    TESTS,
    Analysis,
    DivergenceTest,
    ErrorRateTest,
    GroundTruthTest,
    LatencyTest,
    PredictionDistributionTest,
    ReportedLossTest,
    ShadowStep,
    Step,
)

MAX_STEPS: Final = 20

MAX_NAMES: Final = 51
"""Characters of InferenceService and version together: the name of the Service
``<InferenceService>-v<version>-predictor`` has at most 63."""

MIN_ALPHA: Final = 1e-9
"""Below it 1/alpha, the evidence that decides, could overflow."""

_PASSING: Final = tuple(map(to_camel, PASSING_TESTS))
_ALWAYS_THERE: Final = ("errorRate", "latency", "divergence")
"""The tests whose settings have a default."""


class Candidate(Part):
    """The bundle to roll out, identified by its digest, and the runtime to serve it."""

    storage_uri: str = Field(
        pattern=URI_PATTERN, max_length=MAX_URI, description="where KServe finds the bundle"
    )
    version: str = Field(
        pattern=VERSION_PATTERN, max_length=128, description="version of the bundle"
    )
    digest: str = Field(
        pattern=DIGEST_PATTERN,
        max_length=71,
        description="SHA-256 of the bundle's manifest.json; the server rejects a bundle that "
        "changed",
    )
    runtime: str | None = Field(
        default=None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="the ServingRuntime of this candidate, in place of the template's; the "
        "operator must allow it. Another runtime is another candidate, also with the same bundle",
    )

    rules = (
        kserve_rule("storage_uri"),
        Rule(
            "(self.version == oldSelf.version) == (self.digest == oldSelf.digest)",
            "version and digest must change together: a version names one bundle",
        ),
        Rule(
            "self.digest == oldSelf.digest || self.storageUri != oldSelf.storageUri",
            "another bundle needs another storageUri: KServe would not see the change",
        ),
    )


def _runtime_of(spec: str) -> str:
    """Return the candidate's runtime in CEL; empty where it names none."""
    return f"(has({spec}.candidate.runtime) ? {spec}.candidate.runtime : '')"


class RolloutStep(Part, Step):
    """One share of the live traffic, and the conditions for the next step."""


class ShadowSettings(Part, ShadowStep):
    """Before any live request: the candidate predicts requests that the stable has answered."""

    enabled: bool = Field(default=True, description="whether there is such a step")


class ErrorRateSettings(Part, ErrorRateTest):
    """Whether more of the candidate's requests fail than of the stable's."""

    enabled: bool = Field(default=True, description="whether the test is on")


class LatencySettings(Part, LatencyTest):
    """Whether more of the candidate's responses are slower than the stable's p99."""

    enabled: bool = Field(default=True, description="whether the test is on")


class PredictionDistributionSettings(Part, PredictionDistributionTest):
    """Whether the predictions of both are distributed differently."""

    enabled: bool = Field(default=True, description="whether the test is on")


class ReportedLossSettings(Part, ReportedLossTest):
    """Whether the candidate's predictions are further from what callers report."""

    enabled: bool = Field(default=True, description="whether the test is on")


class DivergenceSettings(Part, DivergenceTest):
    """Whether the predictions of both for the same requests differ."""

    enabled: bool = Field(default=True, description="whether the test is on")


class GroundTruthSettings(Part, GroundTruthTest):
    """Whether the candidate's error against ground truth is larger than the stable's."""

    enabled: bool = Field(default=True, description="whether the test is on")


def _alpha(name: str) -> Any:
    known = Analysis.model_fields[name]
    return Field(known.default, ge=MIN_ALPHA, lt=0.5, description=known.description)


class AnalysisSettings(Part, Analysis):
    """The tests of the candidate and their error probabilities.

    A test is turned off by ``enabled: false``, not by null: a merge patch, and so ``kubectl
    apply``, can't set a field to null, only remove it, and then its default comes back.
    """

    alpha: float = _alpha("alpha")
    promotion_alpha: float = _alpha("promotion_alpha")
    error_rate: ErrorRateSettings = Field(
        default=ErrorRateSettings(),
        description="whether more of the candidate's requests fail than of the stable's: a 5xx "
        "response, or none before the client or the gateway gave up",
    )
    latency: LatencySettings = Field(
        default=LatencySettings(),
        description="whether more of the candidate's responses are slower than the stable's p99",
    )
    prediction_distribution: PredictionDistributionSettings = Field(
        default=PredictionDistributionSettings(),
        description="whether the candidate's predictions are distributed differently from the "
        "stable's at the same time: it rolls back, and passes nothing",
    )
    reported_loss: ReportedLossSettings | None = Field(
        default=None,
        description="whether the candidate's predictions are further from what came true than the "
        "stable's, as callers report it to the servers; off if absent",
    )
    divergence: DivergenceSettings = Field(
        default=DivergenceSettings(),
        description="whether the predictions of both for the same requests differ by more than was "
        "meant; without data where the stable's servers keep no requests",
    )
    ground_truth: GroundTruthSettings | None = Field(
        default=None,
        description="whether the candidate's error against ground truth is larger than the "
        "stable's; "
        "off if absent",
    )

    rules = (
        Rule(
            " || ".join(
                ("" if name in _ALWAYS_THERE else f"has(self.{name}) && ") + f"self.{name}.enabled"
                for name in _PASSING
            ),
            f"at least one test of {', '.join(_PASSING)} must be enabled, or no step could pass",
            lambda analysis: bool(set(analysis.enabled) & set(PASSING_TESTS)),
        ),
    )

    @property
    def enabled(self) -> tuple[str, ...]:
        """The names of the tests that are on."""
        settings = {name: getattr(self, name) for name in TESTS}
        return tuple(name for name, test in settings.items() if test is not None and test.enabled)


class SkipStep(Part):
    """The user lets one step of one candidate pass without evidence."""

    version: str = Field(
        pattern=VERSION_PATTERN,
        max_length=128,
        description="the candidate's version; ignored for any other candidate",
    )
    traffic_percent: int = Field(
        ge=0, le=100, description="the step, by its share in percent; 0 is the shadow step"
    )
    reason: str = Field(
        min_length=1, max_length=512, description="why; it is recorded in the status"
    )


class RetryCandidate(Part):
    """The user wants a candidate that was rolled back to be rolled out once more."""

    digest: str = Field(
        pattern=DIGEST_PATTERN,
        max_length=71,
        description="the candidate's digest; ignored for any other candidate",
    )
    reason: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"\S",
        description="why; it is recorded in the status. The same reason works once: after another "
        "roll-back of this digest, give another",
    )


class ModelRolloutSpec(Part):
    """The candidate, the steps of its traffic and the tests that decide."""

    inference_service: str = Field(
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        max_length=48,
        description="the InferenceService; only the operator creates it and changes its traffic",
    )
    model: ModelName | None = Field(
        default=None,
        description="full name of the model; required if the InferenceService is not named "
        "after its model",
    )
    template: Template = Field(
        description="the InferenceService to create, without bundle and traffic"
    )
    candidate: Candidate = Field(description="the bundle to bring to 100 %")
    steps: tuple[RolloutStep, ...] = Field(
        default=tuple(RolloutStep(**step.model_dump()) for step in DEFAULT_STEPS),
        min_length=2,
        max_length=MAX_STEPS,
        description="shares of the live traffic, rising, the last 100",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    shadow: ShadowSettings = Field(
        default=ShadowSettings(),
        description="before the first step, with no live request at the candidate: it predicts "
        "requests that the stable has answered, and the test divergence compares the two; needs "
        "that test, and servers that keep requests",
    )
    analysis: AnalysisSettings = Field(
        default=AnalysisSettings(),
        description="the tests of the candidate and their error probabilities",
    )
    watch_seconds: float = Field(
        default=300.0,
        ge=0,
        description="seconds at 100 % with the stable still deployed, before it is removed",
    )
    paused: bool = Field(
        default=False, description="the weight does not rise; a bad candidate is still rolled back"
    )
    abort: bool = Field(
        default=False,
        description="roll the candidate back now, for good; set this to false before the next "
        "candidate",
    )
    skip: SkipStep | None = Field(default=None, description="lets one step pass without evidence")
    retry: RetryCandidate | None = Field(
        default=None,
        description="unblocks the candidate, which was rolled back, once; no effect if it is "
        "written before the roll-back",
    )
    deletion_policy: Literal["Keep", "Restore"] = Field(
        default="Keep",
        description="when this object is deleted: Keep leaves the InferenceService and its "
        "traffic as they are; Restore first rolls back a candidate that is under way",
    )

    rules = (
        Rule(
            "self.inferenceService == oldSelf.inferenceService",
            "inferenceService can't be changed: make another ModelRollout",
        ),
        Rule(
            "has(self.model) || self.inferenceService in "
            f"[{', '.join(repr(name) for name in KUBERNETES_NAMES)}]",
            "model is required: the InferenceService is not named after one",
            lambda spec: spec.model is not None or spec.inference_service in KUBERNETES_NAMES,
        ),
        Rule(
            "(has(self.model) ? self.model : self.inferenceService.replace('-', '_')) == "
            "(has(oldSelf.model) ? oldSelf.model : oldSelf.inferenceService.replace('-', '_'))",
            "model can't be changed: the live bundle is of another model",
        ),
        Rule(
            f"{list(range(MAX_STEPS - 1))}.all(i, i + 1 >= size(self.steps) || "
            "self.steps[i].trafficPercent < self.steps[i + 1].trafficPercent)",
            "trafficPercent must rise from step to step",
            lambda spec: spec.shares == tuple(sorted(set(spec.shares))),
        ),
        Rule(
            "self.steps[size(self.steps) - 1].trafficPercent == 100",
            "the last step must be 100 percent",
            lambda spec: spec.shares[-1] == 100,
        ),
        Rule(
            "!has(self.skip) || self.skip.version != self.candidate.version || "
            "self.skip.trafficPercent == 0 || "
            "self.steps.exists(step, step.trafficPercent == self.skip.trafficPercent)",
            "skip must name a step: its trafficPercent is that of none",
            lambda spec: (
                spec.skip is None
                or spec.skip.version != spec.candidate.version
                or spec.skip.traffic_percent in (0, *spec.shares)
            ),
        ),
        Rule(
            f"!self.abort || (self.candidate.digest == oldSelf.candidate.digest && "
            f"{_runtime_of('self')} == {_runtime_of('oldSelf')})",
            "abort is true and would roll back the new candidate too: set it to false first",
        ),
        Rule(
            "!has(self.candidate.runtime) || has(self.template.predictor.model.runtime)",
            "candidate.runtime needs a runtime in the template: without one the next candidate "
            "would inherit that of the stable",
            lambda spec: (
                spec.candidate.runtime is None or spec.template.predictor.model.runtime is not None
            ),
        ),
        Rule(
            f"size(self.inferenceService) + size(self.candidate.version) <= {MAX_NAMES}",
            "inferenceService and version are too long: a Service named after both has at most "
            "63 characters",
            lambda spec: len(spec.inference_service) + len(spec.candidate.version) <= MAX_NAMES,
        ),
    )

    @property
    def shares(self) -> tuple[int, ...]:
        """The steps' shares of traffic, percent."""
        return tuple(step.traffic_percent for step in self.steps)

    @property
    def model_name(self) -> ModelName:
        """The full name of the model."""
        if self.model is not None:
            return self.model
        return KUBERNETES_NAMES[self.inference_service]


class ModelRollout(CustomResource):
    """Rolls a bundle out to the live traffic of one InferenceService, or back."""

    names = Names("ModelRollout", "modelrollouts", "modelrollout", "mr")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Phase", "string", ".status.phase", "phase of the rollout"),
        Column("Step", "string", ".status.step", "the current step, and their number"),
        Column(
            "Target", "integer", ".status.targetPercent", "the candidate's target weight, percent"
        ),
        Column(
            "Live", "integer", ".status.livePercent", "its live weight at the last status update"
        ),
        Column("Since", "date", ".status.since", "when phase or target last changed"),
        Column("Candidate", "string", ".spec.candidate.version", "the candidate's version"),
        Column("Evidence", "string", ".status.evidence", "how far each test has come", 1),
        Column("Stable", "string", ".status.stable.version", "the stable's version", 1),
        Column("Reason", "string", ".status.reason", "why it is in this phase"),
        Column("Message", "string", ".status.message", "the reason in words", 1),
        Column("Age", "date", ".metadata.creationTimestamp", "since its creation"),
    )

    rules = (
        Rule(
            "self.metadata.name == self.spec.inferenceService",
            "metadata.name must equal spec.inferenceService: there is one ModelRollout for each",
            lambda rollout: rollout.metadata.name == rollout.spec.inference_service,
        ),
    )

    kind: Literal["ModelRollout"] = "ModelRollout"
    spec: ModelRolloutSpec = Field(
        description="the candidate, the steps of its traffic and the tests that decide"
    )
    status: ModelRolloutStatus | None = Field(default=None, description="state of the rollout")
