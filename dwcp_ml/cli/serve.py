"""``dwcp-ml serve``: the model server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import model_spec


@click.command("serve", context_settings={"show_default": True})
@click.option("--model_dir", "--model-dir", type=click.Path(path_type=Path),
              default=Path("runs/latest/models"),
              help="Directory of bundles, <model>/<version>/, or of one bundle.")  # fmt: skip
@click.option("--model_name", "--model-name", metavar="NAME", help="Serve only this model.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 in a container.")
@click.option("--http_port", "--http-port", type=click.IntRange(0, 65535), default=8501,
              help="V1 and V2 over HTTP; 0 takes a free port.")  # fmt: skip
@click.option("--grpc_port", "--grpc-port", type=click.IntRange(0, 65535), default=8502,
              help="V2 over gRPC; 0 takes a free port.")  # fmt: skip
@click.option("--no-grpc", is_flag=True, help="HTTP only.")
@click.option("--requests_port", "--requests-port", type=click.IntRange(0, 65535), metavar="PORT",
              help="Keep the newest requests in memory (at most 1,024 of each model and five "
                   "minutes), and hand them out here: a rollout compares a candidate's predictions "
                   "with theirs before it has traffic. Let nobody but the operator reach this "
                   "port. None are kept without this option.")  # fmt: skip
@click.option("--no-request-ring", is_flag=True,
              help="Keep no requests, whatever --requests_port says: for who must not keep "
                   "inputs. A rollout then skips its shadow step.")  # fmt: skip
@click.option("--port-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the ports to this file, as JSON, when the server is ready.")  # fmt: skip
@click.option("--public-key", type=click.Path(path_type=Path), metavar="FILE",
              help="Reject bundles that are not signed with this key.")  # fmt: skip
@click.option("--digest", "digests", multiple=True, metavar="MODEL=SHA256",
              help="Reject any other bundle of this model; may be repeated.")  # fmt: skip
@click.option("--drain-seconds", type=click.FloatRange(0), default=0.0,
              help="Continue to respond for this long after SIGTERM, while not ready.")  # fmt: skip
@click.option("--grace-seconds", type=click.FloatRange(0), default=30.0,
              help="Maximum time for requests in flight after that.")  # fmt: skip
@click.option("--log-predictions", "log_dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Log requests and predictions here, for dwcp-ml monitor accuracy.")  # fmt: skip
@click.option("--log-sample", type=click.FloatRange(0, 1), default=1.0,
              help="Share of requests that are logged.")  # fmt: skip
@click.option("--log-max-mb", type=click.FloatRange(1), default=1000.0,
              help="Maximum size of the log; the oldest records are removed.")  # fmt: skip
@click.option("--max-body-mb", type=click.FloatRange(0.001), default=8.0,
              help="Larger bodies are rejected with 413.")  # fmt: skip
@click.option("--max-rows", type=click.IntRange(1), default=4096,
              help="Requests with more rows are rejected with 413.")  # fmt: skip
@click.option("--sketches/--no-sketches", default=True,
              help="Histograms of inputs and predictions, for drift.")  # fmt: skip
@click.option("--feedback/--no-feedback", default=True,
              help="Count the outcomes that are sent to /v1/models/MODEL:feedback.")  # fmt: skip
@click.option("--max-connections", type=click.IntRange(1), default=4096,
              help="Maximum HTTP connections; more wait.")  # fmt: skip
@click.option("--arrival-seconds", type=click.FloatRange(0.1), default=60.0,
              help="Reject a request whose body takes longer with 408.")  # fmt: skip
@click.option("--idle-seconds", type=click.FloatRange(1), default=3900.0,
              help="Close an HTTP/1.1 connection without a request; keep it above the idle time of "
                   "the gateway, which is an hour in Envoy.")  # fmt: skip
@click.option("--max-age-seconds", type=click.FloatRange(1), default=600.0,
              help="Close a connection between two requests, so that clients spread over new "
                   "pods; over gRPC after half of the drain, if that is less.")  # fmt: skip
def command(
    no_grpc: bool,
    no_request_ring: bool,
    digests: tuple[str, ...],
    log_max_mb: float,
    max_body_mb: float,
    max_rows: int,
    max_connections: int,
    arrival_seconds: float,
    idle_seconds: float,
    max_age_seconds: float,
    **options: Any,
) -> None:
    """Serve the bundles of a directory over V1, V2 and gRPC.

    \b
    Examples:
      dwcp-ml serve                                 models of the newest run
      dwcp-ml serve --model_dir /mnt/models --model_name bandwidth --host 0.0.0.0
      curl localhost:8501/v1/models/compression_selector:predict \\
        -d '{"instances": [[150.0, 10.5, 1, 2.0, 0.8, 40.0]]}'

    Every bundle is verified before it is loaded; only its ONNX graph is loaded. The server is ready
    when each model has run once. On SIGTERM it becomes not ready, completes the requests in flight,
    and ends with exit code 0. /metrics is for Prometheus; /openapi.json describes the API.
    """
    from dwcp_ml.cli.shared import keep_runs
    from dwcp_ml.serving.limits import Limits
    from dwcp_ml.serving.server import ServerOptions, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("_granian").setLevel(logging.ERROR)
    keep_runs(options["model_dir"])
    if no_grpc:
        options["grpc_port"] = None
    if no_request_ring:
        options["requests_port"] = None
    serve(
        ServerOptions(
            digests=_digests(digests),
            log_max_bytes=int(log_max_mb * 1e6),
            limits=Limits(
                body_bytes=int(max_body_mb * (1 << 20)),
                rows=max_rows,
                connections=max_connections,
                arrival_seconds=arrival_seconds,
                idle_seconds=idle_seconds,
                max_age_seconds=max_age_seconds,
            ),
            **options,
        )
    )


def _digests(words: tuple[str, ...]) -> dict[str, str]:
    digests = {}
    for word in words:
        name, equals, digest = word.partition("=")
        if not equals or len(digest) != 64:
            raise UsageError(
                f"--digest {word}: expected MODEL=SHA256, 64 hexadecimal digits.",
                code=ErrorCode.INVALID_OPTION,
                subject="--digest",
            )
        digests[model_spec(name).name] = digest
    return digests
