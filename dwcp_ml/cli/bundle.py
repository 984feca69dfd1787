"""``dwcp-ml bundle``: make a key pair, sign, check, copy and remove bundles."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared
from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError

if TYPE_CHECKING:
    from dwcp_ml.bundle_store.retention import Decision
    from dwcp_ml.bundle_store.usage import Stored, Used


def _instant(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> datetime | None:
    """Return the instant that ISO 8601 names; UTC without a time zone."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"'{value}' is not a date such as 2026-01-31 or 2026-01-31T12:00:00Z."
        ) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@click.group("bundle")
def group() -> None:
    """Sign bundles, check untrusted ones, copy them to a store, and remove outdated ones there.

    \b
    dwcp-ml bundle keygen --output-dir keys
    dwcp-ml bundle sign runs/latest/models/bandwidth_predictor/20260101-120000 \\
        --private-key keys/bundle-signing.key
    dwcp-ml bundle verify runs/latest/models/bandwidth_predictor/20260101-120000 \\
        --public-key keys/bundle-signing.pub
    dwcp-ml bundle push runs/latest/models/bandwidth_predictor/20260101-120000 s3://models
    dwcp-ml bundle pull s3://models/bandwidth_predictor/20260101-120000 --output-dir models
    dwcp-ml bundle prune s3://models --keep 10
    """


@group.command("keygen")
@click.option(
    "--output-dir", required=True, metavar="DIR",
    help="Where the two files go; keep it out of the repository.",
)  # fmt: skip
@shared.as_json
def keygen(output_dir: str, as_json: bool) -> None:
    """Make an EC P-256 key pair, to sign and to check bundles."""
    from dwcp_ml.export.keys import make_key_pair

    private, public = make_key_pair(Path(output_dir))
    if as_json:
        shared.print_json({"private_key": str(private), "public_key": str(public)})
        return
    click.echo(f"{private}  signs: keep it secret, it has no passphrase")
    click.echo(f"{public}  checks: give it to the server and the operator")


@group.command("sign")
@click.argument("bundle")
@click.option(
    "--private-key", required=True, metavar="KEY", help="EC private key, PEM; see bundle keygen."
)
@shared.as_json
def sign(bundle: str, private_key: str, as_json: bool) -> None:
    """Sign BUNDLE, a directory <model>/<version>; it is checked before."""
    from dwcp_ml.export.signing import sign_bundle
    from dwcp_ml.export.verify import bundle_digest

    signature = sign_bundle(Path(bundle), Path(private_key))
    digest = bundle_digest(Path(bundle))
    if as_json:
        shared.print_json({"signature_file": str(signature), "digest": digest})
    else:
        click.echo(f"{signature}  of the digest {digest}")


@group.command("verify")
@click.argument("bundle")
@click.option(
    "--public-key", metavar="KEY",
    help="EC public key, PEM: the bundle must be signed with its private key.",
)  # fmt: skip
@click.option("--digest", metavar="SHA256", help="The digest that was approved.")
@click.option(
    "--not-before", callback=_instant, metavar="DATE",
    help="Reject a model trained before DATE (UTC without a time zone), such as a "
    "replayed older version; needs --public-key or --digest, which make the date trustworthy.",
)  # fmt: skip
@click.option(
    "--strict-location", is_flag=True,
    help="Reject a bundle that is not in a directory <its model>/<its version>.",
)  # fmt: skip
@shared.as_json
def verify(
    bundle: str,
    public_key: str | None,
    digest: str | None,
    not_before: datetime | None,
    strict_location: bool,
    as_json: bool,
) -> None:
    """Check BUNDLE, a directory <model>/<version>, as the server does before it loads one.

    The signature is `valid` for the key, `unchecked` without a key, or `none`.
    """
    from dwcp_ml.contract.bundle import printable
    from dwcp_ml.export.verify import open_bundle

    opened = open_bundle(
        Path(bundle),
        digest=digest,
        public_key=Path(public_key) if public_key else None,
        not_before=not_before,
        strict_location=strict_location,
    )
    manifest = opened.manifest
    result = {
        "name": manifest.name,
        "version": manifest.version,
        "training_date": printable(manifest.provenance.training_date),
        "digest": opened.digest,
        "signature": opened.signature,
    }
    if as_json:
        shared.print_json(result)
        return
    for what, value in result.items():
        click.echo(f"{what.replace('_', ' '):<14}{value}")


@group.command("push")
@click.argument("bundle")
@click.argument("prefix")
@click.option("--digest", metavar="SHA256", help="The digest that was approved.")
@shared.as_json
def push(bundle: str, prefix: str, digest: str | None, as_json: bool) -> None:
    """Copy BUNDLE to PREFIX/<model>/<version>, and verify every file there.

    PREFIX is a path, or s3://, gs://, az:// or pvc://. A bundle is never overwritten: if the same
    one is there it is verified, if another one is there the command fails.
    """
    from dwcp_ml.bundle_store import push as copy

    pushed = copy(Path(bundle), prefix, digest=digest)
    if as_json:
        shared.print_json(dataclasses.asdict(pushed))
    else:
        done = "was copied and verified" if pushed.is_new else "was there already, and is verified"
        click.echo(f"{pushed.address} {done}; digest {pushed.digest}")


