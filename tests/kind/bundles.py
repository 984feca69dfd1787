"""Bundles of a run: out of Kubeflow's object store, and the ModelRollout of one.

    python -m tests.kind.bundles --endpoint URL --version V --output DIR

``DIR`` holds ``<model>/<version>/``, as ``runs/latest/models`` does.
"""

import argparse
import copy
import os
import sys
from pathlib import Path, PurePosixPath

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.files import atomic_directory
from dwcp_ml.kube.manifests import model_rollout
from tests.kind.s3 import Bucket, StoreFailed

VOLUME = "pvc://dwcp-models"
BUCKET, ARTIFACTS = "mlpipeline", "v2/artifacts/"

SPEC = {
    # Wide: servers, gateway, traffic and all else share the cores of one machine.
    "analysis": {
        "warmUpSeconds": 10,
        "errorRate": {"margin": 0.05},
        "latency": {"margin": 0.3},
    },
}
"""In place of the gate's defaults; the steps are the test's."""


def fetch(bucket, version, output):
    """Copy the bundles of one version out of the artifacts of all runs; return where they are.

    Raises
    ------
    DwcpError
        If there is none, or a model has two: then it is unknown which one the gate evaluated.
    """
    keys = list(bucket.keys(ARTIFACTS))
    found = {}
    for name in MODELS:
        inside = f"/{name}/{version}/"
        roots = {
            key[: key.index(inside) + len(inside)]
            for key in keys
            if inside in key and key.endswith("/manifest.json")
        }
        if len(roots) > 1:
            raise DwcpError(f"{name} {version} is in the store {len(roots)} times: {min(roots)}, …")
        for root in roots:
            target = output / name / version
            with atomic_directory(target) as staging:
                for key in keys:
                    if key.startswith(root):
                        _write(staging, key.removeprefix(root), bucket.read(key))
            open_bundle(target)
            found[name] = target
    if not found:
        raise DwcpError(f"no bundle of version {version} is below {ARTIFACTS} of the object store.")
    return found


def _write(directory, name, content):
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DwcpError(f"the object store names a file {name}, which leads out of its bundle.")
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def rollout(bundle):
    """Return the ModelRollout of a bundle as the gate writes it, with ``SPEC`` in place."""
    spec, opened = model_spec(bundle.parent.name), open_bundle(bundle)
    uri = f"{VOLUME}/{spec.name}/{bundle.name}"
    document = model_rollout(spec, bundle.name, uri, opened.digest)
    document["metadata"]["namespace"] = "dwcp-ml"
    document["spec"] |= copy.deepcopy(SPEC)
    return document


def main(words=None):
    """Fetch the bundles; return the exit code. The keys are S3_ACCESS_KEY and S3_SECRET_KEY."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(words)
    try:
        keys = (os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
        bucket = Bucket(given.endpoint, BUCKET, *keys)
        for path in fetch(bucket, given.version, given.output).values():
            print(path)
    except (DwcpError, StoreFailed, KeyError) as error:
        print(f"bundles: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
