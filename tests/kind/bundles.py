"""What ``run.sh`` does with bundles: take a run's out of Kubeflow, make candidates, write rollouts.

    python -m tests.kind.bundles fetch --endpoint URL --version V --output DIR
    python -m tests.kind.bundles candidates --version V --directory DIR
    python -m tests.kind.bundles rollout --bundle DIR/MODEL/V --output FILE

``DIR`` holds ``<model>/<version>/`` everywhere, as ``runs/latest/models`` does and the volume will.
"""

import argparse
import os
import sys
from pathlib import Path, PurePosixPath

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import BANDWIDTH, MODELS, model_spec
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.files import atomic_directory
from dwcp_ml.kube.manifests import model_rollout, to_yaml
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from tests.kind.s3 import Bucket, StoreFailed

VOLUME = "pvc://dwcp-models"
BUCKET, ARTIFACTS = "mlpipeline", "v2/artifacts/"
GOOD, BAD = "again", "broken"
"""What stands behind the version of a candidate."""

SPEC = {
    "steps": [
        {"trafficPercent": 10, "minimumRequests": 200, "dwellSeconds": 20},
        {"trafficPercent": 50, "minimumRequests": 500, "dwellSeconds": 20},
        {"trafficPercent": 100, "minimumRequests": 500, "dwellSeconds": 20},
    ],
    "watchSeconds": 30,
    # Wide: servers, gateway, traffic and all of Kubeflow share the cores of one machine.
    "analysis": {
        "warmUpSeconds": 10,
        "errorRate": {"margin": 0.05},
        "latency": {"margin": 0.3},
    },
}
"""In place of the gate's defaults, which take half an hour."""


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


def candidates(directory, version):
    """Make two bundles of the run's bandwidth predictor: the same again, and a broken one."""
    source = directory / BANDWIDTH.name / version
    for suffix, fault in ((GOOD, None), (BAD, "nan")):
        target = source.with_name(f"{version}-{suffix}")
        if not target.exists():
            break_bundle(source, target, fault)
        yield target


def rollout(bundle):
    """Return the ModelRollout of a bundle as the gate writes it, with ``SPEC`` in place."""
    spec, opened = model_spec(bundle.parent.name), open_bundle(bundle)
    uri = f"{VOLUME}/{spec.name}/{bundle.name}"
    document = model_rollout(spec, bundle.name, uri, opened.digest)
    document["metadata"]["namespace"] = "dwcp-ml"
    document["spec"] |= SPEC
    return document


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("fetch", help="keys: S3_ACCESS_KEY and S3_SECRET_KEY")
    one.add_argument("--endpoint", required=True)
    one.add_argument("--version", required=True)
    one.add_argument("--output", type=Path, required=True)
    one = commands.add_parser("candidates")
    one.add_argument("--version", required=True)
    one.add_argument("--directory", type=Path, required=True)
    one = commands.add_parser("rollout")
    one.add_argument("--bundle", type=Path, required=True)
    one.add_argument("--output", type=Path, required=True)
    return parser


def main(words=None):
    """Do one of the three; return the exit code."""
    given = _parser().parse_args(words)
    try:
        if given.command == "fetch":
            keys = (os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
            bucket = Bucket(given.endpoint, BUCKET, *keys)
            for path in fetch(bucket, given.version, given.output).values():
                print(path)
        elif given.command == "candidates":
            for path in candidates(given.directory, given.version):
                print(path)
        else:
            text = to_yaml(rollout(given.bundle), f"{given.bundle.name}, with quick steps.")
            given.output.write_text(text)
    except (DwcpError, StoreFailed, KeyError) as error:
        print(f"bundles: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
