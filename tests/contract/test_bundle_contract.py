"""The digest of a bundle's contract: equal for equal interfaces, another for every other one."""

import pytest

from dwcp_ml.contract.bundle import Manifest, contract_digest, parse_manifest
from tests.serving.bundles import make_bundle

NAME = "compression_selector"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    bundle = make_bundle(tmp_path_factory.mktemp("contract"), NAME, "1")
    return parse_manifest((bundle / "manifest.json").read_bytes(), bundle)


def tensor(manifest, which, **changes):
    """Return the manifest with the first tensor of ``which`` changed."""
    first, *others = getattr(manifest, which)
    return manifest.replace(**{which: (first.replace(**changes), *others)})


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(version="2"),
        lambda m: m.replace(files={}),
        lambda m: m.replace(hyperparameters={"units": 9}),
        lambda m: m.replace(threshold=0.9),
        lambda m: m.replace(provenance=m.provenance.replace(seed=7)),
        lambda m: tensor(m, "outputs", description="in other words"),
        lambda m: Manifest.model_validate_json(m.model_dump_json()),
    ],
)
def test_another_version_of_the_same_contract_has_the_same_digest(manifest, change):
    assert contract_digest(change(manifest)) == contract_digest(manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(name="other"),
        lambda m: m.replace(form="compression_type"),
        lambda m: m.replace(feature_order=m.feature_order[::-1]),
        lambda m: m.replace(window=2),
        lambda m: m.replace(outputs=m.outputs[::-1]),
        lambda m: m.replace(outputs=m.outputs[:1]),
        lambda m: tensor(m, "inputs", name="x"),
        lambda m: tensor(m, "inputs", shape=(7,)),
        lambda m: tensor(m, "inputs", dtype="float64"),
        lambda m: tensor(m, "outputs", name="y"),
        lambda m: tensor(m, "outputs", unit="percent"),
        lambda m: tensor(m, "outputs", maximum=11.0),
        lambda m: tensor(m, "outputs", minimum=None),
    ],
)
def test_what_callers_rely_on_has_another_digest(manifest, change):
    assert contract_digest(change(manifest)) != contract_digest(manifest)


def test_the_digest_is_the_same_in_every_release(manifest):
    """Servers of two releases are compared: a change here holds every rollout between them."""
    digest = "2d4332282e87754774a00f4f2ebf6f4b2134f3ab21292b545c9109a7a5ef4fab"
    assert contract_digest(manifest) == digest
