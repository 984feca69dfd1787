"""Objects that the custom resources take or refuse, and the word that the refusal must hold.

The types answer for them in test_resources, the generated schema in test_crd, and a real API server
in tests/cluster: three answers about one list.
"""

import copy
from dataclasses import dataclass
from typing import Any

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.manifests import model_rollout as rollout_of_the_gate
from dwcp_ml.operator.api.parts import API_VERSION

GONE = object()
FIRST, SECOND = "a" * 64, "b" * 64


def _uri(version):
    return f"s3://models/bandwidth_predictor/{version}"


ROLLOUT = rollout_of_the_gate(BANDWIDTH, "20260101-000000", _uri("20260101-000000"), FIRST)

TRAINING = {
    "apiVersion": API_VERSION,
    "kind": "TrainingRun",
    "metadata": {"name": "nightly"},
    "spec": {"data": {"uri": "s3://telemetry/2026-01.parquet"}},
}


@dataclass(frozen=True)
class Example:
    """An object, or a change of one.

    ``refused`` is a part of the message, empty for what is taken. ``by`` says who refuses it: the
    ``schema`` of each field, or a ``rule``. ``old`` is what was there before.
    """

    name: str
    new: dict[str, Any]
    refused: str = ""
    by: str = ""
    old: dict[str, Any] | None = None

    @property
    def kind(self):
        return self.new["kind"]


def edited(resource, changes):
    """Return a copy with dotted paths set, or taken out where the value is ``GONE``."""
    out = copy.deepcopy(resource)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = out
        for part in parents:
            place = place.setdefault(part, {})
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return out


def steps(*shares):
    return [{"trafficPercent": share} for share in shares]


def _taken(base, name, **changes):
    return Example(name, edited(base, changes))


def _by(by, base, refused, changes, before=None):
    name = f"{refused or 'a change that is allowed'}: {', '.join(changes)}"
    old = None if before is None else edited(base, before)
    new = edited(base if old is None else old, changes)
    return Example(f"{new['kind']}, {name}", new, refused, by if refused else "", old)


PREDICTOR = "spec.template.predictor"
NEXT = {
    "spec.candidate": {
        "storageUri": _uri("v2"),
        "version": "v2",
        "digest": f"sha256:{SECOND}",
    }
}
FULL = edited(
    ROLLOUT,
    {
        "spec.model": "bandwidth_predictor",
        "spec.template.deploymentMode": "Knative",
        "spec.template.labels": {"team": "network"},
        f"{PREDICTOR}.minReplicas": 2,
        f"{PREDICTOR}.maxReplicas": 4,
        f"{PREDICTOR}.serviceAccountName": "dwcp-server",
        f"{PREDICTOR}.tolerations": [{"key": "gpu", "operator": "Exists"}],
        f"{PREDICTOR}.model.resources": {
            "requests": {"cpu": "500m", "memory": "256Mi"},
            "limits": {"cpu": 1, "memory": "1Gi"},
        },
        f"{PREDICTOR}.scaleMetric": "cpu",
        f"{PREDICTOR}.scaleTarget": 80,
        f"{PREDICTOR}.containerConcurrency": 0,
        f"{PREDICTOR}.timeout": 30,
        f"{PREDICTOR}.priorityClassName": "serving",
        f"{PREDICTOR}.logger": {"url": "https://logs.example.com/v1", "mode": "request"},
        f"{PREDICTOR}.nodeSelector": {"disk": "ssd"},
        f"{PREDICTOR}.labels": {"team": "network"},
        f"{PREDICTOR}.annotations": {"contact": "network@example.com"},
        f"{PREDICTOR}.affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
                    ]
                }
            },
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"team": "network"}},
                        },
                    }
                ]
            },
        },
        f"{PREDICTOR}.topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        "spec.steps": [
            {"trafficPercent": 5, "minimumRequests": 300, "dwellSeconds": 60.5},
            {"trafficPercent": 100, "minimumRequests": 0, "dwellSeconds": 0},
        ],
        "spec.analysis": {
            "alpha": 0.01,
            "errorRate": {"margin": 0.005},
            "latency": {"enabled": False},
            "divergence": {"tolerance": 0.05, "required": True},
            "groundTruth": {},
        },
        "spec.watchSeconds": 60,
        "spec.paused": True,
        "spec.skip": {"version": "20260101-000000", "trafficPercent": 5, "reason": "no traffic"},
        "spec.candidate.runtime": "dwcp-ml-60303ae2",
        "spec.retry": {"digest": f"sha256:{'1' * 64}", "reason": "the node was broken"},
        "spec.deletionPolicy": "Restore",
    },
)
FULL_TRAINING = edited(
    TRAINING,
    {
        "spec.data.incidentsUri": "s3://telemetry/incidents.json",
        "spec.data.packetLossUnit": "percent",
        "spec.data.startTime": "2026-01-01T00:00:00Z",
        "spec.data.endTime": "2026-02-01T00:00:00Z",
        "spec.models": ["bandwidth_predictor", "consensus_latency"],
        "spec.targets": [
            {"model": "bandwidth_predictor", "metric": "mape_percent", "value": 4.5},
            {"model": "bandwidth_predictor", "metric": "correlation", "value": 0.99},
        ],
        "spec.modelOptions": [
            {
                "name": "bandwidth_predictor",
                "form": "bandwidth_class",
                "epochs": 3,
                "settings": {"data": {"window": 12}},
            },
            {"name": "consensus_latency", "window": 30, "validationFraction": 0.2},
        ],
        "spec.exportFormats": ["onnx"],
        "spec.stable": [{"model": "bandwidth_predictor", "storageUri": _uri("v0")}],
        "spec.storagePrefix": "s3://models",
        "spec.serviceAccountName": "pipeline-runner",
        "spec.seed": 7,
        "spec.acceptLeak": ["rtt_ms", "row_order"],
    },
)

