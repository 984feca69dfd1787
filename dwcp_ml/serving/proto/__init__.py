"""The messages of the Open Inference Protocol over gRPC, and those of our service of feedback.

They are in a pool of their own: every library that speaks the protocol registers files of the same
package in the common one, and two of them in one process would not start.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
FEEDBACK: Final = "dwcp.ml.v1.Feedback"

POOL: Final = DescriptorPool()
"""The pool of the protocol's messages."""

for _compiled in resources.files(__package__).iterdir():
    if _compiled.name.endswith(".binpb"):
        for _file in FileDescriptorSet.FromString(_compiled.read_bytes()).file:
            POOL.AddSerializedFile(_file.SerializeToString())


def message(name: str) -> Any:
    """Return the class of a message of the protocol, such as ``ModelInferRequest``.

    Raises
    ------
    KeyError
        If the protocol has no such message.
    """
    return GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods(service: str = SERVICE) -> dict[str, tuple[Any, Any]]:
    """Return the classes of request and response of each method of a service, by its name."""
    return {
        method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
        for method in POOL.FindServiceByName(service).methods
    }
