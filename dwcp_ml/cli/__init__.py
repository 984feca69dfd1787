"""The command line ``dwcp-ml``: one module per command group; slow imports happen on use."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from dwcp_ml import __version__
from dwcp_ml.cli import (
    bundle,
    check,
    data,
    evaluate,
    export,
    gate,
    monitor,
    operator,
    pipeline,
    retraining,
    rollout,
    runs,
    serve,
    train,
)
from dwcp_ml.contract.errors import DwcpError

_EPILOG = """
Exit codes: 0 success or APPROVED, 1 unexpected error, 2 usage error, 3 REJECTED by the gate, 4 data
rejected, 5 rolled back, 6 a run on Kubeflow failed, 7 it did not end in time. Add --debug to any
command to see the traceback of an error.
"""


@click.group(
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dwcp-ml")
def group() -> None:
    """Train, evaluate, export, serve and roll out the four models of DWCP.

    \b
    Start here:
      dwcp-ml pipeline run                      all steps, on simulated telemetry
      dwcp-ml data simulate --output-dir data   simulate telemetry
      dwcp-ml train --data-path data/telemetry.csv --incidents-path data/incidents.json
    """


for _command in (
    data.group,
    train.group,
    evaluate.command,
    export.command,
    gate.command,
    operator.group,
    pipeline.group,
    retraining.group,
    rollout.group,
    bundle.group,
    runs.group,
    serve.command,
    monitor.group,
    check.group,
):
    group.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        result = group.main(args=words, prog_name="dwcp-ml", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("dwcp-ml: Interrupted.", err=True)
        return 130
    except DwcpError as error:
        return _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        return 141
    except Exception as error:  # an unexpected error is one sentence, too
        text = f"Unexpected {type(error).__name__}: {error}; --debug shows the traceback."
        return _fail(text, DwcpError.exit_code, debug)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"dwcp-ml: {' '.join(message.split())}", err=True)
    return code
