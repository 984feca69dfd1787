"""Compile ``inference.proto``: ``python -m dwcp_ml.serving.proto.generate``."""

from __future__ import annotations

import tempfile
from pathlib import Path

PROTO = Path(__file__).parent / "inference.proto"


def compiled() -> bytes:
    """Return the serialized description of the protocol's messages and service."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "set"
        words = ["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={result}", PROTO.name]
        if protoc.main(words) != 0:
            raise SystemExit(1)
        return result.read_bytes()


if __name__ == "__main__":
    PROTO.with_suffix(".binpb").write_bytes(compiled())
