"""Compiles the pipeline, or runs it on this machine; called by ``dwcp-ml pipeline``.

python -m pipelines compile FILE MODEL,MODEL RESOURCES PARTITIONS
python -m pipelines local '{"root": "...", "models": [...], "arguments": {...}}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dwcp_ml.contract.errors import UsageError
from pipelines.resources import FILE
from pipelines.training import build, compile_to


def run_locally(root: str, models: list[str], arguments: dict[str, object]) -> None:
    """Run the pipeline with Kubeflow's local runner: every task is a process, not a container."""
    from kfp import local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
    build(models)(**arguments)


def main(words: list[str]) -> int:
    """Execute a command and return its exit code."""
    match words:
        case ["compile", path, models, resources, partitions]:
            file = Path(resources) if resources else FILE
            try:
                compile_to(Path(path), models.split(","), file, int(partitions))
            except UsageError as error:
                sys.stderr.write(f"{error}\n")
                return error.exit_code
        case ["local", request]:
            run_locally(**json.loads(request))
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
