"""Compile the ``.proto`` files: ``python -m dwcp_ml.serving.proto.generate``."""

from __future__ import annotations

import tempfile
from pathlib import Path

PROTOS = tuple(Path(__file__).with_name(f"{name}.proto") for name in ("inference", "feedback"))


def compiled(file: Path) -> bytes:
    """Return the serialized description of a file's messages and service."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "set"
        words = ["protoc", f"-I{file.parent}", f"--descriptor_set_out={result}", file.name]
        if protoc.main(words) != 0:
            raise SystemExit(1)
        return result.read_bytes()


if __name__ == "__main__":
    for each in PROTOS:
        each.with_suffix(".binpb").write_bytes(compiled(each))
