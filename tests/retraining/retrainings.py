"""A retraining, and runs and rollouts in the states that decide about the next run."""

from datetime import UTC, datetime, timedelta

from dwcp_ml.contract.models import model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.kube.manifests import model_rollout
from dwcp_ml.retraining.decide import LiveRollout, PastRun
from dwcp_ml.retraining.settings import LABEL, Retraining

NAMESPACE = "models"
NOW = datetime(2026, 3, 20, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def document(**changes):
    """Return what the file of a retraining holds."""
    return {
        "name": "nightly",
        "windowDays": 10,
        "template": {
            "labels": {"team": "network"},
            "spec": {
                "data": {"uri": "s3://telemetry/", "incidentsUri": "s3://telemetry/incidents.json"},
                "models": ["bandwidth_predictor"],
                "storagePrefix": "s3://models",
            },
        },
        **changes,
    }


def retraining(**changes):
    return Retraining.model_validate(document(**changes))


def past(number=1, ago=2 * DAY, ended=True, has_verdict=True, version="v1", **changes):
    """Return a run that was created some time ago, on the window of that moment."""
    window = retraining().window_at(NOW - ago)
    return PastRun(
        name=f"nightly-{number}", number=number, created=NOW - ago, ended=ended, window=window,
        has_verdict=has_verdict, version=version, **changes,
    )  # fmt: skip


def live(version="v1", phase="Promoted"):
    return LiveRollout(name="bandwidth-predictor", version=version, phase=phase)


def training_run(number=1, ago=2 * DAY, **status):
    """Return a TrainingRun of the retraining as the API server has it."""
    made = retraining().training_run(
        NAMESPACE, number, retraining().window_at(NOW - ago), "schedule"
    )
    assert made["metadata"]["labels"][LABEL] == "nightly"
    made["status"] = status
    return made


SUCCEEDED = {"phase": "Succeeded", "reason": "GateApproved", "verdict": "APPROVED", "version": "v1"}
REJECTED = {"phase": "Succeeded", "reason": "GateRejected", "verdict": "REJECTED"}
FAILED = {"phase": "Failed", "reason": "RunFailed"}
RUNNING = {"phase": "Running", "reason": "Running"}


def rollout(version="v1", phase="Promoted"):
    """Return the ModelRollout of the model, as the operator reports about a candidate."""
    made = model_rollout(model_spec("bandwidth"), version, "s3://models/1", "d" * 64)
    made["metadata"]["namespace"] = NAMESPACE
    revision = {"version": version, "digest": "sha256:" + "d" * 64}
    made["status"] = {"phase": phase, "candidate": revision}
    return made


def put(api, body, created=None):
    """Create an object with its status and, if given, its time of creation."""
    status = body.pop("status", None)
    if created is not None:
        api.now = lambda: created.strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = {"TrainingRun": TRAINING_RUN, "ModelRollout": MODEL_ROLLOUT}[body["kind"]]
    api.create(body)
    found = api.get(kind, NAMESPACE, body["metadata"]["name"])
    if status is not None:
        api.replace({**found, "status": status}, status=True)
