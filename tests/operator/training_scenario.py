"""One TrainingRun, and a Kubeflow that does what the test says."""

from dwcp_ml.contract.models import model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.kube.manifests import model_rollout, storage_uri
from dwcp_ml.kube.publish_candidate import publish
from dwcp_ml.kubeflow.client import RunState, TaskState
from dwcp_ml.operator.training_reconcile import Trainer
from tests.operator.fake_servers import Time
from tests.operator.memory_api import MemoryApi

KEY = ("models", "nightly")


def published(api, request, *names):
    """Do what the pipeline does with the models that its gate approved."""
    arguments = request.arguments
    for spec in map(model_spec, names):
        uri = storage_uri(arguments["storage_prefix"], "", spec, arguments["version"])
        made = model_rollout(spec, arguments["version"], uri, "d" * 64)
        made["metadata"]["namespace"] = arguments["rollout_namespace"]
        publish(api, made)


class FakeKubeflow:
    """A named fake: runs that end when the test says so."""

    def __init__(self):
        self.requests, self.runs, self.ended = [], {}, []

    def check(self, request):
        pass

    def submit(self, request):
        self.requests.append(request)
        run_id = f"run-{len(self.requests)}"
        self.runs[run_id] = RunState(run_id, "PENDING", created_at="2026-01-01T00:00:00Z")
        return run_id

    def find(self, name, namespace):
        names = [request.name for request in self.requests]
        return f"run-{names.index(name) + 1}" if name in names else ""

    def run(self, run_id):
        return self.runs.get(run_id)

    def terminate(self, run_id):
        self.ended.append(run_id)
        self.runs[run_id] = RunState(run_id, "CANCELING")

    def artifact(self, artifact_id):
        raise AssertionError("the released servers have no artifacts")

    def end(self, *tasks, state="SUCCEEDED", run_id="run-1", **fields):
        """End a run: these tasks have succeeded, and with ``-`` before its name one has failed."""
        states = tuple(
            TaskState(name.lstrip("-"), "FAILED" if name.startswith("-") else "SUCCEEDED")
            for name in tasks
        )
        self.runs[run_id] = RunState(run_id, state, tasks=states, **fields)


class TrainingScenario:
    def __init__(self, **spec):
        self.api, self.time, self.kubeflow, self.events = MemoryApi(), Time(), FakeKubeflow(), []
        self.api.create(
            {
                "apiVersion": TRAINING_RUN.api_version,
                "kind": "TrainingRun",
                "metadata": {"namespace": KEY[0], "name": KEY[1]},
                "spec": {
                    "data": {"uri": "s3://telemetry/1.parquet"},
                    "storagePrefix": "s3://models",
                    **spec,
                },
            }
        )
        self.trainer = Trainer(
            self.api, self.kubeflow, lambda models: {"pipeline_spec": {"for": sorted(models)}},
            self.time.clock, recorder=self,
        )  # fmt: skip

    def record(self, event):
        self.events.append(event)

    def reconcile(self):
        self.time.pass_time(10)
        return self.trainer.reconcile(KEY)

    def publish(self, *names):
        """Do what the last task of the pipeline does; the operator does not write it."""
        published(self.api.aside(), self.kubeflow.requests[-1], *names)

    @property
    def status(self):
        return self.api.at(TRAINING_RUN, *KEY).get("status", {})

    @property
    def conditions(self):
        return {one["type"]: one["status"] for one in self.status["conditions"]}

    def rollouts(self):
        return {one["metadata"]["name"]: one for one in self.api.list(MODEL_ROLLOUT, KEY[0])}
