"""Environment variables that belong to no command's options; a test finds each in the sources."""

from __future__ import annotations

from typing import Final, NamedTuple


class Variable(NamedTuple):
    """One variable, who reads it, and what it says."""

    name: str
    who: str
    meaning: str


VARIABLES: Final = (
    Variable(
        "DWCP_TRAINER_IMAGE", "`dwcp-ml pipeline compile`",
        "image of the pipeline's tasks, with `python` in its name; by default "
        "`dwcp-ml-trainer-python:<version>`",
    ),
    Variable(
        "DWCP_PVC_ROOT", "whatever reads an address `pvc://claim/path`",
        "directory below which each claim is mounted; by default `/mnt/pvc`",
    ),
    Variable(
        "DWCP_SOURCE_COMMIT", "export",
        "commit that goes into a bundle where there is no checkout; the trainer's image sets it",
    ),
    Variable(
        "DWCP_LOCK_FILE", "export",
        "lock file whose SHA-256 goes into a bundle; the trainer's image sets it",
    ),
    Variable(
        "DWCP_GO_SOURCE", "`dwcp-ml check api`, and the check of a run",
        "directory of the Go client's source; by default `go/` of the checkout",
    ),
    Variable(
        "DWCP_ONNXRUNTIME_LIBRARY", "the Go client, in the process",
        "ONNX Runtime's library, where `WithLibrary` names none",
    ),
    Variable("POD_NAME", "the operator", "who this process is, where `--identity` does not say it"),
    Variable(
        "DWCP_MODELS_HTTP", "the Go client's tests",
        "address of a server to test against; without it those tests are skipped",
    ),
    Variable("DWCP_MODELS_GRPC", "the Go client's tests", "the same over gRPC"),
    Variable(
        "DWCP_CLUSTER_KUBECONFIG", "the tests of `tests/cluster`",
        "a cluster to run them on, in place of one of their own",
    ),
    Variable("DWCP_FAULTS", "the tests of faults", "`full` for the numbers of `make faults`"),
    Variable(
        "DWCP_PROGRESS", "a task of a run",
        "`events` for lines that a program reads; set by the process that starts it",
    ),
    Variable(
        "DWCP_CHAMPIONS", "find-champions",
        "where the live bundle of each model is, as JSON, if the pipeline runs on one machine; set "
        "by the process that starts it",
    ),
    Variable(
        "DWCP_CHECKPOINTS", "a trainer",
        "directory from which an interrupted training continues; set by the process that starts it",
    ),
)  # fmt: skip
