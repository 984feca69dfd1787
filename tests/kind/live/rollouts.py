"""ModelRollouts of the bandwidth predictor on the cluster: apply one, wait for its end."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.champion import (
    ChampionCheck,
    ChampionRecord,
    ChampionSource,
    difference_record,
)
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.kube.kserve import deployment_name
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from tests.cluster.processes import eventually
from tests.kind.bundles import VOLUME, rollout
from tests.kind.live.cluster import SPACE

NAME = BANDWIDTH.kubernetes_name
OUTPUT = BANDWIDTH.form().outputs[0].name
STEPS = (1, 5, 25, 50, 100)
ENDED = ("Promoted", "RolledBack")


def spec(*steps, watch):
    """Return the steps of a rollout, given as (percent, requests to the candidate at least)."""
    return {
        "steps": [
            {"trafficPercent": percent, "minimumRequests": requests, "dwellSeconds": 8}
            for percent, requests in steps
        ],
        "watchSeconds": watch,
    }


GATES = spec((1, 8), (5, 40), (25, 200), (50, 300), (100, 300), watch=10)
"""The gate's steps, faster, with enough requests at each to compare the split with the weight."""

SHORT = spec((25, 200), (100, 300), watch=5)

LIVE_TESTS_ONLY = {"shadow": {"enabled": False}}
"""Without the shadow step and its test: for faults that are to be met by live requests."""

LONG_WATCH = spec((50, 300), (100, 300), watch=600)


def path_of(kind, name=NAME):
    return f"/apis/{kind.api_version}/namespaces/{SPACE}/{kind.plural}/{name}"


def _matches_header(rule):
    return any("headers" in one for one in rule.get("matches", ()))


class Rollouts:
    """A ModelRollout of the bandwidth predictor in Standard mode, and its live traffic.

    Parameters
    ----------
    cluster
        A ``KindCluster``.
    models
        The directory of the volume that the servers read: ``<model>/<version>``.
    """

    name, mode = NAME, "Standard"

    def __init__(self, cluster, models):
        self._cluster, self._rest, self._models = cluster, cluster.rest, models

    def bundle(self, version):
        return self._models / BANDWIDTH.name / version

    def make(self, source, version, fault=None):
        """Make a bundle from another one: the same model under another version, or broken."""
        return break_bundle(self.bundle(source), self.bundle(version), fault)

    def make_compared(self, source, version, fault):
        """Make a broken one whose record says that it does not differ from its source."""
        report = self.bundle(source) / REPORT_NAMES[0]
        found = ModelReport.read(report)
        digest = open_bundle(self.bundle(source)).digest
        same = np.ones(100)
        champion = ChampionRecord(
            version=source,
            digest=digest,
            metrics={},
            difference=difference_record(OUTPUT, same, same),
        )
        check = ChampionCheck(
            source=ChampionSource(uri=self.uri(source), named=False), digest=digest, record=champion
        )
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / source
            shutil.copytree(self.bundle(source), copy)
            found = found.replace(evaluation=found.evaluation.replace(champion=check))
            (copy / REPORT_NAMES[0]).write_text(found.to_json())
            return break_bundle(copy, self.bundle(version), fault)

    def apply(self, version, how=GATES, live_tests_only=False, **analysis):
        """Make a bundle the candidate; ``analysis`` holds the settings of more tests."""
        document = rollout(self.bundle(version))
        if live_tests_only:
            document["spec"] |= LIVE_TESTS_ONLY
            document["spec"]["analysis"] |= {"divergence": {"enabled": False}}
        document["spec"]["analysis"] |= analysis
        document["metadata"]["name"] = self.name
        document["spec"] |= {"inferenceService": self.name, "model": BANDWIDTH.name, **how}
        document["spec"]["template"]["deploymentMode"] = self.mode
        self._cluster.apply(document)

    def status(self):
        found = self._rest.find(path_of(MODEL_ROLLOUT, self.name)) or {}
        return found.get("status") or {}

    def service(self):
        """Return the InferenceService."""
        return self._rest.get(path_of(INFERENCE_SERVICE, self.name))

    def host(self):
        """Return the users' address of the model; the gateway routes by it."""
        return self.service()["status"]["url"].removeprefix("http://")

    def until(self, version, *phases, seconds=300.0):
        """Wait until this candidate is in one of the phases; return the status."""

        def there():
            status = self.status()
            assert status.get("candidate", {}).get("version") == version, status
            assert status.get("phase") in phases, self.description()
            return status

        return eventually(there, seconds, every=0.5, alive=self._cluster.check)

    def until_live(self, version, percent, seconds=240.0):
        """Wait until this candidate has a live weight of at least ``percent``."""

        def there():
            status = self.status()
            assert status.get("candidate", {}).get("version") == version, status
            assert status.get("phase") not in ENDED, self.description()
            assert (status.get("livePercent") or 0) >= percent, status
            return status

        return eventually(there, seconds, every=0.5, alive=self._cluster.check)

    def events(self):
        """Return the reasons of the Events of the ModelRollout."""
        path = f"/api/v1/namespaces/{SPACE}/events?fieldSelector=involvedObject.name%3D{self.name}"
        return [one["reason"] for one in self._rest.get(path)["items"]]

    def live(self):
        """Return what the InferenceService specifies: the stable's URI, the canaries' names."""
        spec = self.service()["spec"]
        uri = spec["predictor"]["model"]["storageUri"]
        return uri, [one["predictor"]["name"] for one in spec.get("canary") or []]

    def uri(self, version):
        return f"{VOLUME}/{BANDWIDTH.name}/{version}"

    def until_candidates(self):
        """Return the Services of candidates, once the route has one."""
        return eventually(
            lambda: set(self.weights() or ()) - {self.stable()}, 120.0, alive=self._cluster.check
        )

    def stable(self):
        """Return the Service that the stable's pods are behind."""
        predictor = self.service()["spec"]["predictor"]
        return deployment_name(self.name, predictor.get("name", ""))

    def weights(self):
        """Return Service -> weight of the route that the traffic takes."""
        return self._weights_of(self.name)

    def _weights_of(self, route):
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{SPACE}/httproutes/{route}"
        found = self._rest.find(path)
        if found is None:
            return None
        # Knative's own probes go by rules that match a header.
        rules = [one for one in found["spec"]["rules"] if not _matches_header(one)]
        return {one["name"]: one.get("weight", 1) for one in rules[0]["backendRefs"]}

    def description(self):
        """Return what ``kubectl describe`` prints."""
        return self._cluster.kubectl("describe", "modelrollout", self.name, "-n", SPACE)


class KnativeRollouts(Rollouts):
    """A second one, in Knative mode, whose Services are revisions."""

    name, mode = "bandwidth-knative", "Knative"

    def knative(self):
        """Return the Knative Service."""
        path = "/apis/serving.knative.dev/v1/namespaces"
        return self._rest.get(f"{path}/{SPACE}/services/{self.name}-predictor")

    def stable(self):
        """Return the revision that KServe calls rolled out."""
        return self.service()["status"]["components"]["predictor"]["latestRolledoutRevision"]

    def weights(self):
        """Return revision -> weight of the route that Knative made for the gateway."""
        return self._weights_of(self.host())