@group.command("pull")
@click.argument("address")
@click.option("--output-dir", required=True, metavar="DIR", help="Gets <model>/<version>/.")
@click.option("--digest", metavar="SHA256", help="The digest that was approved.")
@click.option(
    "--public-key", metavar="KEY",
    help="EC public key, PEM: the bundle must be signed with its private key.",
)  # fmt: skip
@shared.as_json
def pull(
    address: str, output_dir: str, digest: str | None, public_key: str | None, as_json: bool
) -> None:
    """Copy the bundle at ADDRESS to DIR/<model>/<version>, after checking it.

    ADDRESS is a path or a URI that ends in <model>/<version>.
    """
    from dwcp_ml.bundle_store import pull as copy

    key = None if public_key is None else Path(public_key)
    path = copy(address, Path(output_dir), digest=digest, public_key=key)
    if as_json:
        shared.print_json({"path": str(path)})
    else:
        click.echo(f"{path} was copied and verified")


@group.command("prune")
@click.argument("prefix")
@shared.retention(
    "Versions of each model that are kept in any case, the newest.",
    "Versions that the store wrote less than this time ago are kept in any case.",
)
@click.option(
    "--kubeconfig", "kubeconfigs", type=click.Path(path_type=Path), metavar="FILE", multiple=True,
    help="A cluster that serves the bundles; repeat it for each. [default: as kubectl chooses; "
    "not asked for a path]",
)  # fmt: skip
@click.option(
    "--allow-unused", is_flag=True,
    help="Do not mind that a cluster names nothing in this store; usually it is the wrong cluster.",
)  # fmt: skip
@click.option(
    "--runs", "directory", default="runs", show_default=True, metavar="DIR",
    help="For a path: the runs of this machine, whose newest one and whose rollouts are in use.",
)  # fmt: skip
@shared.as_json
def prune(
    prefix: str,
    keep: int,
    delete: bool,
    min_age: float,
    kubeconfigs: tuple[Path, ...],
    allow_unused: bool,
    directory: str,
    as_json: bool,
) -> None:
    """List the outdated bundles below PREFIX/<model>/, or remove them with --delete.

    A bundle stays if it is among the newest N, if it was written lately, if a ModelRollout, an
    InferenceService or a pod of one in the clusters names it, if it came just before one that is in
    use, if it is damaged, or if any of that can't be found out. Each cluster must name something in
    the store. Of a path the runs on this machine are asked instead, and clusters only with
    --kubeconfig.
    """
    from dwcp_ml.bundle_store.retention import (
        Fate,
        Policy,
        list_store,
        plan,
        remove,
        remove_outdated,
    )
    from dwcp_ml.cli.terminal import print_table

    policy, stored = Policy(keep, timedelta(hours=min_age)), list_store(prefix)

    def decide() -> list[Decision[Stored]]:
        return plan(
            stored,
            _used(prefix, kubeconfigs, Path(directory), allow_unused),
            policy,
            datetime.now(UTC),
        )

    decisions = decide()
    if delete:
        decisions = remove_outdated(decisions, decide, remove)
    outdated = [decision for decision in decisions if decision.fate is Fate.OUTDATED]
    if as_json:
        shared.print_json({
            "removed": delete,
            "bundles": [
                {"address": each.item.address, "fate": each.fate, "why": each.why}
                for each in decisions
            ],
        })  # fmt: skip
        return
    rows = [[each.item.model, each.item.version, each.fate, each.why] for each in decisions]
    if rows:
        print_table(f"Bundles in {prefix}", ["model", "version", "", "why"], rows)
    shared.print_removed(f"{len(outdated)} of {len(decisions)} bundles", delete)


def _used(prefix: str, kubeconfigs: tuple[Path, ...], runs: Path, allow_unused: bool) -> Used:
    """Return what uses bundles: on clusters, on this machine, or on both.

    Raises
    ------
    UsageError
        If a cluster names nothing in the store, of a path no bundle at all, and ``allow_unused`` is
        false.
    """
    from dwcp_ml.bundle_store.usage import ALL_MODELS, Used, ask_cluster
    from dwcp_ml.kube.client import connect
    from dwcp_ml.storage.addresses import scheme_of, without_query

    is_path = scheme_of(prefix) in ("", "file")
    clusters: tuple[Path | None, ...] = kubeconfigs or (() if is_path else (None,))
    used = Used()
    for kubeconfig in clusters:
        found = ask_cluster(connect(kubeconfig))
        names = bool(found.bundles) if is_path else found.has(prefix)
        if not (names or allow_unused):
            raise UsageError(
                f"No ModelRollout and no InferenceService of {kubeconfig or 'the cluster'} names "
                f"anything in {without_query(prefix)}: name the clusters that serve it by "
                f"--kubeconfig, or if really none does, give --allow-unused.",
                code=ErrorCode.MISSING,
                subject=without_query(prefix),
            )
        used.join(found)
    if is_path:
        try:
            _add_runs(used, runs)
        except DwcpError as error:
            used.unknown[ALL_MODELS] = f"What is in use here is unknown: {error}"
    return used


def _add_runs(used: Used, runs: Path) -> None:
    """Add the bundles of the newest run, and those of all rollouts on this machine.

    Raises
    ------
    UsageError
        If there is no run.
    """
    from dwcp_ml.contract.bundle import MANIFEST_NAME
    from dwcp_ml.export.verify import bundle_digest
    from dwcp_ml.local_rollout.store import stores_of_runs
    from dwcp_ml.training_run.session import LATEST_NAME, open_session

    newest = open_session(runs / LATEST_NAME)
    paths = {path.parent: "The newest run" for path in newest.models.glob(f"*/*/{MANIFEST_NAME}")}
    for store in stores_of_runs(runs):
        rollout = store.request().run
        for bundle in (rollout.stable_bundle, rollout.candidate_bundle):
            paths[Path(bundle)] = f"The rollout in {store.directory}"
    for path, user in paths.items():
        used.add(str(path.absolute()), user)
        if path.is_dir():
            used.digests[bundle_digest(path)] = user
