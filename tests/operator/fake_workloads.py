"""Pods and statuses, for the fake KServe in both modes."""

from dwcp_ml.kube.api import INFERENCE_SERVICE, POD, Gone

SERVICE = "serving.kserve.io/inferenceservice"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"


def containers_of(predictor):
    """Return the container of a pod template: KServe appends a model's args to the runtime's."""
    args = ["serve", "--model_dir=/mnt/models", *predictor.get("model", {}).get("args", [])]
    return {"containers": [{"name": "kserve-container", "args": args}]}


def condition(kind, is_true):
    return {"type": kind, "status": "True" if is_true else "False"}


def owned(found, name, app, **labels):
    """Return the metadata of what belongs to an InferenceService."""
    return {
        "name": name,
        "namespace": found["metadata"]["namespace"],
        "labels": {
            "app": f"isvc.{app}", SERVICE: found["metadata"]["name"], "component": "predictor",
            **labels,
        },
        "ownerReferences": [{"uid": found["metadata"]["uid"], "controller": True}],
    }  # fmt: skip


def pods(kserve, found, owner, labels, number):
    """Set the number of pods of a Deployment or a revision."""
    workload, space = owner["metadata"]["name"], owner["metadata"]["namespace"]
    there = kserve.api.list(POD, space, ",".join(f"{key}={value}" for key, value in labels.items()))
    names = [f"{workload}-{position}" for position in range(number)]
    for gone in {pod["metadata"]["name"] for pod in there} - set(names):
        kserve.api.delete(POD, space, gone)
    for position, name in enumerate(names):
        metadata = {**owned(found, name, workload), "ownerReferences": [owner_of(owner)]}
        metadata["labels"].update(labels)
        live = kserve.api.get(POD, space, name) or kserve.api.create({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [
                {"name": "queue-proxy", "ports": [{"containerPort": 8012}]},
                {"name": "kserve-container", "ports": [{"containerPort": 8080}]},
            ]},
        })  # fmt: skip
        is_ready = workload not in kserve.unready
        status = {
            "phase": "Running",
            "podIP": f"10.0.{int(live['metadata']['uid'][4:]) % 250}.{position + 1}",
            "conditions": [condition("Ready", is_ready)],
            "containerStatuses": [
                {
                    "name": "kserve-container",
                    "restartCount": kserve.crashes.get(workload, 0) if position == 0 else 0,
                }
            ],
            **kserve.pod_status.get(workload, {}),
        }
        kserve.api.replace({**live, "status": status}, status=True)


def owner_of(owner):
    return {"uid": owner["metadata"]["uid"], "controller": True}


def write_status(kserve, found, status):
    """Write the status of an InferenceService, if somebody did not change it meanwhile."""
    space, name = found["metadata"]["namespace"], found["metadata"]["name"]
    live = kserve.api.get(INFERENCE_SERVICE, space, name)
    if live is None:
        raise Gone(f"InferenceService {name} went while it was reconciled.")
    kserve.api.replace({**live, "status": {**(live.get("status") or {}), **status}}, status=True)
