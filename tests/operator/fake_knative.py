"""Fakes of KServe in Knative mode and of Knative itself: see ``fake_kserve``.

What is kept on purpose: every change of the predictor but that of its share makes a new revision;
"the latest" is the latest that is ready, so that until then a share goes to the revision before,
be it one that was rolled back; KServe computes the traffic from what its status said before this
pass, so that a share of 0 after all traffic first splits the traffic over one and the same
revision, and only then finds the one before it; Knative carries out in one pass what KServe wrote
in the pass before, and its status is about something else until then.
"""

from dwcp_ml.kube.api import KNATIVE_SERVICE
from tests.operator.fake_workloads import SOURCE, condition, owned, pods, write_status

_REVISION = "serving.knative.dev/revision"


def knative_pass(kserve, found):
    """Make one pass over an InferenceService in Knative mode."""
    predictor = found["spec"]["predictor"]
    before = (found.get("status") or {}).get("components", {}).get("predictor", {})
    service, has_changed = _service(kserve, found, predictor, _traffic(predictor, before))
    if has_changed:
        return  # Knative comes to it later; until then its status is about what was asked before
    service = kserve.api.replace({**service, "status": _carried_out(kserve, service)}, status=True)
    _note_what_is_broken(kserve, service)
    status = service["status"]
    used = {one["revisionName"] for one in status["traffic"] if one["percent"]}
    for revision in sorted(used | {status["latestCreatedRevisionName"]}):
        owner = {"metadata": {**service["metadata"], "name": revision}}
        pods(kserve, found, owner, {_REVISION: revision}, max(predictor.get("minReplicas", 1), 1))
    is_ready = bool(status["latestReadyRevisionName"])
    conditions = [condition(kind, is_ready) for kind in ("IngressReady", "PredictorReady", "Ready")]
    write_status(kserve, found, {
        "deploymentMode": "Knative", "conditions": conditions,
        "components": {"predictor": _remembered(before, status)},
    })  # fmt: skip


def _traffic(predictor, before):
    share = predictor.get("canaryTrafficPercent")
    rolled_out = before.get("latestRolledoutRevision", "")
    if share is None or not rolled_out:
        return [{"latestRevision": True, "percent": 100}]
    targets = [{"latestRevision": True, "percent": share}]
    if share < 100:
        other = {"revisionName": rolled_out, "latestRevision": False, "tag": "prev"}
        targets.append({**other, "percent": 100 - share})
    return targets


def _service(kserve, found, predictor, traffic):
    """Return the Knative Service, and whether this pass changed what is asked of it."""
    space, name = found["metadata"]["namespace"], f"{found['metadata']['name']}-predictor"
    content = {key: value for key, value in predictor.items() if key != "canaryTrafficPercent"}
    annotations = {
        **predictor.get("annotations", {}), SOURCE: predictor["model"].get("storageUri"),
    }  # fmt: skip
    spec = {
        "template": {"metadata": {"annotations": annotations}, "spec": {"content": content}},
        "traffic": traffic,
    }
    live = kserve.api.get(KNATIVE_SERVICE, space, name)
    if live is None:
        return kserve.api.create({
            "apiVersion": KNATIVE_SERVICE.api_version, "kind": KNATIVE_SERVICE.kind,
            "metadata": owned(found, name, name), "spec": spec,
        }), True  # fmt: skip
    if live["spec"] != spec:
        return kserve.api.replace({**live, "spec": spec}), True
    return live, False


def _carried_out(kserve, service):
    """Return the status of the Knative Service: revisions made, traffic given."""
    before = service.get("status") or {"made": [], "latestReadyRevisionName": ""}
    made = list(before["made"])
    if not made or made[-1] != service["spec"]["template"]:
        made.append(service["spec"]["template"])
    newest = f"{service['metadata']['name']}-{len(made):05d}"
    ready = before["latestReadyRevisionName"] if newest in kserve.unready else newest
    given = [
        {**one, "revisionName": ready if one.get("latestRevision") else one["revisionName"]}
        for one in service["spec"]["traffic"]
    ]
    return {
        "made": made,
        "observedGeneration": service["metadata"]["generation"],
        "latestCreatedRevisionName": newest,
        "latestReadyRevisionName": ready,
        "traffic": given if ready else [],
        "conditions": [{"type": "RoutesReady", "status": "True" if ready else "Unknown"}],
    }


def _note_what_is_broken(kserve, service):
    for one in service["status"]["traffic"]:
        if one["percent"] and one["revisionName"] in kserve.unready:
            kserve.broken.append((one["revisionName"], one["percent"]))


def _remembered(before, service):
    """Return what KServe keeps of the revisions."""
    ready = service["latestReadyRevisionName"]
    rolled_out = before.get("latestRolledoutRevision", "")
    previous = before.get("previousRolledoutRevision", "")
    total = sum(one["percent"] for one in service["traffic"] if one["revisionName"] == ready)
    for one in service["traffic"]:
        if not one.get("latestRevision") or one["revisionName"] != ready:
            continue
        if rolled_out != ready and one["percent"] == 100:
            rolled_out, previous = ready, rolled_out
        elif (
            rolled_out == ready == service["latestCreatedRevisionName"]
            and one["percent"] < 100 == total
            and previous
        ):
            rolled_out = previous
    return {
        "latestCreatedRevision": service["latestCreatedRevisionName"],
        "latestReadyRevision": ready,
        "latestRolledoutRevision": rolled_out,
        "previousRolledoutRevision": previous,
        "traffic": service["traffic"],
    }
