"""Finalized bundles, and the changes that an attacker could make to them."""

import hashlib
import json
from datetime import UTC, datetime

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.verify import open_bundle

TRAINED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATE = TRAINED.isoformat()


def finalize(models, forest, report, version="7", text="# fine\n", trained=DATE):
    destination = models / "reliability_detector" / version
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(forest.onnx)
        (directory / "report.md").write_text(text)
        (directory / "saved_model" / "1").mkdir(parents=True)
        (directory / "saved_model" / "1" / "saved_model.pb").write_bytes(b"graph")
        dated = report.replace(version=version, training_date=trained)
        return finalize_bundle(directory, destination, RELIABILITY, dated)


def rejected(path, match, by=open_bundle, **options):
    """Assert that the bundle is rejected, with one sentence."""
    with pytest.raises(BundleRefused, match=match) as caught:
        by(path, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def manifest_of(path):
    return json.loads((path / MANIFEST_NAME).read_text())


def rewrite(path, **changes):
    """Write a changed manifest, as an attacker would."""
    (path / MANIFEST_NAME).write_text(json.dumps(manifest_of(path) | changes))


def finalize_again(path):
    """Write the records of all files again."""
    files = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name not in (MANIFEST_NAME, SIGNATURE_NAME):
            content = file.read_bytes()
            record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            files[name] = record
    rewrite(path, files=files)


def replace_file(finalized, name, content):
    """Replace a file and its record in the manifest: only its content can give it away."""
    (finalized / name).parent.mkdir(parents=True, exist_ok=True)
    (finalized / name).write_bytes(content)
    files = manifest_of(finalized)["files"]
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    rewrite(finalized, files=files | {name: record})
