"""What the scripts name of other projects is in ``names.yaml``, with where it was read."""

import re
from pathlib import Path

import yaml

HERE = Path(__file__).parent
SCRIPTS = ("install.sh", "prove.sh", "lib.sh")
LISTED = yaml.safe_load((HERE / "names.yaml").read_text())
VERSIONS = dict(
    re.findall(r'^: "\$\{(\w+):=(\S+)\}"$', (HERE / "versions.env").read_text(), re.MULTILINE)
)
OURS = {"dwcp-ml", "object-store"}
_OF_KUBERNETES = {"kube-system"}
_KINDS = {
    "deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
    "service": "Service", "svc": "Service", "secret": "Secret", "configmap": "ConfigMap",
    "cm": "ConfigMap",
}  # fmt: skip


def named(text):
    """Yield (namespace, kind, name) of what a script waits for, reads, patches or forwards to."""
    kinds = "|".join(_KINDS)
    for space, one in re.findall(r"available (\S+) \d+ (\S+/\S+)$", text, re.MULTILINE):
        if "$" not in one:
            yield space, *one.split("/", 1)
    loop = r"for one in (.+); do\n    available (\S+) \d+ \"deployment/\$one\""
    for names, space in re.findall(loop, text):
        yield from ((space, "deployment", name) for name in names.split())
    for kind, name, space in re.findall(
        rf"\b({kinds})[ /](?!-)([a-z][\w-]+)(?: --\S+)* -n ([\w-]+)", text
    ):
        yield space, kind, name
    for space, kind, name in re.findall(
        rf"-n ([\w-]+) (?:get |logs |describe |rollout \w+ )?({kinds})[ /]([a-z][\w-]+)", text
    ):
        yield space, kind, name
    for space, one in re.findall(r"forward (\S+) (\S+)", text):
        if "/" in one:
            yield space, *one.split("/", 1)


def test_every_object_of_another_project_is_listed():
    text = "\n".join((HERE / script).read_text() for script in SCRIPTS)
    listed = {one for project in LISTED for one in project["objects"]}
    found = {
        f"{space}/{_KINDS[kind]}/{name}"
        for space, kind, name in named(text)
        if space not in OURS | _OF_KUBERNETES
    }
    assert len(found) >= 20
    assert found <= listed


def test_every_setting_of_another_project_is_listed():
    listed = {one for project in LISTED for one in project["objects"]}
    text = (HERE / "manifests" / "knative-settings.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    assert documents
    for one in documents:
        metadata = one["metadata"]
        assert f"{metadata['namespace']}/{one['kind']}/{metadata['name']}" in listed


def test_the_list_is_of_the_versions_that_are_installed():
    variables = {
        "Envoy Gateway": "ENVOY_GATEWAY_VERSION", "cert-manager": "CERT_MANAGER_VERSION",
        "Knative Serving": "KNATIVE_VERSION",
        "Knative over the Gateway API": "KNATIVE_GATEWAY_VERSION",
        "Kubeflow Pipelines": "KUBEFLOW_PIPELINES_VERSION",
    }  # fmt: skip
    found = {one["project"]: one["version"] for one in LISTED}
    # KServe's is the newest that an archive serves; what it names has not moved in 0.21.
    assert {name: found[name] for name in variables} == {
        name: VERSIONS[variable] for name, variable in variables.items()
    }
