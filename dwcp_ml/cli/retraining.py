"""``dwcp-ml retraining``: training runs that a schedule or an alert starts."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from types import FrameType

_config = click.option(
    "--config", type=click.Path(path_type=Path), required=True, metavar="PATH",
    help="File that describes a retraining, or directory of such .yaml files.",
)  # fmt: skip


@click.group("retraining")
def group() -> None:
    """Start training runs on a moving window of telemetry, by schedule or by alert.

    A file describes a retraining: the template of its TrainingRuns, the days of telemetry, and
    when a run may start. docs/retraining.md has an example; manifests/components/retraining
    installs a CronJob and a webhook for Alertmanager.
    """


@group.command("start")
@_config
@click.option("--name", metavar="NAME", help="The retraining. [default: the only one]")
@click.option("--trigger", default="manual", show_default=True, metavar="TEXT",
              help="What asks for the run; it is written into the bundles.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@shared.of_cluster("the TrainingRuns")
@shared.as_json
def start_command(
    config: Path,
    name: str | None,
    trigger: str,
    dry_run: bool,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Create a TrainingRun now, unless one of the rules is against it.

    \b
    Examples:
      dwcp-ml retraining start --config retraining.yaml --trigger schedule
      dwcp-ml retraining start --config retraining.yaml --dry-run

    No run is started while another one of the retraining or a rollout of one of its models is under
    way, during the cool-down, or with too little new data. Exit code 0 in either case; 1: the API
    server does not respond or refuses the run; 2: the file is invalid.
    """
    from dwcp_ml.retraining.decide import sentence
    from dwcp_ml.retraining.settings import chosen, read_retrainings
    from dwcp_ml.retraining.start import MANAGER, start

    retraining = chosen(read_retrainings(config), name)
    api, where = shared.connected(namespace, kubeconfig, context, manager=MANAGER)
    decision = start(api, where, retraining, _checked(trigger), dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(decision.model_dump(mode="json")))
    else:
        click.echo(f"{'Dry run: ' if dry_run else ''}{sentence(decision)}")


@group.command("serve", context_settings={"show_default": True, "auto_envvar_prefix": "DWCP"})
@_config
@click.option("--port", type=click.IntRange(0, 65535), default=8080,
              help="POST /v1/retrainings/<name>, /healthz and /metrics.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Holds the bearer token that Alertmanager must send; without it any request "
              "that reaches the port is accepted.")  # fmt: skip
@shared.of_cluster("the TrainingRuns")
def serve_command(
    config: Path,
    port: int,
    token_file: Path | None,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Receive the notifications of Alertmanager, and start a run for an alert that fires.

    \b
    Example:
      dwcp-ml retraining serve --config retraining.yaml --port 8080
      receiver of Alertmanager: http://HOST:8080/v1/retrainings/NAME

    The rules of dwcp-ml retraining start apply. SIGTERM ends it.
    """
    from dwcp_ml.retraining.settings import read_retrainings
    from dwcp_ml.retraining.start import MANAGER
    from dwcp_ml.retraining.webhook import Webhook, server

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    retrainings = read_retrainings(config)
    api, where = shared.connected(namespace, kubeconfig, context, manager=MANAGER)
    with server(Webhook(api, where, retrainings, token_file), port) as listening:
        address, names = listening.server_address[1], ", ".join(sorted(retrainings))
        logging.getLogger("dwcp_ml.retraining").info("Port %s, retrainings %s", address, names)

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            # shutdown() waits for serve_forever, which this thread runs.
            threading.Thread(target=listening.shutdown, daemon=True).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        listening.serve_forever()


def _checked(trigger: str) -> str:
    import re

    from dwcp_ml.contract.champion import TRIGGER_PATTERN

    if re.fullmatch(TRIGGER_PATTERN, trigger) is None:
        raise click.UsageError(
            "--trigger takes at most 100 letters, digits, spaces and ._:/@+-, a letter or a digit "
            "first."
        )
    return trigger
