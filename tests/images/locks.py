"""Reads lock files, and says what an image must not hold."""

import re
from pathlib import Path

from packaging.markers import Marker

_TRAINS = {
    "h5py", "joblib", "keras", "kfp", "kfp-kubernetes", "matplotlib", "pyarrow", "scikit-learn",
    "scipy", "tensorflow", "tensorflow-cpu", "tf2onnx",
}  # fmt: skip

ABSENT = {
    "server": _TRAINS | {"fastapi", "kserve", "kubernetes", "pandas", "uvicorn"},
    "operator": _TRAINS | {"fastapi", "kserve", "model-signing", "onnx", "onnxruntime", "pandas"},
}
"""Image -> distributions that are not in it."""


def pins(path: Path, environment: dict[str, str] | None = None) -> dict[tuple[str, str], set[str]]:
    """Return (name, version) -> hashes of what a lock file names; all, or what holds somewhere."""
    hashes = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        head = re.match(r"([a-z0-9-]+)==([^\s;]+)(?: ; (.*?))?\s+--hash", line)
        assert head, line
        if environment is None or not head[3] or Marker(head[3]).evaluate(environment):
            hashes[head[1], head[2]] = set(re.findall(r"--hash=(\S+)", line))
    return hashes
