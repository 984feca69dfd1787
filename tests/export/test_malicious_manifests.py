"""Malicious manifests: rejected with one sentence, and nothing outside is read."""

import hashlib
import json

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from tests.export.bundles import finalize_again, manifest_of, rewrite
from tests.export.malicious import refuse


def with_file(path, name):
    files = manifest_of(path)["files"]
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    rewrite(path, files=files | {name: record})


def with_text(path, before, after):
    file = path / MANIFEST_NAME
    assert file.read_text().count(before) >= 1
    file.write_text(file.read_text().replace(before, after, 1))


def distribution(feature, edges=(1, 2), shares=(0.2, 0.3, 0.5)):
    return {"feature": feature, "edges": list(edges), "shares": list(shares)}


MANIFESTS = {
    "traversal": (
        lambda p, o: with_file(p, "../../../outside/secret.txt"),
        "a bundle can't contain",
    ),
    "inner traversal": (lambda p, o: with_file(p, "saved_model/../../x"), "a bundle can't contain"),
    "absolute": (lambda p, o: with_file(p, str(o / "secret.txt")), "a bundle can't contain"),
    "its own signature": (lambda p, o: with_file(p, SIGNATURE_NAME), "a bundle can't contain"),
    "deep": (lambda p, o: with_file(p, "/".join("a" * 9)), "a bundle can't contain"),
    "terminal codes": (lambda p, o: with_file(p, "\x1b[2Jx"), "a bundle can't contain"),
    "long": (lambda p, o: with_file(p, "x" * 100_000), "a bundle can't contain"),
    "case": (lambda p, o: with_file(p, "MODEL.onnx"), "'model.onnx' and 'MODEL.onnx', which are"),
    "signature's case": (lambda p, o: with_file(p, "Model.Sig"), "same file on a case-insensitive"),
    "a directory and a file": (
        lambda p, o: with_file(p, "Model.onnx/b"),
        "'Model.onnx/b' and 'model.onnx', which can't be both",
    ),
    "below the manifest": (lambda p, o: with_file(p, f"{MANIFEST_NAME}/b"), "can't be both"),
    "missing": (lambda p, o: with_file(p, "more.txt"), r"more\.txt is missing"),
    "oversize": (
        lambda p, o: (p / MANIFEST_NAME).write_text(" " * 1_000_001),
        r"manifest\.json has 1,000,001 bytes",
    ),
    "nested": (
        lambda p, o: rewrite(p, hyperparameters={"a": json.loads("[" * 900 + "]" * 900)}),
        "is invalid",
    ),
    "nested beyond the stack": (
        lambda p, o: (p / MANIFEST_NAME).write_text('{"a":' * 150_000),
        "nested too deeply",
    ),
    "not UTF-8": (
        lambda p, o: (p / MANIFEST_NAME).write_bytes((p / MANIFEST_NAME).read_bytes() + b"\xff"),
        "not UTF-8",
    ),
    "UTF-16": (
        lambda p, o: (p / MANIFEST_NAME).write_bytes(
            (p / MANIFEST_NAME).read_text().encode("utf-16")
        ),
        "not UTF-8",
    ),
    "a key twice": (
        lambda p, o: with_text(p, '"version": "7"', '"version": "7", "version": "8"'),
        "the key 'version' is repeated",
    ),
    "a file twice": (
        lambda p, o: with_text(p, '"report.md": {', '"report.md": {}, "report.md": {'),
        "the key 'report.md' is repeated",
    ),
    "a distribution of another feature": (
        lambda p, o: rewrite(p, training_distribution=[distribution("no_feature")]),
        "training distribution of a feature that is none of its own",
    ),
    "two distributions of a feature": (
        lambda p, o: rewrite(p, training_distribution=[distribution("rtt_ms")] * 2),
        "or two of one",
    ),
    "edges that fall": (
        lambda p, o: rewrite(p, training_distribution=[distribution("rtt_ms", edges=[2, 1])]),
        "is invalid",
    ),
    "a share too few": (
        lambda p, o: rewrite(p, training_distribution=[distribution("rtt_ms", edges=[1])]),
        "is invalid",
    ),
    "a share of nothing": (
        lambda p, o: rewrite(p, training_distribution=[distribution("rtt_ms", shares=[0, 0, 1])]),
        "is invalid",
    ),
    "an unknown key": (lambda p, o: rewrite(p, **{"a\nb": 1}), "is invalid"),
    "no graph": (lambda p, o: rewrite(p, files={}), r"does not name model\.onnx"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(bundle, outside, case):
    change, match = MANIFESTS[case]
    change(bundle, outside)
    refuse(bundle, match)


def test_files_on_the_disk_that_differ_in_case_only(bundle):
    (bundle / "REPORT.md").write_text("# other\n")
    if (bundle / "report.md").read_text() != "# fine\n":
        pytest.skip("case doesn't count on this disk")
    finalize_again(bundle)
    refuse(bundle, "the same file on a case-insensitive system")
