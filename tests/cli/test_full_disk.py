"""A full disk is one sentence, and what was half-written is gone."""

import shutil
import subprocess
import sys

import pytest

SCRIPT = """
set -e
mount -t tmpfs -o size=64k none "$1"
"$2" -m dwcp_ml.cli data simulate --set days=0.2 --set nodes=3 --output-dir "$1" || echo code $?
ls -A "$1"
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run([*unshare, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine gives no user namespace to mount a small disk in")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        [*unshare, "sh", "-c", SCRIPT, "sh", str(place), sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["code", "1"], "only the exit code, no file"
