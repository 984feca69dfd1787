"""The manifests by themselves: what a reviewer would look for, before any API server does."""

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

from dwcp_ml.cli import main
from dwcp_ml.cli.operator import run_command
from dwcp_ml.kube.manifests import RUNTIME
from tests.documents import document_of, documents_of

ROOT = Path(__file__).parents[2] / "manifests"
FILES = sorted(path for path in ROOT.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(ROOT.rglob("kustomization.yaml"))


@functools.cache
def documents():
    return [
        pytest.param(document, id=f"{path.name}:{document['metadata']['name']}")
        for path in FILES
        for document in documents_of(path)
    ]


def named_by(kustomization):
    """Return the resources and the files of patches that a kustomization names."""
    content = document_of(kustomization)
    patches = [one["path"] for one in content.get("patches", []) if "path" in one]
    return [*content.get("resources", []), *patches]


def of_kind(*kinds):
    return [each for each in documents() if each.values[0]["kind"] in kinds]


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_every_file_that_a_kustomization_names_is_there(path):
    for name in named_by(path):
        found = (path.parent / name).resolve()
        assert found.exists(), name
        # kustomize refuses a file that is not below the kustomization; a directory may be anywhere.
        assert found.is_dir() or found.is_relative_to(path.parent.resolve()), name


def test_every_file_is_named_by_a_kustomization():
    named = {(path.parent / name).resolve() for path in KUSTOMIZATIONS for name in named_by(path)}
    assert {path.resolve() for path in FILES} <= named
    directories = {path.parent.resolve() for path in KUSTOMIZATIONS}
    assert {path for path in named if path.is_dir()} <= directories


@pytest.mark.parametrize("document", of_kind("Deployment", "ServingRuntime"))
def test_containers_are_restricted(document):
    spec = document["spec"]
    pod = spec["template"]["spec"] if document["kind"] == "Deployment" else spec
    outer = pod.get("securityContext", {})
    for container in pod["containers"]:
        inner = container["securityContext"]
        assert inner["allowPrivilegeEscalation"] is False
        assert inner["readOnlyRootFilesystem"] is True
        assert inner["capabilities"] == {"drop": ["ALL"]}
        both = {**outer, **inner}
        assert both["runAsNonRoot"] is True
        assert both["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "memory" in container["resources"]["limits"]
        assert container["resources"]["requests"]


@pytest.mark.parametrize("document", of_kind("Role", "ClusterRole"))
def test_rights_name_what_they_give(document):
    for rule in document["rules"]:
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words
        assert "secrets" not in rule["resources"]
        assert not [name for name in rule["resources"] if name.startswith("pods/")]


def rights_of(name):
    """Return every (group, resource, verb) of the roles of a name."""
    roles = [one.values[0] for one in of_kind("Role", "ClusterRole")]
    return {
        (group, resource, verb)
        for one in roles
        if one["metadata"]["name"] == name
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


STATUS_AND_FINALIZERS = ("status", "finalizers", "scale")


@pytest.mark.parametrize(
    ("role", "verbs", "aggregated_to"),
    [
        ("dwcp-ml-view", {"get", "list", "watch"}, {"view", "edit", "admin"}),
        ("dwcp-ml-edit", {"create", "update", "patch", "delete"}, {"edit", "admin"}),
        ("dwcp-ml-admin", {"deletecollection"}, {"admin"}),
    ],
)
def test_a_role_for_users_gives_its_verbs_on_both_kinds_and_no_status(role, verbs, aggregated_to):
    kinds = ("modelrollouts", "trainingruns")
    assert rights_of(role) == {("ml.dwcp.io", kind, verb) for kind in kinds for verb in verbs}
    (document,) = [
        one.values[0] for one in of_kind("ClusterRole") if one.values[0]["metadata"]["name"] == role
    ]
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    labels = document["metadata"]["labels"]
    found = {key.removeprefix(prefix) for key in labels if key.startswith(prefix)}
    assert found == aggregated_to
    assert {labels[prefix + name] for name in found} == {"true"}


def test_only_the_operator_may_write_a_status_or_finalizers():
    givers = {
        one.values[0]["metadata"]["name"]
        for one in of_kind("Role", "ClusterRole")
        for rule in one.values[0]["rules"]
        for resource in rule["resources"]
        if resource.partition("/")[2] in STATUS_AND_FINALIZERS
    }
    assert givers == {"dwcp-ml-operator"}


def test_an_account_of_ours_gives_its_token_to_no_pod_that_does_not_ask():
    for document in (one.values[0] for one in of_kind("ServiceAccount")):
        if document["metadata"]["name"] == "dwcp-ml-pipeline":
            continue  # Kubeflow makes these pods; its launcher and publish-candidate use the token.
        assert document["automountServiceAccountToken"] is False
    for document in (one.values[0] for one in of_kind("Deployment")):
        assert document["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_the_pipeline_may_write_rollouts_and_nothing_else():
    wanted = {("ml.dwcp.io", "modelrollouts", verb) for verb in ("get", "create", "update")}
    assert rights_of("dwcp-ml-pipeline") == wanted


def test_the_operator_makes_no_rollout_and_the_pipeline_no_service():
    about = {(resource, verb) for _, resource, verb in rights_of("dwcp-ml-operator")}
    assert ("modelrollouts", "create") not in about
    assert {("inferenceservices", "create"), ("modelrollouts", "update")} <= about


@pytest.mark.parametrize("document", of_kind("RoleBinding", "ClusterRoleBinding"))
def test_every_binding_is_of_a_role_and_an_account_that_are_there(document):
    """With a namespace of its own: the API server takes none without, and kustomize adds none."""
    roles = {(one.values[0]["kind"], one.values[0]["metadata"]["name"])
             for one in of_kind("Role", "ClusterRole")}  # fmt: skip
    assert (document["roleRef"]["kind"], document["roleRef"]["name"]) in roles
    accounts = {one.values[0]["metadata"]["name"] for one in of_kind("ServiceAccount")}
    for subject in document["subjects"]:
        assert subject["name"] in accounts
        assert subject["namespace"] == "dwcp-ml"


def runtimes():
    return {
        one.values[0]["metadata"]["name"]: one.values[0]["spec"]
        for one in of_kind("ServingRuntime")
    }


def test_the_runtime_is_the_one_that_the_gate_names():
    """A second one with gRPC differs in its port only, and is not chosen by itself."""
    assert runtimes().keys() == {RUNTIME, f"{RUNTIME}-grpc"}
    one, other = runtimes()[RUNTIME], runtimes()[f"{RUNTIME}-grpc"]
    for spec, automatic in ((one, True), (other, False)):
        (form,) = spec["supportedModelFormats"]
        assert form == {"name": "dwcp-ml-bundle", "version": "1", "autoSelect": automatic}
    (plain,), (both,) = one["containers"], other["containers"]
    assert [port["name"] for port in both["ports"]] == ["http1", "h2c"]
    assert f"--grpc_port={both['ports'][1]['containerPort']}" in both["args"]
    assert both["ports"][:1] == plain["ports"]
    changed = {"ports", "args"}
    assert {k: v for k, v in plain.items() if k not in changed} == {
        k: v for k, v in both.items() if k not in changed
    }
    assert other["protocolVersions"] == [*one["protocolVersions"], "grpc-v2"]


def test_the_operator_allows_both_runtimes_by_default():
    (option,) = [each for each in run_command.params if each.name == "allowed_runtimes"]
    assert set(option.default.split(",")) == runtimes().keys()


@pytest.mark.parametrize("name", [RUNTIME, f"{RUNTIME}-grpc"])
def test_a_server_that_is_told_to_end_answers_on_and_is_done_before_it_is_killed(name):
    (container,) = runtimes()[name]["containers"]
    told = dict(word.split("=") for word in container["args"] if "-seconds=" in word)
    drain, grace = int(told["--drain-seconds"]), int(told["--grace-seconds"])
    assert drain >= 5, "a gateway hears of it seconds later"
    assert drain + grace < 30, "Kubernetes's terminationGracePeriodSeconds, if nobody asks for more"


@pytest.mark.parametrize("document", of_kind("Deployment", "ServingRuntime"))
def test_the_arguments_are_options_of_the_command(document, capsys):
    spec = document["spec"]
    pod = spec["template"]["spec"] if document["kind"] == "Deployment" else spec
    arguments = pod["containers"][0]["args"]
    words = [word for word in arguments if not word.startswith("--")]
    main([*words, "--help"])
    said = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        assert option in said, option


def test_rules_and_dashboard_ask_for_metrics_that_exist():
    reference = (ROOT.parent / "docs/reference/metrics.md").read_text()  # generated from the code
    listed = set(re.findall(r"`(dwcp_\w+)`", reference))
    names = {f"{name}{end}" for name in listed for end in ("", "_bucket", "_count", "_sum")}
    rules = [
        rule
        for document in of_kind("PrometheusRule")
        for group in document.values[0]["spec"]["groups"]
        for rule in group["rules"]
    ]
    expressions = [rule["expr"] for rule in rules]
    records = {rule["record"] for rule in rules if "record" in rule}
    dashboard = json.loads((ROOT / "overlays/prometheus/dashboard.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    for expression in expressions:
        asked = set(re.findall(r"\bdwcp_\w+", expression))
        recorded = set(re.findall(r"\bdwcp:[\w:]+", expression))
        assert asked | recorded, expression
        assert recorded <= records, expression
        assert asked <= names, expression


def test_the_pipelines_policy_compares_every_field_but_the_candidate():
    """A field that the CRD gets later must not be the pipeline's to change."""
    crd = document_of(ROOT / "crds/ml.dwcp.io_modelrollouts.yaml")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    (policy,) = of_kind("ValidatingAdmissionPolicy")
    change = policy.values[0]["spec"]["validations"][0]["expression"]
    compared = set(re.findall(r"object\.spec\.\?(\w+) == oldObject\.spec\.\?\1", change))
    assert compared == set(schema["properties"]["spec"]["properties"]) - {"candidate"}


@pytest.mark.parametrize("name", [RUNTIME, f"{RUNTIME}-grpc"])
def test_the_component_for_signed_bundles_fits_the_runtime(name):
    """What it adds is not there yet, and the key's path is in the volume of the key."""
    runtime = runtimes()[name]
    component = yaml.safe_load((ROOT / "components/signed-bundles/kustomization.yaml").read_text())
    (patch,) = component["patches"]
    assert re.fullmatch(patch["target"]["name"], name)
    added = {one["path"]: one["value"] for one in yaml.safe_load(patch["patch"])}
    container = runtime["containers"][0]
    assert {"volumeMounts", "volumes"}.isdisjoint({*container, *runtime})
    path = Path(added["/spec/containers/0/args/-"].partition("=")[2])
    mounts = {one["name"]: one for one in added["/spec/containers/0/volumeMounts"]}
    volumes = {one["name"]: one for one in added["/spec/volumes"]}
    assert mounts.keys() == volumes.keys()
    (key,) = [name for name, mount in mounts.items() if Path(mount["mountPath"]) == path.parent]
    assert mounts[key]["readOnly"] is True
    assert not volumes[key]["configMap"].get("optional"), "without the key no server starts"
    assert "emptyDir" in volumes[next(n for n, m in mounts.items() if m["mountPath"] == "/tmp")]
