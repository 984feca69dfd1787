"""What the steps of ``run.sh`` download, for a server of the loopback that stands for the internet.

Everything is out of the Go modules of the projects themselves, at the versions that are pinned.
Changed are, in KServe's own manifest: certificates, which cert-manager would issue, are in it;
images are not pulled; controllers whose programs are not built here have no pods.
"""

import base64
import json
import subprocess
from pathlib import Path

import yaml

from tests.cluster.build import module_source, module_version
from tests.cluster.certificates import Authority
from tests.cluster.processes import ClusterFailed
from tests.kind.offline import knative

_READ = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WRITE = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_HELM_SECONDS = 60
_MANAGER = "kserve-controller-manager"
INJECT = "cert-manager.io/inject-ca-from"


def versions():
    """Return variable of versions.env -> version, where it is not what is installed elsewhere."""
    return {"KSERVE_VERSION": module_version("kserve", "github.com/kserve/kserve")}


def write(directory, built, images):
    """Write the files, each at the path of its download; return ``versions``.

    Parameters
    ----------
    images
        Role -> image (``images.build``).
    """
    gateway_api = module_version("gateway", "sigs.k8s.io/gateway-api")
    gateway = module_version("envoy-gateway", "github.com/envoyproxy/gateway")
    kserve = versions()["KSERVE_VERSION"]
    files = {
        f"kubernetes-sigs/gateway-api/releases/download/{gateway_api}/standard-install.yaml":
            _gateway_api(),
        f"envoyproxy/gateway/releases/download/{gateway}/install.yaml":
            _envoy_gateway(built, images),
        f"kserve/kserve/releases/download/{kserve}/kserve.yaml":
            _kserve(directory / "certificates"),
        **knative.files(),
    }  # fmt: skip
    for path, text in files.items():
        target = directory / "files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return versions()


def images_of_kserve():
    """Return role -> image, as KServe's manifest names them: of the manager's pod, and storage."""
    found = {(one["kind"], one["metadata"]["name"]): one for one in _documents(_manifest())}
    pod = found["Deployment", _MANAGER]["spec"]["template"]["spec"]
    storage = found["ClusterStorageContainer", "default"]["spec"]["container"]
    return {one["name"]: one["image"] for one in (*pod["containers"], storage)}


def storage_program():
    """Return the program of KServe's storage initializer."""
    root = module_source("kserve", "github.com/kserve/kserve")
    return root / "python/storage-initializer/scripts/initializer-entrypoint"


def _gateway_api():
    root = module_source("gateway", "sigs.k8s.io/gateway-api")
    files = sorted((root / "config/crd/standard").glob("gateway.networking.k8s.io_*.yaml"))
    return "\n---\n".join(one.read_text() for one in files)


def _envoy_gateway(built, images):
    """Return what ``helm install`` would create, with images of this machine."""
    repository, _, tag = images["envoy-gateway"].partition(":")
    values = {
        "global": {"images": {"envoyGateway": {"pullPolicy": "Never"}}},
        "deployment": {"envoyGateway": {"image": {"repository": repository, "tag": tag}}},
        "topologyInjector": {"enabled": False},  # there is one zone
    }  # fmt: skip
    chart = built.chart("envoy-gateway")
    command = [
        built.program("helm"), "template", "eg", chart, "--namespace", "envoy-gateway-system",
        "--include-crds", "--values", chart / "values.tmpl.yaml", "--values", "-",
    ]  # fmt: skip
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, timeout=_HELM_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ClusterFailed(f"helm template failed: {' '.join(done.stderr.split())[-600:]}")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "envoy-gateway-system"}}
    return "\n---\n".join([_text(space), done.stdout])


def _kserve(certificates):
    authority = Authority(certificates)
    bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
    given = []
    for text in _manifest():
        if "\nkind: CustomResourceDefinition\n" in f"\n{text}":
            given.append(text)  # megabytes, in which nothing is to be changed
            continue
        for one in _documents([text]):
            here = changed(one, authority, bundle)
            given += [_text(here)] if here else []
    return "\n---\n".join(given)


def changed(document, authority, bundle):
    """Return a document of KServe's manifest as it is installed here; ``None`` to leave it out."""
    kind, meta = document["kind"], document["metadata"]
    if kind == "Issuer":
        return None
    if kind == "Certificate":
        return _secret(document["spec"], meta["namespace"], authority)
    if INJECT in meta.get("annotations", {}):
        for one in document.get("webhooks", []):
            one["clientConfig"]["caBundle"] = bundle
    if kind in ("Deployment", "DaemonSet"):
        for one in document["spec"]["template"]["spec"]["containers"]:
            one["imagePullPolicy"] = "IfNotPresent"
        if kind == "Deployment" and meta["name"] != _MANAGER:
            document["spec"]["replicas"] = 0
    return document


def _secret(certificate, namespace, authority):
    """Return the Secret that cert-manager would make of a Certificate."""
    pair = authority.server(certificate["secretName"], certificate["dnsNames"])
    data = {"tls.crt": pair.certificate.read_bytes(), "tls.key": pair.key.read_bytes()}
    return {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": certificate["secretName"], "namespace": namespace},
        "data": {name: base64.b64encode(content).decode() for name, content in data.items()},
    }  # fmt: skip


def _manifest():
    """Return the texts of KServe's own manifest, one for each object."""
    root = module_source("kserve", "github.com/kserve/kserve")
    path = root / "install" / versions()["KSERVE_VERSION"] / "kserve.yaml"
    return Path(path).read_text().split("\n---\n")


def _documents(texts):
    plain = (text for text in texts if "\nkind: CustomResourceDefinition\n" not in f"\n{text}")
    return [one for text in plain for one in yaml.load_all(text, _READ) if one]


def _text(document):
    return yaml.dump(document, Dumper=_WRITE)