TAKEN = [
    Example("ModelRollout as the gate writes it", ROLLOUT),
    Example("ModelRollout with everything set", FULL),
    _taken(ROLLOUT, "ModelRollout with twenty steps", **{"spec.steps": steps(*range(81, 101))}),
    _taken(
        ROLLOUT,
        "ModelRollout of a service with a name of its own",
        **{
            "metadata.name": "eu-bandwidth",
            "spec.inferenceService": "eu-bandwidth",
            "spec.model": "bandwidth_predictor",
        },
    ),
    _taken(
        ROLLOUT,
        "ModelRollout with a skip that another candidate left behind",
        **{"spec.skip": {"version": "v0", "trafficPercent": 7, "reason": "quiet night"}},
    ),
    Example("TrainingRun with nothing but data", TRAINING),
    Example("TrainingRun with everything set", FULL_TRAINING),
    _taken(TRAINING, "TrainingRun on simulated data", **{"spec.data": {"simulated": True}}),
    *(
        _taken(TRAINING, f"TrainingRun on {uri}", **{"spec.data.uri": uri})
        for uri in (
            "/data/t.csv",
            "file:///data/t.csv",
            "pvc://telemetry/t.csv",
            "gs://b/t.csv",
            "az://c/t.csv",
            "https://host/t.csv?signature=x",
        )
    ),
    _taken(
        TRAINING, "TrainingRun from a time on", **{"spec.data.startTime": "2026-01-01T00:00:00Z"}
    ),
    _taken(
        TRAINING,
        "TrainingRun on a window of a second",
        **{
            "spec.data.startTime": "2026-01-01T07:59:59Z",
            "spec.data.endTime": "2026-01-01T08:00:00Z",
        },
    ),
    _taken(
        TRAINING,
        "TrainingRun that writes to Azure",
        **{"spec.storagePrefix": "https://account.blob.core.windows.net/models"},
    ),
]

