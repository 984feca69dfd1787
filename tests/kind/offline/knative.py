"""Knative's manifests as its release writes them, out of Go modules, with images of this machine.

A module holds no symbolic link: what a link names is taken from the module that it leads to. The
requests are small, as all pods share the cores of one machine.
"""

import re

import yaml

from tests.cluster.build import module_source, module_version
from tests.cluster.programs import PROGRAMS

MODULE = "knative"
SERVING, GATEWAY = "knative.dev/serving", "knative.dev/net-gateway-api"
_FIRST_MINOR = 27
"""Of the Go modules when the project was released as 1.0: module 0.48 is release 1.21."""

_IMAGES = {package: f"dwcp-ml-test-{name}:local" for name, package in PROGRAMS[MODULE].items()}
REQUESTS = {"cpu": "10m", "memory": "32Mi"}


def images():
    """Return program -> image."""
    return {name: _IMAGES[package] for name, package in PROGRAMS[MODULE].items()}


def release(version):
    """Return the release of a version of Knative's Go modules.

    >>> release("v0.48.1")
    'v1.21.1'
    """
    _, minor, patch = version.split(".")
    return f"v1.{int(minor) - _FIRST_MINOR}.{patch}"


def files():
    """Return path of the download -> text."""
    serving, gateway = (release(module_version(MODULE, one)) for one in (SERVING, GATEWAY))
    networking, caching = (_config(f"knative.dev/{one}") for one in ("networking", "caching"))
    definitions = [one for one in networking if one.name != "config-network.yaml"] + caching
    core = sorted((module_source(MODULE, SERVING) / "config/core").rglob("*.yaml"))
    own = [one for one in core if one.parent.name == "300-resources"]
    rest = [one for one in core if one not in own]
    settings = [one for one in networking if one not in definitions]
    downloads = f"knative/serving/releases/download/knative-{serving}"
    return {
        f"{downloads}/serving-crds.yaml": text_of([*own, *definitions], serving),
        f"{downloads}/serving-core.yaml": text_of([*own, *definitions, *rest, *settings], serving),
        f"knative-extensions/net-gateway-api/releases/download/knative-{gateway}/"
        "net-gateway-api.yaml": text_of(_config(GATEWAY), gateway),
    }


def _config(source):
    return sorted((module_source(MODULE, source) / "config").glob("*.yaml"))


def text_of(paths, version):
    """Return the documents of files, in their order, with release and images filled in."""
    text = "\n---\n".join(one.read_text() for one in paths)
    text = text.replace("version: devel", f'version: "{version[1:]}"')
    text = re.sub(r"ko://(\S+)", lambda found: _IMAGES[found[1]], text)
    return "\n---\n".join(map(_small, re.split(r"^---$", text, flags=re.MULTILINE)))


def _small(text):
    """Return a document with small requests, where it makes pods."""
    if not re.search("^kind: Deployment$", text, re.MULTILINE):
        return text
    document = yaml.safe_load(text)
    for container in document["spec"]["template"]["spec"]["containers"]:
        container["resources"]["requests"] = REQUESTS
    return yaml.safe_dump(document)
