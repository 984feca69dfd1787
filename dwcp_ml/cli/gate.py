"""``dwcp-ml gate``: read the reports of a run and say APPROVED or REJECTED again."""

from __future__ import annotations

from pathlib import Path

import click

from dwcp_ml.cli import shared


@click.command("gate")
@click.option(
    "--run", default="runs/latest", show_default=True, metavar="RUN", help="The run to judge."
)
@shared.gate_options
@shared.as_json
def command(
    run: str, strict: bool, mode: str, stable_uri: str, storage_prefix: str, as_json: bool
) -> None:
    """Judge a run: APPROVED or REJECTED, with the reasons; write its report and manifests.

    \b
    dwcp-ml gate --strict                                what was not checked rejects
    dwcp-ml gate --stable-uri pvc://dwcp-models/bandwidth_predictor/20260101-120000
    """
    from dwcp_ml.contract.checks import ApiChecks
    from dwcp_ml.training_run.gate_step import judge_session
    from dwcp_ml.training_run.session import open_session

    session = open_session(Path(run))
    options = session.options().replace(
        strict=strict, mode=mode, stable_uri=stable_uri, storage_prefix=storage_prefix
    )
    answer = judge_session(
        session.dataset,
        {spec.name: session.models for spec in options.specs()},
        session.directory,
        options,
        session=session.name,
        checks=ApiChecks.read(session.api_checks) if session.api_checks.exists() else None,
    )
    shared.finish(session, answer, as_json)