_ROLLOUT_SCHEMA = [
    ("inferenceService", {"spec.inferenceService": "Bandwidth"}),
    ("inferenceService", {"spec.inferenceService": GONE}),
    ("model", {"spec.model": "bandwith_predictor"}),
    ("template", {"spec.template": GONE}),
    ("predictor", {PREDICTOR: GONE}),
    ("modelFormat", {f"{PREDICTOR}.model.modelFormat": GONE}),
    ("protocolVersion", {f"{PREDICTOR}.model.protocolVersion": "v3"}),
    ("cpu", {f"{PREDICTOR}.model.resources": {"limits": {"cpu": "one"}}}),
    ("minReplicas", {f"{PREDICTOR}.minReplicas": -1}),
    ("scaleMetric", {f"{PREDICTOR}.scaleMetric": "latency"}),
    ("timeout", {f"{PREDICTOR}.timeout": 0}),
    ("runtime", {f"{PREDICTOR}.model.runtime": "Dwcp Server"}),
    ("url", {f"{PREDICTOR}.logger": {"url": "file:///dev/log"}}),
    ("mode", {f"{PREDICTOR}.logger": {"mode": "everything"}}),
    ("team", {f"{PREDICTOR}.labels": {"team": "a b"}}),
    ("disk", {f"{PREDICTOR}.nodeSelector": {"disk": 1}}),
    ("effect", {f"{PREDICTOR}.tolerations": [{"effect": "NoRun"}]}),
    ("tolerations", {f"{PREDICTOR}.tolerations": [{}] * 17}),
    (
        "whenUnsatisfiable",
        {
            f"{PREDICTOR}.topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Wait"}
            ]
        },
    ),
    (
        "topologyKey",
        {
            f"{PREDICTOR}.affinity": {
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]
                }
            }
        },
    ),
    ("deploymentMode", {"spec.template.deploymentMode": "standard"}),
    ("storageUri", {"spec.candidate.storageUri": "/mnt/models"}),
    ("version", {"spec.candidate.version": "v 2"}),
    ("digest", {"spec.candidate.digest": "a" * 64}),
    ("digest", {"spec.candidate.digest": f"sha256:{'A' * 64}"}),
    ("digest", {"spec.candidate.digest": GONE}),
    ("steps", {"spec.steps": steps(100)}),
    ("steps", {"spec.steps": steps(*range(80, 101))}),
    ("trafficPercent", {"spec.steps": steps(0, 100)}),
    ("trafficPercent", {"spec.steps": steps(50, 101)}),
    ("trafficPercent", {"spec.steps": steps(2.5, 100)}),
    ("trafficPercent", {"spec.steps": [{"minimumRequests": 5}, {"trafficPercent": 100}]}),
    (
        "minimumRequests",
        {"spec.steps": [{"trafficPercent": 1, "minimumRequests": -1}, *steps(100)]},
    ),
    ("dwellSeconds", {"spec.steps": [{"trafficPercent": 1, "dwellSeconds": "60s"}, *steps(100)]}),
    ("alpha", {"spec.analysis": {"alpha": 0}}),
    ("alpha", {"spec.analysis": {"alpha": 0.5}}),
    ("margin", {"spec.analysis": {"errorRate": {"margin": 1}}}),
    ("tolerance", {"spec.analysis": {"divergence": {"tolerance": 0}}}),
    ("maxRestarts", {"spec.analysis": {"maxRestarts": 0}}),
    ("watchSeconds", {"spec.watchSeconds": -1}),
    ("paused", {"spec.paused": "yes"}),
    ("reason", {"spec.skip": {"version": "v1", "trafficPercent": 5, "reason": ""}}),
    ("version", {"spec.skip": {"trafficPercent": 5, "reason": "none"}}),
    ("reason", {"spec.retry": {"digest": f"sha256:{'1' * 64}"}}),
    ("reason", {"spec.retry": {"digest": f"sha256:{'1' * 64}", "reason": ""}}),
    ("reason", {"spec.retry": {"digest": f"sha256:{'1' * 64}", "reason": " "}}),
    ("reason", {"spec.retry": {"digest": f"sha256:{'1' * 64}", "reason": "x" * 513}}),
    ("digest", {"spec.retry": {"digest": "1" * 64, "reason": "the node was broken"}}),
    ("runtime", {"spec.candidate.runtime": "Dwcp_ml"}),
    ("deletionPolicy", {"spec.deletionPolicy": "Delete"}),
]
_ALL_OFF = {name: {"enabled": False} for name in ("errorRate", "latency", "divergence")}
_ROLLOUT_RULES = [
    ("storageUri must be an address", {"spec.candidate.storageUri": "az://container/v1"}),
    ("metadata.name must equal", {"metadata.name": "other"}),
    (
        "model is required",
        {"metadata.name": "eu", "spec.inferenceService": "eu", "spec.model": GONE},
    ),
    ("must rise", {"spec.steps": steps(5, 5, 100)}),
    ("must rise", {"spec.steps": steps(25, 5, 100)}),
    ("must rise", {"spec.steps": steps(*range(1, 19), 18, 100)}),
    ("last step must be 100", {"spec.steps": steps(1, 50)}),
    ("at least one test", {"spec.analysis": _ALL_OFF}),
    ("at least one test", {"spec.analysis": {**_ALL_OFF, "groundTruth": {"enabled": False}}}),
    (
        "skip must name a step",
        {"spec.skip": {"version": "20260101-000000", "trafficPercent": 7, "reason": "none"}},
    ),
    ("too long", {"spec.candidate.version": "v" * 33}),
    (
        "candidate.runtime needs a runtime",
        {
            "spec.candidate.runtime": "dwcp-ml-60303ae2",
            f"{PREDICTOR}.model.runtime": GONE,
            f"{PREDICTOR}.model.protocolVersion": GONE,
        },
    ),
    ("a key in labels", {f"{PREDICTOR}.labels": {"k" * 318: "v"}}),
    ("a key in annotations", {"spec.template.annotations": {"k" * 318: "v"}}),
    ("a key in nodeSelector", {f"{PREDICTOR}.nodeSelector": {"k" * 318: "v"}}),
    ("both runtime and protocolVersion", {f"{PREDICTOR}.model.protocolVersion": GONE}),
    (
        "must not be above maxReplicas",
        {f"{PREDICTOR}.minReplicas": 3, f"{PREDICTOR}.maxReplicas": 2},
    ),
]
_NAMED = {
    "metadata.name": "eu",
    "spec.inferenceService": "eu",
    "spec.model": "bandwidth_predictor",
}
_ROLLOUT_CHANGES = [
    ("", {}, NEXT),
    ("", {}, {"spec.candidate.storageUri": "gs://elsewhere/bandwidth"}),
    ("", {}, {"spec.candidate.runtime": "dwcp-ml-60303ae2"}),
    ("", {"spec.candidate.runtime": "dwcp-ml-60303ae2"}, {"spec.candidate.runtime": GONE}),
    ("", {}, {"spec.steps": steps(10, 100), "spec.paused": True}),
    ("", {}, {"spec.abort": True}),
    ("", {"spec.abort": True}, {**NEXT, "spec.abort": False}),
    ("", {}, {"spec.model": "bandwidth_predictor"}),
    ("inferenceService can't be changed", {}, {"spec.inferenceService": "compression-selector"}),
    ("model can't be changed", {}, {"spec.model": "compression_selector"}),
    ("model can't be changed", _NAMED, {"spec.model": "consensus_latency"}),
    ("deploymentMode can't be changed", {}, {"spec.template.deploymentMode": "Knative"}),
    ("version and digest must change together", {}, {"spec.candidate.version": "v2"}),
    ("version and digest must change together", {}, {"spec.candidate.digest": f"sha256:{SECOND}"}),
    (
        "another storageUri",
        {},
        {"spec.candidate.version": "v2", "spec.candidate.digest": f"sha256:{SECOND}"},
    ),
    ("abort is true", {"spec.abort": True}, NEXT),
    ("abort is true", {"spec.abort": True}, {"spec.candidate.runtime": "dwcp-ml-60303ae2"}),
    ("abort is true", {}, {**NEXT, "spec.abort": True}),
]
_TRAINING_SCHEMA = [
    ("data", {"spec.data": GONE}),
    ("uri", {"spec.data.uri": "telemetry.csv"}),
    ("startTime", {"spec.data.startTime": "2026-01-01"}),
    ("startTime", {"spec.data.startTime": "2026-01-01T00:00:00"}),
    ("endTime", {"spec.data.endTime": "tomorrow"}),
    ("endTime", {"spec.data.endTime": "2026-01-01T00:00:00+01:00"}),
    ("endTime", {"spec.data.endTime": "2026-01-01T00:00:00.5Z"}),
    ("endTime", {"spec.data.endTime": "2026-13-01T00:00:00Z"}),
    ("endTime", {"spec.data.endTime": ["2026-01-01T00:00:00Z"]}),
    ("packetLossUnit", {"spec.data.packetLossUnit": "permille"}),
    ("models", {"spec.models": []}),
    ("models", {"spec.models": ["bandwidth"]}),
    ("exportFormats", {"spec.exportFormats": ["torch"]}),
    ("seed", {"spec.seed": 2**31}),
    ("epochs", {"spec.modelOptions": [{"name": "consensus_latency", "epochs": 0}]}),
    ("window", {"spec.modelOptions": [{"name": "consensus_latency", "window": 1}]}),
    (
        "validationFraction",
        {"spec.modelOptions": [{"name": "consensus_latency", "validationFraction": 0.8}]},
    ),
    ("name", {"spec.modelOptions": [{"epochs": 3}]}),
    ("experiment", {"spec.experiment": ""}),
]
_MAPE = {"model": "bandwidth_predictor", "metric": "mape_percent", "value": 4}
_TRAINING_RULES = [
    ("uri must be a path, or an address of", {"spec.data.uri": "hdfs://node/t.csv"}),
    ("incidentsUri must be a path", {"spec.data.incidentsUri": "ftp://host/i.json"}),
    ("storagePrefix must be", {"spec.storagePrefix": "az://container/models"}),
    ("storagePrefix must be", {"spec.storagePrefix": "https://example.com/models"}),
    (
        "storageUri must be an address that KServe reads",
        {"spec.stable": [{"model": "bandwidth_predictor", "storageUri": "az://c/v0"}]},
    ),
    ("either uri or simulated", {"spec.data": {}}),
    ("either uri or simulated", {"spec.data.simulated": True}),
    ("incidentsUri needs uri", {"spec.data": {"simulated": True, "incidentsUri": "s3://x/y"}}),
    (
        "startTime and endTime need uri",
        {"spec.data": {"simulated": True, "endTime": "2026-01-01T00:00:00Z"}},
    ),
    ("endTime must be a time that there is", {"spec.data.endTime": "2026-02-30T00:00:00Z"}),
    (
        "startTime must be before endTime",
        {
            "spec.data.startTime": "2026-01-01T00:00:00Z",
            "spec.data.endTime": "2026-01-01T00:00:00Z",
        },
    ),
    (
        "startTime must be before endTime",
        {
            "spec.data.startTime": "2026-01-01T08:00:00Z",
            "spec.data.endTime": "2026-01-01T07:00:00Z",
        },
    ),
    ("no target of that name", {"spec.targets": [{**_MAPE, "metric": "mape"}]}),
    ("no target of that name", {"spec.targets": [{**_MAPE, "model": "consensus_latency"}]}),
    (
        "no form of that name",
        {"spec.modelOptions": [{"name": "consensus_latency", "form": "bandwidth_class"}]},
    ),
    (
        "models that are trained",
        {"spec.models": ["consensus_latency"], "spec.targets": [_MAPE]},
    ),
    (
        "models that are trained",
        {
            "spec.models": ["consensus_latency"],
            "spec.modelOptions": [{"name": "bandwidth_predictor"}],
        },
    ),
]
_TRAINING_CHANGES = [
    ("", {}, {"spec.suspend": True}),
    ("", {"spec.suspend": True}, {"spec.suspend": False}),
    ("", {}, {"spec.cancel": True}),
    ("", {"spec.stable": FULL_TRAINING["spec"]["stable"]}, {"spec.cancel": True}),
    ("cancel is final", {"spec.cancel": True}, {"spec.cancel": False}),
    ("a run can't be changed", {}, {"spec.seed": 43}),
    ("a run can't be changed", {}, {"spec.data.uri": "s3://telemetry/other.parquet"}),
    ("a run can't be changed", {}, {"spec.data.startTime": "2026-01-01T00:00:00Z"}),
    ("a run can't be changed", {}, {"spec.storagePrefix": "s3://models"}),
    ("a run can't be changed", {"spec.storagePrefix": "s3://m"}, {"spec.storagePrefix": GONE}),
    ("a run can't be changed", {}, {"spec.targets": [_MAPE]}),
    (
        "a run can't be changed",
        {"spec.modelOptions": [{"name": "consensus_latency", "settings": {"data": {"window": 9}}}]},
        {"spec.modelOptions": [{"name": "consensus_latency", "settings": {"data": {"window": 8}}}]},
    ),
]

REFUSED = [
    *(_by("schema", ROLLOUT, word, changes) for word, changes in _ROLLOUT_SCHEMA),
    *(_by("rule", ROLLOUT, word, changes) for word, changes in _ROLLOUT_RULES),
    *(_by("schema", TRAINING, word, changes) for word, changes in _TRAINING_SCHEMA),
    *(_by("rule", TRAINING, word, changes) for word, changes in _TRAINING_RULES),
]
CHANGES = [
    *(_by("rule", ROLLOUT, word, new, old) for word, old, new in _ROLLOUT_CHANGES),
    *(_by("rule", TRAINING, word, new, old) for word, old, new in _TRAINING_CHANGES),
]
