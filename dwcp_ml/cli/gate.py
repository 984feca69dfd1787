"""``dwcp-ml gate``: run the gate of an existing run again."""

from __future__ import annotations

from typing import Any

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import GATE, RunCommand, chosen_options


@click.command("gate", cls=RunCommand, run_options=GATE)
@shared.run_option("The run to evaluate.")
@shared.as_json
def command(run: str, as_json: bool, **chosen: Any) -> None:
    """Decide whether a run is APPROVED or REJECTED; write its report and manifests.

    \b
    dwcp-ml gate --strict                                reject what could not be checked
    dwcp-ml gate --stable-uri none                       manifests of a first deployment
    """
    from dwcp_ml.contract.checks import ApiChecks
    from dwcp_ml.training_run.gate_step import run_gate
    from dwcp_ml.training_run.previous_run import with_previous_bundles

    session = shared.open_run(run)
    options = session.options().replace(**chosen_options(chosen).model_dump(include=set(GATE)))
    session_report = run_gate(
        session.dataset,
        {spec.name: session.models for spec in options.specs()},
        session.directory,
        with_previous_bundles(session, options),
        session=session.name,
        checks=ApiChecks.read(session.api_checks) if session.api_checks.exists() else None,
    )
    shared.finish(session, session_report, as_json)
