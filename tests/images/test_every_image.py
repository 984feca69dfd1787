"""What holds for all three images: who they run as, what they hold, what may be written."""

import json
import re
from pathlib import Path

import pytest
from packaging.markers import default_environment

from dwcp_ml import __version__
from tests.images.engine import USER, engine, inspect
from tests.images.locks import ABSENT, pins

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]

WRITABLE = """
import os, stat
mounts = {"/proc", "/sys", "/dev", "/tmp"}
for directory, names, files in os.walk("/"):
    names[:] = [name for name in names if os.path.join(directory, name) not in mounts]
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        if not os.path.islink(path) and os.access(path, os.W_OK):
            print(path)
"""

RAISES_RIGHTS = """
import os, stat
for directory, names, files in os.walk("/"):
    names[:] = [n for n in names if os.path.join(directory, n) not in ("/proc", "/sys", "/dev")]
    for path in (os.path.join(directory, name) for name in files):
        if os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID) and not os.path.islink(path):
            print(path)
"""

TOOLS = """
import importlib.util, shutil, subprocess
programs = "pip pip3 pip3.11 uv uvx conda cc gcc g++ c++ clang ld make go git curl wget".split()
print(*(name for name in programs if shutil.which(name)))
print(*(name for name in ("pip", "ensurepip", "uv") if importlib.util.find_spec(name)))
base = "import importlib.util as u; print(*(n for n in ('pip', 'ensurepip') if u.find_spec(n)))"
import sys
print(subprocess.run([sys._base_executable, "-I", "-c", base], capture_output=True, text=True,
                     check=True).stdout.strip())
"""

INSTALLED = """
import importlib.metadata, json, platform
installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps([platform.python_version(), platform.machine(), installed]))
"""

FILES = """
import json, os
paths = [os.path.join(directory, name) for directory, names, files in os.walk("/opt/dwcp-ml")
         for name in files]
left = [path for path in ("/etc/pip.conf", "/build", "/wheels", "/source", "/confine.sh")
        if os.path.exists(path)]
print(json.dumps([paths, left]))
"""


def test_it_runs_as_nobody_in_particular_and_says_its_version(image):
    config = inspect(image.tag)["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["dwcp-ml"]
    assert not config.get("Volumes")
    done = image.run("--version")
    assert (done.returncode, done.stdout) == (0, f"dwcp-ml, version {__version__}\n"), done.stderr


def test_it_is_labelled(image):
    labels = inspect(image.tag)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"dwcp-ml-{image.name}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.source"].startswith("https://")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.base.name"]


def test_its_user_may_write_to_tmp_and_nowhere_else_even_without_a_read_only_root(image):
    done = engine(
        "run", "--rm", "--network=none", f"--user={USER}:{USER}", "--entrypoint=python3", image.tag,
        "-c", WRITABLE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_nothing_in_it_raises_rights(image):
    done = engine(
        "run", "--rm", "--network=none", "--user=0", "--entrypoint=python3", image.tag,
        "-c", RAISES_RIGHTS,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_it_holds_nothing_that_installs_compiles_or_downloads(image):
    programs, modules, of_the_base = image.python(TOOLS).splitlines()
    assert (programs, modules, of_the_base) == ("", "", "")


def test_it_holds_exactly_what_its_lock_file_names(image):
    version, machine, installed = json.loads(image.python(INSTALLED))
    environment = {
        **default_environment(), "python_full_version": version, "platform_machine": machine,
        "python_version": version.rpartition(".")[0], "sys_platform": "linux",
    }  # fmt: skip
    lock = ROOT / f"images/requirements-{image.name}.lock"
    expected = {"dwcp-ml": __version__, **dict(pins(lock, environment).keys())}
    actual = {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin in installed.items()}
    assert actual == expected
    assert not set(actual) & ABSENT.get(image.name, set())


def test_nothing_of_the_build_is_left_in_it(image):
    files, left = json.loads(image.python(FILES))
    assert left == []
    strange = [path for path in files if path.endswith((".whl", ".key", "pip.conf"))]
    assert strange == []
    assert not [path for path in files if "/tests/" in path or "/tensorflow/include/" in path]
    assert any(path.endswith(".pyc") for path in files)  # a read-only root can't compile later
    history = engine("history", "--no-trunc", "--format={{.CreatedBy}}", image.tag).stdout
    assert "pip.conf" not in history
    assert "index" not in history
