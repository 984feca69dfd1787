"""kstatus, as Flux computes it: ``binaries/kstatus``, a program around the library of cli-utils."""

import json
import subprocess


def statuses(built, objects):
    """Return what kstatus says of each object: Current, InProgress, Failed, Terminating, Unknown.

    Parameters
    ----------
    built
        The programs of the cluster tests, ``tests.cluster.build.Built``.
    objects
        Kubernetes objects, as the API server returns them.
    """
    done = subprocess.run(
        [built.program("kstatus")], input=json.dumps(list(objects)), capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [one["status"] for one in json.loads(done.stdout)]
