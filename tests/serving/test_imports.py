"""The server needs nothing that trains, and no SDK: its image holds neither."""

import subprocess
import sys

import pytest

TRAINERS = (
    "kserve", "fastapi", "uvicorn", "kubernetes", "pandas",
    "tensorflow", "keras", "tf2onnx", "sklearn", "matplotlib", "kfp", "scipy", "skl2onnx",
)  # fmt: skip

PROGRAM = """
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError("the server has no " + name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["serve"]
import dwcp_ml.cli.serve, dwcp_ml.serving.server, dwcp_ml.serving.grpc_server
"""


@pytest.mark.server
def test_the_server_imports_nothing_that_its_image_lacks():
    program = PROGRAM.replace("{names!r}", repr(set(TRAINERS)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]
