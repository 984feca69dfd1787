"""One publication against an API server in memory."""

from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.kube.api import MODEL_ROLLOUT
from dwcp_ml.kube.manifests import manifests, model_rollout, storage_uri
from dwcp_ml.kube.publish_candidate import publish_candidates
from tests.operator.memory_api import MemoryApi

PREFIX, NAMESPACE, VERSION = "s3://models", "models", "20260102-000000"
DIGEST = "ab" * 32
NAMES = [spec.kubernetes_name for spec in MODELS.values()]


def written(root, *names, version=VERSION, digest=DIGEST, mode="standard", prefix=PREFIX):
    """Write what the gate writes for these models; return the directory."""
    for name in names:
        spec = MODELS[name]
        uri = storage_uri(prefix, "", spec, version)
        for file, text in manifests(spec, version, uri, digest, "", mode).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / file).write_text(text)
    return root


def existing_rollout(api, name="bandwidth-predictor", **spec):
    """Create a ModelRollout with another version."""
    found = model_rollout(BANDWIDTH, "v1", f"{PREFIX}/bandwidth_predictor/v1", "cd" * 32)
    found["metadata"].update(name=name, namespace=NAMESPACE)
    found["spec"].update(inferenceService=name, **spec)
    return api.aside().create(found)


class Publication:
    """One publication, and every sentence that it reports."""

    def __init__(self, root, api=None):
        self.root, self.api, self.said, self.slept = root, api or MemoryApi(), [], []
        self.delivered = []

    def __call__(self, verdict="APPROVED", **changes):
        given = {"version": VERSION, "storage_prefix": PREFIX, **changes}
        publish_candidates(
            self.root, NAMESPACE, self.api, verdict=verdict, say=self.said.append,
            sleep=self.slept.append, deliver=self.deliver, **given,
        )  # fmt: skip

    def deliver(self, name, digest):
        """Take the place of the copy to the store; count the writes to the API server before it."""
        self.delivered.append((name, digest, len(self.api.writes)))

    def candidates(self):
        found = self.api.aside().list(MODEL_ROLLOUT, NAMESPACE)
        return {one["metadata"]["name"]: one["spec"]["candidate"]["version"] for one in found}
