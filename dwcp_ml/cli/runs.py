"""``dwcp-ml runs``: remove outdated runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared
from dwcp_ml.contract.errors import DwcpError

if TYPE_CHECKING:
    from dwcp_ml.bundle_store.retention import Decision
    from dwcp_ml.bundle_store.usage import Used
    from dwcp_ml.training_run.run_retention import StoredRun


@click.group("runs")
def group() -> None:
    """List the runs in a directory, and remove outdated ones.

    \b
    dwcp-ml runs prune --keep 10
    """


@group.command("prune")
@click.argument("directory", type=click.Path(path_type=Path), default="runs")
@shared.retention(
    "Runs that are kept in any case, the newest.",
    "Runs that were written less than this time ago are kept in any case.",
)
@click.option(
    "--state", "states", type=click.Path(path_type=Path, exists=True), metavar="DIR", multiple=True,
    help="The directory of a rollout elsewhere, whose bundles are in use; repeat it for each. "
    "Those in the runs are found.",
)  # fmt: skip
@shared.as_json
def prune(
    directory: Path,
    keep: int,
    delete: bool,
    min_age: float,
    states: tuple[Path, ...],
    as_json: bool,
) -> None:
    """List the outdated runs in DIRECTORY, `runs` by default, or remove them with --delete.

    A run stays if it is among the newest N, if it was written lately, if a process uses it, if
    `latest` links to it, if a rollout on this machine uses a bundle of it, if a bundle of it is the
    newest approved one of its model or the stable one of that one's canary, if a bundle of it came
    just before one that is in use, or if any of that can't be found out. Clusters are not asked:
    they have copies of the bundles.
    """
    from dwcp_ml.bundle_store.retention import Fate, Policy, remove_outdated
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.files import clear_removed
    from dwcp_ml.training_run.run_retention import list_runs, plan, remove

    policy, stored = Policy(keep, timedelta(hours=min_age)), list_runs(directory)

    def decide() -> list[Decision[StoredRun]]:
        return plan(stored, _used(directory, states), policy, datetime.now(UTC))

    decisions = decide()
    if delete:
        decisions = remove_outdated(decisions, decide, remove)
        clear_removed(directory)
    if as_json:
        shared.print_json({
            "removed": delete,
            "runs": [
                {
                    "directory": str(each.item.directory), "size_bytes": each.item.size_bytes,
                    "fate": each.fate, "why": each.why,
                }
                for each in decisions
            ],
        })  # fmt: skip
        return
    rows = [
        [run.item.name, _megabytes(run.item.size_bytes), run.fate, run.why] for run in decisions
    ]
    if rows:
        print_table(f"Runs in {directory}", ["run", "size", "", "why"], rows)
    outdated = [each.item.size_bytes for each in decisions if each.fate is Fate.OUTDATED]
    count = f"{len(outdated)} of {len(decisions)} runs, {_megabytes(sum(outdated))},"
    shared.print_removed(count, delete)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _used(directory: Path, states: tuple[Path, ...]) -> Used:
    """Return what the runs of a directory use, and the rollouts on this machine.

    Raises
    ------
    UsageError
        If one of ``states`` is no rollout.
    """
    from dwcp_ml.bundle_store.usage import ALL_MODELS
    from dwcp_ml.local_rollout.store import Store, stores_of_runs
    from dwcp_ml.training_run.run_retention import add_use, used_by_runs

    elsewhere = [Store(state) for state in states]
    for store in elsewhere:
        store.request()
    used = used_by_runs(directory)
    for store in (*stores_of_runs(directory), *elsewhere):
        try:
            files = store.files_in_use()
        except DwcpError as error:
            used.unknown[ALL_MODELS] = f"What is in use here is unknown: {error}"
            continue
        for path in files:
            add_use(used, path, f"The rollout in {store.directory}")
    return used
