import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data.versioning import file_version, write_dvc_pointer
from tests.errors import about


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "telemetry.csv"
    path.write_bytes(b"timestamp,node_id\n" * 200_000)
    return path


def test_md5_and_size_are_those_of_the_file(data):
    content = data.read_bytes()
    version = file_version(data)
    assert version.md5 == hashlib.md5(content).hexdigest()
    assert version.size_bytes == len(content)


def test_a_file_that_can_not_be_read_is_refused(tmp_path):
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, "none")):
        file_version(tmp_path / "none")


def test_the_report_names_the_version_of_the_file(check, write, telemetry):
    path = write(telemetry)
    report = check(path)
    assert (report.md5, report.size_bytes) == (file_version(path).md5, path.stat().st_size)


def test_the_pointer_names_the_file_beside_it(data):
    pointer = write_dvc_pointer(data)
    assert pointer.name == "telemetry.csv.dvc"
    (out,) = yaml.safe_load(pointer.read_text())["outs"]
    version = file_version(data)
    assert out == {
        "md5": version.md5,
        "size": version.size_bytes,
        "hash": "md5",
        "path": "telemetry.csv",
    }


@pytest.mark.slow
def test_real_dvc_accepts_the_pointer(data):
    dvc = shutil.which("dvc", path=str(Path(sys.executable).parent)) or shutil.which("dvc")
    if dvc is None:
        pytest.skip("dvc is not installed: pip install 'dwcp-ml[dvc]'")

    def run(*words):
        done = subprocess.run(
            [dvc, *words], cwd=data.parent, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("init", "--no-scm")
    pointer = write_dvc_pointer(data)
    written = pointer.read_text()
    assert "not in cache" in run("status")
    run("commit", "--force", pointer.name)
    assert pointer.read_text() == written  # dvc finds nothing to correct
    assert "up to date" in run("status")
    data.unlink()
    run("checkout", pointer.name)
    assert file_version(data).md5 in written
    data.write_bytes(b"changed\n")
    assert "modified" in run("status")
