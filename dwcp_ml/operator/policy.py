"""What a platform engineer allows in ModelRollouts and TrainingRuns.

The types say which fields there are; here their values are compared with the operator's settings.
A refusal is an obstacle: the weight does not rise, and abort and roll-back work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field, field_validator

from dwcp_ml.contract.record import Record
from dwcp_ml.kube.manifests import MODEL_FORMAT, RUNTIME, RUNTIME_WITH_GRPC
from dwcp_ml.operator.addresses import refusal_of_uri
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.parts import GROUP, MAX_KEY
from dwcp_ml.operator.api.template import Predictor, Template
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason


class Policy(Record):
    """The values that both resources may have; the operator's options set them."""

    service_accounts: tuple[str, ...] = Field(
        default=(),
        description="service accounts of predictors; an absent one is the namespace's default",
    )
    runtimes: tuple[str, ...] = Field(
        default=(RUNTIME, RUNTIME_WITH_GRPC), description="ServingRuntimes that may be named"
    )
    model_formats: tuple[str, ...] = Field(
        default=(MODEL_FORMAT,),
        description="model formats; KServe chooses a runtime by the format where none is named",
    )
    priority_classes: tuple[str, ...] = Field(
        default=(), description="priority classes of predictors"
    )
    pipeline_accounts: tuple[str, ...] = Field(
        default=("dwcp-ml-pipeline", "pipeline-runner"),
        description="service accounts of TrainingRuns; an absent one is Kubeflow's default",
    )
    metadata_keys: tuple[str, ...] = Field(
        default=(
            "contact",
            "cost-center",
            "description",
            "environment",
            "owner",
            "serving.kserve.io/autoscalerClass",
            "team",
        ),
        description="keys of labels and annotations; example.com/ stands for all keys below it",
    )
    uri_schemes: tuple[str, ...] = Field(
        default=("s3", "gs", "az", "https", "pvc"), description="schemes of bundles and telemetry"
    )
    uri_hosts: tuple[str, ...] = Field(
        default=("*",),
        description="hosts and buckets of both; *.example.com for all below it, * for all that "
        "are not internal",
    )
    logger_urls: tuple[str, ...] = Field(
        default=(), description="receivers of KServe's logger, each a whole URL"
    )

    @field_validator("metadata_keys")
    @classmethod
    def _own_keys_are_not_given_away(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if any(key.partition("/")[0].endswith(GROUP) for key in keys):
            raise ValueError(f"keys of {GROUP} are the operator's own")
        return keys

    def refusal(self, resource: ModelRollout) -> Cause | None:
        """Return why a ModelRollout asks for what is not allowed; ``None`` if it does not."""
        spec = resource.spec
        sentence = next(filter(None, self._of_template(spec.template)), "")
        if sentence:
            return Cause(reason=Reason.TEMPLATE_NOT_ALLOWED, detail=f"spec.template.{sentence}")
        sentence = _unlisted("runtime", spec.candidate.runtime, self.runtimes)
        if sentence:
            detail = f"spec.candidate.{sentence}"
            return Cause(reason=Reason.RUNTIME_NOT_ALLOWED, detail=detail)
        why = refusal_of_uri(spec.candidate.storage_uri, self.uri_schemes, self.uri_hosts)
        if why:
            detail = f"spec.candidate.storageUri: {why}."
            return Cause(reason=Reason.ADDRESS_NOT_ALLOWED, detail=detail)
        return None

    def _of_template(self, template: Template) -> Iterable[str]:
        """Yield one sentence for each value that is not allowed; empty ones for the others."""
        predictor = template.predictor
        yield self._of_keys("labels", template.labels)
        yield self._of_keys("annotations", template.annotations)
        yield self._of_keys("predictor.labels", predictor.labels)
        yield self._of_keys("predictor.annotations", predictor.annotations)
        yield from self._of_values(predictor)

    def _of_values(self, predictor: Predictor) -> Iterable[str]:
        model, logger = predictor.model, predictor.logger
        name = predictor.service_account_name
        yield _unlisted("predictor.serviceAccountName", name, self.service_accounts)
        name = predictor.priority_class_name
        yield _unlisted("predictor.priorityClassName", name, self.priority_classes)
        yield _unlisted("predictor.model.runtime", model.runtime, self.runtimes)
        name = model.model_format.name
        yield _unlisted("predictor.model.modelFormat.name", name, self.model_formats)
        url = logger.url if logger is not None else None
        yield _unlisted("predictor.logger.url", url, self.logger_urls)

    def _of_keys(self, where: str, values: Mapping[str, str] | None) -> str:
        unlisted = sorted(key for key in values or () if not self._allows_key(key))
        return _sentence(where, unlisted[0], self.metadata_keys) if unlisted else ""

    def _allows_key(self, key: str) -> bool:
        if len(key) > MAX_KEY:
            return False
        below = f"{key.partition('/')[0]}/" if "/" in key else key
        return key in self.metadata_keys or below in self.metadata_keys


def _unlisted(where: str, value: str | None, allowed: tuple[str, ...]) -> str:
    return "" if value is None or value in allowed else _sentence(where, value, allowed)


def _sentence(where: str, value: str, allowed: tuple[str, ...]) -> str:
    known = f"allowed: {', '.join(allowed)}" if allowed else "none is allowed"
    return f"{where} has {value!r}; {known}."
