"""The component for retraining on the cluster, what notifies it, and what runs its runs."""

import json

import pandas as pd
import yaml

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.operator.api.convert import to_run_options, version_of
from dwcp_ml.operator.api.training_run import TrainingRun
from tests.cluster.build import ROOT
from tests.kind.live.cluster import SPACE
from tests.kind.live.pods import last_line, python, run, spec_of
from tests.kind.live.run import InPods

ADDRESS = f"http://dwcp-ml-retraining.{SPACE}.svc/v1/retrainings/nightly"
ALERTMANAGER = {"app.kubernetes.io/name": "alertmanager"}
_NOT_SERVED = "monitoring.coreos.com/"
"""Group of the Prometheus operator, which this cluster does not have."""

_NOTIFY = """
import json, sys, time, urllib.request, urllib.error
body = json.dumps({"version": "4", "alerts": [{"status": "firing", "labels": LABELS}]}).encode()
ends = time.monotonic() + 60
while True:
    try:
        with urllib.request.urlopen(ADDRESS, body, timeout=10) as response:
            print(response.read().decode())
            break
    except urllib.error.HTTPError:
        raise
    except OSError as error:  # the policies hold for this pod a moment after it was started
        if time.monotonic() > ends:
            print(json.dumps({"unreachable": True}))
            break
        time.sleep(1)
"""


def write_by_date(telemetry, directory):
    """Write telemetry as Parquet, a directory ``date=YYYY-MM-DD`` a day; return the files."""
    frame = pd.read_csv(telemetry)
    days = pd.to_datetime(frame["timestamp"], format="ISO8601", utc=True).dt.strftime("%Y-%m-%d")
    files = []
    for day, rows in frame.groupby(days):
        path = directory / f"date={day}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        rows.to_parquet(path, index=False)
        files.append(path)
    return files


def install(node, directory, retraining):
    """Install the component with a file that describes a retraining, as docs/retraining.md does."""
    (directory / "retraining.yaml").write_text(yaml.safe_dump(retraining))
    (directory / "dwcp-ml").symlink_to(ROOT)
    generated = {
        "name": "dwcp-ml-retraining", "files": ["retraining.yaml"],
        "options": {"disableNameSuffixHash": True},
    }  # fmt: skip
    kustomization = {
        "namespace": SPACE,
        "components": ["dwcp-ml/manifests/components/retraining"],
        "configMapGenerator": [generated],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    documents = yaml.safe_load_all(node.kubectl("kustomize", str(directory)))
    node.apply(*(one for one in documents if not one["apiVersion"].startswith(_NOT_SERVED)))
    node.kubectl("rollout", "status", "deployment/dwcp-ml-retraining-webhook", "-n", SPACE,
                 "--timeout=180s")  # fmt: skip


def notify(node, namespace, labels, alert="DwcpFeatureDrift"):
    """Notify the webhook from a pod, as Alertmanager does; return the response."""
    program = _NOTIFY.replace("ADDRESS", repr(ADDRESS))
    program = program.replace("LABELS", repr({"alertname": alert}))
    done = run(node, namespace, "notify", spec_of(python(program)), labels)
    assert done.returncode == 0, done.stdout
    return last_line(done)


class RunInPods:
    """A TrainingRun whose steps run in pods: a named fake of Kubeflow and of the operator's part.

    The options are those that the operator would submit.
    """

    def __init__(self, node, name, directory, secret):
        self._node, self._path = node, path_of(TRAINING_RUN, name)
        body = node.rest.get(self._path)
        resource = TrainingRun.model_validate(body)
        self.version = version_of(resource.metadata)
        options = to_run_options(resource, self.version)
        assert options.rollout_namespace == SPACE
        self.steps = InPods(
            node, directory, data=options.data_path, incidents=options.incidents_path,
            models=options.models, prefix=options.storage_prefix, version=self.version,
            secret=secret, window=(options.data_start, options.data_end),
            trigger=options.trigger, with_champions=True,
        )  # fmt: skip

    def end(self, verdict):
        """Write the status of a run that has ended, as the operator does."""
        reason = "GateApproved" if verdict == "APPROVED" else "GateRejected"
        status = {
            "phase": "Succeeded", "reason": reason, "verdict": verdict, "version": self.version,
        }  # fmt: skip
        self._node.kubectl(
            "patch", "trainingrun", self._path.rpartition("/")[2], "-n", SPACE,
            "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}),
        )  # fmt: skip


def path_of(kind, name):
    return f"/apis/{kind.api_version}/namespaces/{SPACE}/{kind.plural}/{name}"


def rollout_status(node, name):
    return node.rest.get(path_of(MODEL_ROLLOUT, name)).get("status") or {}
