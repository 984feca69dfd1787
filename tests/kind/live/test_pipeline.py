"""Every step of the pipeline in a pod of the trainer's image; the same results as `make run`."""

import json

import numpy as np
import pytest

from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.export.verify import open_bundle
from tests.kind.live.cluster import SPACE
from tests.kind.live.pods import last_line, python
from tests.kind.live.run import VERSION

pytestmark = [pytest.mark.kind, pytest.mark.timeout(3600)]

_SEES = """
import json, os, socket
def fails(call):
    try:
        call()
    except OSError:
        return True
    return False
print(json.dumps({
    'no way out': fails(lambda: socket.create_connection(('203.0.113.1', 443), 10)),
    'no names': fails(lambda: socket.getaddrinfo('example.com', 443)),
    'user': os.getuid(),
    'read-only': bool(os.statvfs('/').f_flag & os.ST_RDONLY),
    'writable': [one for one in ('/', '/opt/dwcp-ml', '/usr', '/tmp') if os.access(one, os.W_OK)],
}))
"""


def test_a_pod_has_no_way_out_and_no_rights(in_pods):
    found = last_line(in_pods.pods.start(python(_SEES)))
    assert found["no way out"]
    assert found["no names"]
    assert found["user"] == 65532
    assert found["read-only"]
    assert found["writable"] == ["/tmp"]


def test_every_step_gives_what_make_run_gives(trained, in_pods, reference):
    run = reference.result()
    here = json.loads((run / "report.json").read_text())
    there = json.loads(in_pods.steps.path("gate/report").read_text())
    for model in MODELS:
        with (
            np.load(run / "work/trained" / model / "arrays.npz", allow_pickle=False) as ours,
            np.load(in_pods.steps.path(f"train-{model}/model/arrays.npz")) as theirs,
        ):
            assert sorted(ours.files) == sorted(theirs.files)
            for name in ours.files:
                assert np.array_equal(ours[name], theirs[name]), f"{model}: {name}"
        one, other = here["models"][model], there["models"][model]
        for what in ("target_metrics", "hyperparameters", "test_set_size", "success", "verdict"):
            assert other[what] == one[what], f"{model}: {what}"
        # Sums over arrays at other addresses may differ in the last of sixteen digits.
        assert other["achieved_metrics"] == pytest.approx(one["achieved_metrics"], rel=1e-12)
    for report in (here, there):  # the digests stand for the content
        del report["data"]["path"], report["data"]["incidents_path"]
    assert here["data"] == there["data"]
    assert trained == in_pods.verdict == ("APPROVED" if here["overall_success"] else "REJECTED")


def test_what_the_gate_approved_is_deployed_without_a_command(trained, in_pods, node, models):
    assert trained == "APPROVED"
    in_pods.publish_candidates()
    for model in MODELS:
        open_bundle(models / model / VERSION, strict_location=True)
        name = model_spec(model).kubernetes_name
        node.kubectl("wait", f"modelrollout/{name}", "-n", SPACE, "--timeout=240s",
                     "--for=jsonpath={.status.phase}=Promoted")  # fmt: skip
        (pod,) = node.pods(f"serving.kserve.io/inferenceservice={name}")
        assert all(one["ready"] for one in pod["status"]["containerStatuses"])
