"""The scripts of this directory are held to what shellcheck knows of shells."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ANYWHERE = ("run.sh", "lib.sh", "install.sh", "prove.sh")
ON_DEBIAN = tuple(f"offline/{one.name}" for one in sorted((HERE / "offline").glob("*.sh")))
SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which(
    "shellcheck"
)


@pytest.mark.slow
@pytest.mark.skipif(SHELLCHECK is None, reason="there is no shellcheck: make .venv/.ready")
@pytest.mark.parametrize("name", [*ANYWHERE, *ON_DEBIAN])
def test_shellcheck_finds_nothing(name):
    done = subprocess.run(
        [SHELLCHECK, "--external-sources", "--shell=bash", f"tests/kind/{name}"],
        cwd=HERE.parents[1], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ANYWHERE)
def test_bash_can_read_it_and_the_bash_of_macos_too(name):
    path = HERE / name
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)
    for newer in ("declare -A", "mapfile", "readarray", ",,}", "^^}", "&>>", "|&"):
        assert newer not in path.read_text(), newer
