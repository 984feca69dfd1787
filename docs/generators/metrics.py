"""``docs/reference/metrics.md``: every metric of the model server and of the operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from docs.generators.fields import line, number, phrase

INTRODUCTION: Final = """\
# Metrics

The metrics that Prometheus scrapes at `/metrics`, generated from the registries of the code.
[The on-call page](../on-call.md) describes the alerts on them.
"""

SERVER: Final = """\
## The model server

At its HTTP port ([the model server](../serving.md#metrics)). The last two exist only with
`--log-predictions`; `dwcp_feature`, `dwcp_prediction` and `dwcp_request_prediction` do not exist
with `--no-sketches`, `dwcp_reported_loss` and its squares not with `--no-feedback`, and
`dwcp_kept_requests` only with `--requests_port`.
"""

SKETCHES: Final = """\
### Buckets of `dwcp_feature` and `dwcp_prediction`

| metric | `feature`, or `output` | upper bounds of the buckets |
| --- | --- | --- |"""

OPERATOR: Final = """\
## The operator

At the port of `--port`. Every process exports them, but only the leader those about rollouts.
"""

RETRAINING: Final = """\
## The webhook of a retraining

At the port of [dwcp-ml retraining serve](../retraining.md).
"""

OTHERS: Final = """\
## Metrics of the client library

The server also exports the metrics `process_*` and `python_*` of prometheus_client: memory, open
files and garbage collection. Each counter and histogram has an additional series `…_created`, the
time of its creation.
"""


def page() -> str:
    """Return the page, without the line that says that it is generated."""
    from dwcp_ml.operator.metrics import Metrics

    served = list(_families(_server()))
    operator = list(_families(_operator(Metrics())))
    retraining = list(_families(_retraining()))
    parts = [INTRODUCTION, SERVER, _table(served), "\n" + SKETCHES, *_sketches(served)]
    parts += ["", OPERATOR, _table(operator), "\n" + RETRAINING, _table(retraining)]
    return "\n".join([*parts, "\n" + OTHERS])


def _server() -> CollectorRegistry:
    """Return a server's registry in which every series has been seen once."""
    from dwcp_ml.serving.kept_requests import KeptRequests
    from dwcp_ml.serving.metrics import ServerMetrics
    from dwcp_ml.serving.outcomes import Outcomes
    from dwcp_ml.serving.sketches import Sketches

    models: list[Any] = [_model(name) for name in _specs()]
    metrics = ServerMetrics()
    metrics.serve(models)
    Sketches(models, metrics.registry)
    Outcomes(models, metrics.registry)
    KeptRequests(models, metrics.registry, 8082)
    log: Any = SimpleNamespace(written=0, dropped=0)
    metrics.watch_log(log)
    return metrics.registry


def _retraining() -> CollectorRegistry:
    from dwcp_ml.retraining.webhook import Webhook

    nothing: Any = None
    return Webhook(nothing, "", {"nightly": nothing}).registry


def _specs() -> Mapping[str, Any]:
    from dwcp_ml.contract.models import MODELS

    return MODELS


def _model(name: str) -> Any:
    """Return what the metrics read of a served model."""
    from dwcp_ml.contract.bundle import TensorRecord

    spec = _specs()[name]
    return SimpleNamespace(
        name=name,
        version="",
        digest="",
        contract="",
        manifest=SimpleNamespace(
            feature_order=spec.features,
            version="",
            training_distribution=[
                SimpleNamespace(feature=feature, edges=(), shares=(1.0,))
                for feature in spec.features
            ],
        ),
        outputs=[TensorRecord.of(tensor) for tensor in spec.form().outputs],
    )


def _operator(metrics: Any) -> CollectorRegistry:
    """Return the operator's registry in which every series has been seen once."""
    from dwcp_ml.operator.reconcile import Result
    from dwcp_ml.rollout.reason import Reason
    from dwcp_ml.rollout.status import Phase
    from dwcp_ml.rollout.verdict import Outcome, Verdict

    metrics.seconds.labels("").observe(0)
    metrics.errors.labels("", "").inc()
    metrics.wrote("", status=False)
    verdict = Verdict(test="", outcome=Outcome.INSUFFICIENT_DATA, sentence="")
    result = Result(
        1.0, phase=Phase.PENDING.value, live_percent=0, stalled=Reason.NO_TRAFFIC,
        verdicts=(verdict,),
    )  # fmt: skip
    metrics.reconciled(("", ""), result)
    registry: CollectorRegistry = metrics.registry
    return registry


def _families(registry: CollectorRegistry) -> Iterator[Metric]:
    yield from (one for one in registry.collect() if one.name.startswith("dwcp_"))


def _table(families: Iterable[Metric]) -> str:
    lines = ["| metric | type | labels | what it tells | buckets |", "|" + " --- |" * 5]
    for one in families:
        name = f"{one.name}_total" if one.type == "counter" else one.name
        labels = ", ".join(f"`{label}`" for label in _labels(one))
        own = one.name in ("dwcp_feature", "dwcp_prediction")
        bounds = "see below" if own else _bounds(one.samples)
        lines.append(line((f"`{name}`", one.type, labels, phrase(one.documentation), bounds)))
    return "\n".join(lines)


def _labels(family: Metric) -> list[str]:
    return [label for label in family.samples[0].labels if label != "le"]


def _bounds(samples: Iterable[Any]) -> str:
    """Return the upper bounds of the first series of a histogram; the last one is always +Inf."""
    found: list[str] = []
    for sample in samples:
        bound = sample.labels.get("le")
        if bound == "+Inf":
            break
        if bound is not None:
            found.append(number(float(bound)))
    return ", ".join(found)


def _sketches(families: Iterable[Metric]) -> Iterator[str]:
    for family in families:
        if family.name not in ("dwcp_feature", "dwcp_prediction"):
            continue
        kind = "feature" if family.name == "dwcp_feature" else "output"
        alike: dict[str, list[str]] = {}
        for name, samples in _series(family, kind).items():
            alike.setdefault(_bounds(samples), []).append(f"`{name}`")
        for bounds, names in alike.items():
            yield line((f"`{family.name}`", ", ".join(names), bounds))


def _series(family: Metric, kind: str) -> dict[str, list[Any]]:
    """Return the samples of each feature or output: a name has the same buckets in every model."""
    found: dict[str, list[Any]] = {}
    for sample in family.samples:
        found.setdefault(sample.labels[kind], []).append(sample)
    return found
