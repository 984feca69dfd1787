"""The pipeline twice: as `make run` on this machine, and step by step in pods of the cluster."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from tests.cluster.build import ROOT
from tests.images.steps import MOUNT, Steps
from tests.kind.bundles import VOLUME
from tests.kind.live.cluster import SPACE
from tests.kind.live.pods import TrainerPods

SEED = 42
VERSION = os.environ.get("KIND_TEST_VERSION", "20260101-000000")
"""Of the models that the pipeline trains on the cluster."""

PIPELINE_ACCOUNT = "dwcp-ml-pipeline"
_SECONDS = 1800


class Reference:
    """`make run ROLLOUT=no` with the default seed, started in the background.

    KIND_TEST_RUN names a finished one to use instead.

    Parameters
    ----------
    directory
        Takes the run.
    """

    def __init__(self, directory):
        self._directory, self._process = directory, None

    def __enter__(self):
        if "KIND_TEST_RUN" not in os.environ:
            self._log = (self._directory / "run.log").open("w")
            command = [
                sys.executable, "-m", "dwcp_ml.cli", "pipeline", "run", "--seed", str(SEED),
                "--no-rollouts", "--output-dir", str(self._directory / "runs"),
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *error):
        if self._process is not None:
            self._process.kill()
            self._process.wait(30.0)
            self._log.close()

    def result(self):
        """Return the run's directory, once it has ended."""
        if self._process is None:
            return Path(os.environ["KIND_TEST_RUN"]).resolve()
        code = self._process.wait(_SECONDS)
        # 3: the gate said REJECTED; that is compared like everything else.
        assert code in (0, 3), (self._directory / "run.log").read_text()[-3000:]
        return (self._directory / "runs" / "latest").resolve()


class InPods:
    """Every step of the compiled pipeline, each in a pod; the steps one after the other.

    Parameters
    ----------
    cluster
        A ``KindCluster``.
    directory
        What the steps write.
    data, incidents
        Addresses of the telemetry; simulated if empty.
    models
        Their full names.
    prefix
        Where the bundles are published.
    version
        Of the models.
    secret
        A Secret whose keys are variables of the steps.
    window
        Start and end of the telemetry that is used, empty for no bound.
    trigger
        What started the run.
    with_champions
        Whether the live bundles are looked for, and compared with.
    """

    def __init__(
        self, cluster, directory, *, data="", incidents="", models=tuple(MODELS), prefix=VOLUME,
        version=VERSION, secret=None, window=("", ""), trigger="manual", with_champions=False,
    ):  # fmt: skip
        self.pods = TrainerPods(cluster, directory, secret)
        self.steps = Steps(self.pods.start, directory, MOUNT, "minio://run")
        self.models, self.verdict = models, ""
        self._data, self._incidents = data, incidents
        self._prefix, self._version = prefix, version
        self._window, self._trigger, self._with_champions = window, trigger, with_champions
        self.champions = {}

    def train(self):
        """Run everything from telemetry to the gate; return the gate's verdict."""
        given = {
            "data_path": self._data, "incidents_path": self._incidents,
            "data_start": self._window[0], "data_end": self._window[1],
            "models": ",".join(self.models),
            "seed": SEED, "packet_loss_unit": "fraction",
            "congestion_window_unit": "bytes", "version": self._version,
        }  # fmt: skip
        digest = self.steps.run("validate", "validate-data", given)["data_digest"]
        if self._with_champions:
            given = {
                "stable_uri": "", "models": ",".join(self.models), "rollout_namespace": SPACE,
            }  # fmt: skip
            with self._account():
                found = self.steps.run("find-champions", "find-champions", given)
            self.champions = found["Output"]
        for model in self.models:
            self._one(model, digest)
        bundles = self._bundles()
        given = {
            "version": self._version, "enabled": True, "stable_uri": "",
            "requests_per_second": 100.0,
        }  # fmt: skip
        self.steps.run("check", "check-api", given, **bundles)
        given = {
            "version": self._version, "kserve_mode": "standard", "stable_uri": "",
            "storage_prefix": self._prefix, "strict": False,
        }  # fmt: skip
        before = {"dataset": "validate/dataset", "checks": "check/checks", **bundles}
        verdict = self.steps.run("gate", "gate", given, **before)["Output"]
        outputs = self.steps.run("verdict", verdict.lower(), {"version": self._version})
        self.verdict = outputs["Output"]
        return verdict

    def publish_candidates(self):
        """Copy the bundles to the servers' volume and make the ModelRollouts, as the pipeline's
        own account.
        """
        given = {
            "version": self._version, "verdict": self.verdict, "rollout_namespace": SPACE,
            "storage_prefix": self._prefix,
        }  # fmt: skip
        with self._account():
            self.steps.run(
                "publish-candidate", "publish-candidate", given, manifests="gate/manifests",
                **self._bundles(),
            )  # fmt: skip

    @contextmanager
    def _account(self):
        """The steps inside run as the pipeline's own account."""
        self.pods.account = PIPELINE_ACCOUNT
        try:
            yield
        finally:
            self.pods.account = None

    def _bundles(self):
        return {model: f"export-{model}/bundle" for model in self.models}

    def _one(self, model, digest):
        common = {"data_digest": digest}
        given = {**common, "version": self._version, "seed": SEED, "model_options": {}}
        name = f"train-{model.replace('_', '-')}"
        self.steps.run(f"train-{model}", name, given, dataset="validate/dataset")
        before = {"dataset": "validate/dataset", "model": f"train-{model}/model"}
        given = {**common, "model_name": model}
        options = {"accept_leak": "", "champions": self.champions, "champion_rule": "not_worse"}
        self.steps.run(f"evaluate-{model}", "evaluate", {**given, **options}, **before)
        before["evaluation"] = f"evaluate-{model}/evaluation"
        given |= {"export_formats": "keras,onnx,savedmodel", "trigger": self._trigger}
        self.steps.run(f"export-{model}", "export", given, **before)


def first_bundle(run, target):
    """Finalize the bandwidth predictor of a run again as the version of the pods' run."""
    (source,) = (run / "models" / BANDWIDTH.name).iterdir()
    break_bundle(source, target, None)
