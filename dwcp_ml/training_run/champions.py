"""The champion of each model: where it is, and its predictions of a challenger's test split.

It is the bundle that the user named as the stable one. Otherwise it is found: on one machine the
newest approved bundle of the runs before, on a cluster the live one of the model's ModelRollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.bundle import MANIFEST_NAME, Manifest, contract_digest, signature
from dwcp_ml.contract.champion import (
    ChampionCheck,
    ChampionRecord,
    ChampionRule,
    ChampionSource,
    NotCompared,
)
from dwcp_ml.contract.comparison import Comparison
from dwcp_ml.contract.errors import BundleRefused, DwcpError, ErrorCode, ExportFailed
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.storage.addresses import without_query
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.previous_run import previous_bundles
from dwcp_ml.training_run.session import Session

if TYPE_CHECKING:
    from dwcp_ml.contract.examples import ModelData
    from dwcp_ml.export.verify import Bundle
    from dwcp_ml.kube.api import Api

CHAMPIONS_VARIABLE: Final = "DWCP_CHAMPIONS"
"""Environment variable: the champions of a pipeline that runs on one machine, as JSON."""

Champions = dict[str, ChampionSource]
"""Full name of a model -> its champion."""


def champions_of(session: Session, options: RunOptions) -> Champions:
    """Return the champions of a run on this machine: those that it names, or the previous ones."""
    if options.stable_uri.strip():
        return _named(options)
    return {
        name: ChampionSource(uri=str(path), named=False)
        for name, path in previous_bundles(session, options).items()
    }


def champions_on_cluster(options: RunOptions, api: Api | None) -> Champions:
    """Return the champions of a run on a cluster: those that it names, or the live ones.

    Parameters
    ----------
    api
        Used only if no stable bundle is named and ``rollout_namespace`` is; ``None`` without one.

    Raises
    ------
    KubeError
        If the API server denies access or gives no response: it is unknown what is live.
    """
    from dwcp_ml.kube.api import MODEL_ROLLOUT
    from dwcp_ml.kube.publish_candidate import live_digest, live_uri

    if options.stable_uri.strip() or api is None:
        return _named(options)
    found: Champions = {}
    for spec in options.specs():
        rollout = api.get(MODEL_ROLLOUT, options.rollout_namespace, spec.kubernetes_name)
        if uri := live_uri(rollout):
            found[spec.name] = ChampionSource(uri=uri, digest=live_digest(rollout), named=False)
    return found


def _named(options: RunOptions) -> Champions:
    """Return the stable bundles that the user named, a path as an absolute one."""
    return {
        name: ChampionSource(uri=uri if "://" in uri else str(Path(uri).absolute()), named=True)
        for name, uri in options.stable_uris().items()
    }


def from_json(values: Mapping[str, Any]) -> Champions:
    """Return the champions that ``to_json`` wrote."""
    return {name: ChampionSource.model_validate(value) for name, value in values.items()}


def to_json(champions: Champions) -> dict[str, Any]:
    """Return the champions as JSON without null, which Kubeflow's local runner does not pass on."""
    return {
        name: source.model_dump(mode="json", exclude_none=True)
        for name, source in champions.items()
    }


def compare(
    evaluation: Evaluation,
    data: ModelData,
    predictions: Mapping[str, Array],
    spec: ModelSpec,
    source: ChampionSource,
    rule: ChampionRule,
) -> Evaluation:
    """Return the evaluation with the comparison with the champion, or with why there is none.

    The bundle is untrusted: it is verified, and only its ONNX graph is run.

    Parameters
    ----------
    predictions
        The challenger's, of the test split of ``data``: output name -> values of shape (n, ...).
    spec
        Of the challenger, with its window.
    """
    from dwcp_ml.evaluation.champion import overlap_note

    check = ChampionCheck(source=source.replace(uri=without_query(source.uri)))
    try:
        bundle = _opened(source)
        check = check.replace(version=bundle.manifest.version, digest=bundle.digest)
        _check_contract(bundle.manifest, spec, evaluation.form)
        record, comparison = _compared(bundle, data, predictions, rule)
    except _Unusable as error:
        note = f"The model was not compared with the champion: {error}"
        return evaluation.replace(
            champion=check.replace(not_compared=error.reason, detail=str(error)),
            notes=(*evaluation.notes, note),
        )
    overlap = overlap_note(data, bundle.manifest.provenance.lineage)
    return evaluation.replace(
        champion=check.replace(record=record),
        comparisons=(*evaluation.comparisons, comparison),
        notes=(*evaluation.notes, *((overlap,) if overlap else ())),
    )


class _Unusable(Exception):
    """There is no comparison with this champion."""

    def __init__(self, reason: NotCompared, sentence: object) -> None:
        super().__init__(sentence)
        self.reason = reason


def _opened(source: ChampionSource) -> Bundle:
    from dwcp_ml.bundle_store import opened_at

    try:
        with opened_at(source.uri, digest=source.digest) as bundle:
            return bundle
    except BundleRefused as error:
        no_manifest = error.code is ErrorCode.MISSING and error.subject == MANIFEST_NAME
        missing = error.code is ErrorCode.CANT_READ or no_manifest
        reason = NotCompared.UNREADABLE if missing else NotCompared.INVALID
        raise _Unusable(reason, error) from error
    except DwcpError as error:
        raise _Unusable(NotCompared.UNREADABLE, error) from error


def _check_contract(manifest: Manifest, spec: ModelSpec, form: str) -> None:
    if (manifest.name, manifest.form) != (spec.name, form):
        raise _Unusable(
            NotCompared.OTHER_FORM,
            f"{manifest.version} is a {manifest.name} of the form {manifest.form}, the model is a "
            f"{spec.name} of the form {form}.",
        )
    if contract_digest(manifest) != contract_digest(manifest.replace(**signature(spec, form))):
        raise _Unusable(
            NotCompared.OTHER_CONTRACT,
            f"the contract of {manifest.version} differs in its inputs or outputs, such as the "
            "window.",
        )


def _compared(
    bundle: Bundle, data: ModelData, predictions: Mapping[str, Array], rule: ChampionRule
) -> tuple[ChampionRecord, Comparison]:
    from dwcp_ml.evaluation.champion import Champion, with_champion
    from dwcp_ml.export.predictions import graph_predictions

    version = bundle.manifest.version
    try:
        outputs = graph_predictions(bundle.onnx, data.test.inputs)
    except ExportFailed as error:
        raise _Unusable(NotCompared.NO_PREDICTIONS, error) from error
    compared = with_champion(data, predictions, Champion(version, bundle.digest, outputs), rule)
    if compared is None:
        raise _Unusable(
            NotCompared.NO_PREDICTIONS,
            f"{version} or the model has a prediction that is not a finite number.",
        )
    return compared
