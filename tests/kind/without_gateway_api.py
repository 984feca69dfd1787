"""Envoy Gateway's install.yaml without the Gateway API that it carries along.

    python -m tests.kind.without_gateway_api URL FILE

The Gateway API is installed separately, at the version of versions.env. The copy in Envoy Gateway's
release is of the experimental channel, and since 1.5 the Gateway API's own admission policy rejects
to put that on top of the standard one.
"""

import sys
import urllib.request
from pathlib import Path

import yaml

GROUP = "gateway.networking.k8s.io"
_SECONDS = 120.0
_READ = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WRITE = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def without_gateway_api(text):
    """Return the documents of a YAML text that are not the Gateway API's own."""
    return [one for one in yaml.load_all(text, _READ) if one and not _is_gateway_api(one)]


def _is_gateway_api(document):
    name = document["metadata"]["name"]
    definition = document["kind"] == "CustomResourceDefinition"
    policy = document["kind"].startswith("ValidatingAdmissionPolicy")
    group = name.partition(".")[2]
    ours = group == GROUP or group == GROUP.replace("k8s.io", "x-k8s.io")
    return (definition or policy) and ours


def main(url, target):
    """Download, filter, write; return the exit code."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            found = without_gateway_api(response.read())
    except OSError as error:
        print(f"can't download {url}: {error}.", file=sys.stderr)
        return 1
    Path(target).write_text(yaml.dump_all(found, Dumper=_WRITE, sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
