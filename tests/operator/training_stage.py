"""One TrainingRun, a Kubeflow that does what the test says, and the gate's report."""

from dwcp_ml.adapters.kube import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.adapters.kubeflow import RunState
from dwcp_ml.contract.models import MODELS
from dwcp_ml.evaluation.gate import decide, judge
from dwcp_ml.operator.training import Trainer
from tests.evaluation.conftest import good_records
from tests.operator.memory_api import MemoryApi
from tests.operator.playing import Time

KEY = ("models", "nightly")


def report(*approved):
    reports = []
    for name in MODELS:
        training, evaluation, export, data = good_records(name)
        if name not in approved:
            export = export.model_copy(update={"success": False, "reason": "no graph"})
        export = export.model_copy(update={"bundle_digest": "d" * 64})
        reports.append(judge(training, evaluation, export, data))
    return decide("20260101-000000", reports, reports[0].data)


class FakeKubeflow:
    """A named fake: runs that end when the test says so."""

    def __init__(self):
        self.orders, self.runs, self.ended, self.content = [], {}, [], b""

    def submit(self, order):
        self.orders.append(order)
        run_id = f"run-{len(self.orders)}"
        self.runs[run_id] = RunState(run_id, "PENDING", created_at="2026-01-01T00:00:00Z")
        return run_id

    def find(self, name, namespace):
        names = [order.name for order in self.orders]
        return f"run-{names.index(name) + 1}" if name in names else ""

    def run(self, run_id):
        return self.runs.get(run_id)

    def terminate(self, run_id):
        self.ended.append(run_id)
        self.runs[run_id] = RunState(run_id, "CANCELED")

    def artifact(self, artifact_id):
        assert artifact_id == "17"
        return self.content

    def end(self, answer=None, **fields):
        self.content = b"" if answer is None else answer.to_json().encode()
        artifacts = {} if answer is None else {"report": "17"}
        self.runs["run-1"] = RunState("run-1", artifacts=artifacts, **fields)


class Stage:
    def __init__(self, **spec):
        self.api, self.time, self.kubeflow, self.told = MemoryApi(), Time(), FakeKubeflow(), []
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
            self.time.clock, tell=self.told.append,
        )  # fmt: skip

    def look(self):
        self.time.pass_time(10)
        return self.trainer.reconcile(KEY)

    @property
    def status(self):
        return self.api.at(TRAINING_RUN, *KEY).get("status", {})

    @property
    def conditions(self):
        return {one["type"]: one["status"] for one in self.status["conditions"]}

    def rollouts(self):
        return {one["metadata"]["name"]: one for one in self.api.list(MODEL_ROLLOUT, KEY[0])}
