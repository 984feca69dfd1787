"""A bundle is complete or absent, and its manifest describes it."""

import errno
import hashlib
import json
import os
import stat
import subprocess

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, Manifest, contract_digest
from dwcp_ml.contract.errors import BundleRefused, DwcpError, ErrorCode, ExportFailed
from dwcp_ml.contract.evaluation import Finding
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export import bundle, provenance
from dwcp_ml.export.bundle import copy_version, finalize_bundle, staging
from dwcp_ml.export.verify import bundle_digest, open_bundle, verify_bundle
from tests.errors import about
from tests.export.bundles import manifest_of, rewrite


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def fill(directory, forest):
    (directory / ONNX_NAME).write_bytes(forest.onnx)
    (directory / "report.json").write_text("{}\n")
    nested = directory / "saved_model" / "1" / "variables"
    nested.mkdir(parents=True)
    (nested / "variables.index").write_bytes(b"\0\1")
    (directory / "saved_model" / "1" / "assets").mkdir()


def finalize(destination, forest, report):
    with staging(destination) as directory:
        fill(directory, forest)
        return finalize_bundle(directory, destination, RELIABILITY, report)


def test_a_finalized_bundle_opens_and_holds_what_was_staged(tmp_path, forest, report):
    destination = tmp_path / "reliability_detector" / "7"
    assert finalize(destination, forest, report) == destination
    opened = open_bundle(destination)
    assert set(opened.manifest.files) == {
        "model.onnx",
        "report.json",
        "saved_model/1/variables/variables.index",
    }
    assert opened.onnx == forest.onnx
    assert opened.digest == bundle_digest(destination)
    assert opened.digest == hashlib.sha256((destination / MANIFEST_NAME).read_bytes()).hexdigest()
    assert names(destination.parent) == ["7"]
    assert not (destination / "saved_model" / "1" / "assets").exists()


def test_the_manifest_says_what_the_bundle_is(tmp_path, forest, report):
    manifest = verify_bundle(finalize(tmp_path / "7", forest, report))
    assert (manifest.name, manifest.version, manifest.form) == (
        "reliability_detector",
        "7",
        "anomaly",
    )
    assert manifest.feature_order == RELIABILITY.features
    assert manifest.inputs[0].shape == (6,)
    assert [o.name for o in manifest.outputs] == ["anomaly_score", "is_anomaly"]
    assert manifest.threshold == 0.5
    assert manifest.hyperparameters == {"training": {"n_estimators": 100}}
    made_by = manifest.provenance
    assert made_by.data_md5 == "0" * 32
    assert made_by.data_source == "simulated"
    assert made_by.seed == 42
    assert made_by.achieved_metrics == {"recall": 0.99, "pr_auc": None}
    assert made_by.verdict == "APPROVED"
    assert made_by.libraries["scikit-learn"] == "0.0"  # those that trained count
    assert {"python", "onnx", "numpy"} <= set(made_by.libraries)


def test_the_manifest_has_the_findings_and_one_without_them_is_still_read(tmp_path, forest, report):
    finding = Finding(
        rule="signed_log_z", metric="pr_auc", improvement=0.001, lower=-0.01, upper=0.02
    )
    bundle = finalize(tmp_path / "models", forest, report.replace(findings=(finding,)))
    assert open_bundle(bundle).manifest.provenance.findings == (finding,)
    stored = manifest_of(bundle)["provenance"]
    assert stored["findings"][0]["code"] == "NoBetterThan"
    # As bundles were finalized before there were findings.
    del stored["findings"]
    rewrite(bundle, provenance=stored)
    assert open_bundle(bundle).manifest.provenance.findings == ()


def with_interval(report):
    fitted = {
        "threshold": 0.5, "interval_half_width": 0.1, "interval_nominal": 0.9,
        "interval_examples": 200.0,
    }  # fmt: skip
    return report.replace(training=report.training.replace(fitted=fitted))


def test_the_manifest_has_the_interval_which_is_no_part_of_the_contract(tmp_path, forest, report):
    plain = finalize(tmp_path / "plain", forest, report)
    bundle = finalize(tmp_path / "interval", forest, with_interval(report))
    assert "interval" not in manifest_of(plain)
    assert manifest_of(bundle)["interval"] == {
        "output": "anomaly_score", "nominal_coverage": 0.9, "half_width": 0.1,
        "calibration_examples": 200,
    }  # fmt: skip
    assert contract_digest(open_bundle(bundle).manifest) == contract_digest(
        open_bundle(plain).manifest
    )


@pytest.mark.parametrize("output", ["is_anomaly", "other"])
def test_an_interval_of_no_number_is_rejected(tmp_path, forest, report, output):
    bundle = finalize(tmp_path / "7", forest, with_interval(report))
    rewrite(bundle, interval=manifest_of(bundle)["interval"] | {"output": output})
    with pytest.raises(BundleRefused, check=about(ErrorCode.CONTRACT, "interval")):
        open_bundle(bundle)


def test_another_user_may_read_it_and_nobody_writes_it_by_accident(tmp_path, forest, report):
    destination = finalize(tmp_path / "7", forest, report)
    assert stat.S_IMODE(destination.stat().st_mode) == 0o755
    for path in destination.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("kind", ["bundle", "file", "empty directory", "dangling link"])
def test_what_stands_there_is_never_overwritten(tmp_path, forest, report, kind):
    destination = tmp_path / "7"
    if kind == "bundle":
        finalize(destination, forest, report)
    elif kind == "file":
        destination.write_text("mine")
    elif kind == "empty directory":
        destination.mkdir()
    else:
        destination.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportFailed, check=about(ErrorCode.ALREADY_EXISTS, "7")):
        finalize(destination, forest, report)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bundle_that_appears_meanwhile_is_not_overwritten(tmp_path, forest, report):
    destination = tmp_path / "7"
    with staging(destination) as directory:
        fill(directory, forest)
        other = finalize(destination, forest, report.replace(reasons=("first",)))
        digest = bundle_digest(other)
        for already_checked in (False, True):
            with pytest.raises(ExportFailed, check=about(ErrorCode.ALREADY_EXISTS, "7")):
                if already_checked:
                    bundle._rename(directory, destination)
                else:
                    finalize_bundle(directory, destination, RELIABILITY, report)
    assert bundle_digest(destination) == digest
    assert names(tmp_path) == ["7"]


def test_an_error_on_the_way_leaves_nothing(tmp_path, forest, report):
    destination = tmp_path / "models" / "7"
    with pytest.raises(KeyboardInterrupt), staging(destination) as directory:
        fill(directory, forest)
        raise KeyboardInterrupt
    assert names(destination.parent) == []


@pytest.mark.parametrize("step", ["_file_records", "_flush", "_rename"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path, forest, report, monkeypatch, step
):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle, step, full)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, "7")):
        finalize(tmp_path / "7", forest, report)
    assert names(tmp_path) == []


def test_the_final_name_appears_only_with_the_manifest_in_it(tmp_path, forest, report, monkeypatch):
    destination = tmp_path / "7"
    seen = []
    rename = bundle._rename

    def watch(directory, target):
        seen.append((destination.exists(), verify_bundle(directory)))
        rename(directory, target)

    monkeypatch.setattr(bundle, "_rename", watch)
    finalize(destination, forest, report)
    assert [exists for exists, _ in seen] == [False]


def test_what_could_not_be_opened_is_not_finalized(tmp_path, forest, report):
    destination = tmp_path / "7"
    with (
        pytest.raises(BundleRefused, check=about(ErrorCode.FORBIDDEN, "link")),
        staging(destination) as directory,
    ):
        fill(directory, forest)
        (directory / "link").symlink_to("/etc/hostname")
        finalize_bundle(directory, destination, RELIABILITY, report)
    assert names(tmp_path) == []


def test_the_same_content_has_the_same_digest_and_other_content_another(tmp_path, forest, report):
    first = finalize(tmp_path / "a" / "7", forest, report)
    again = finalize(tmp_path / "b" / "7", forest, report)
    changed = report.replace(verdict="REJECTED")
    other = finalize(tmp_path / "c" / "7", forest, changed)
    assert bundle_digest(first) == bundle_digest(again)
    assert bundle_digest(first) != bundle_digest(other)


def test_the_manifest_is_json_without_surprises(tmp_path, forest, report):
    text = (finalize(tmp_path / "7", forest, report) / MANIFEST_NAME).read_text()
    assert list(json.loads(text)["files"]) == sorted(json.loads(text)["files"])
    assert Manifest.model_validate_json(text).to_json() == text


def git(directory, *arguments):
    command = [
        "git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@b",
        "-c", "commit.gpgsign=false", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_source_commit_is_that_of_the_checkout_and_dirty_when_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv(provenance.COMMIT_VARIABLE, raising=False)
    assert provenance.source_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.source_commit(tmp_path) is None  # no commit yet
    (tmp_path / "dwcp_ml").mkdir()
    source = tmp_path / "dwcp_ml" / "a.py"
    source.write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.source_commit(tmp_path) == commit
    (tmp_path / "notes.txt").write_text("not a source\n")
    assert provenance.source_commit(tmp_path) == commit
    source.write_text("2\n")
    assert provenance.source_commit(tmp_path) == f"{commit}-dirty"
    source.write_text("1\n")
    (tmp_path / "dwcp_ml" / "b.py").write_text("new\n")
    assert provenance.source_commit(tmp_path) == f"{commit}-dirty"
    # A package installed inside another repository is not built from that commit.
    assert provenance.source_commit(tmp_path / "dwcp_ml") is None


def test_an_image_says_which_commit_it_is_made_of_but_never_for_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "c0ffee")
    assert provenance.source_commit(tmp_path) == "c0ffee"
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert provenance.source_commit(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "")
    assert provenance.source_commit(tmp_path / "nowhere") is None


def test_an_image_says_where_its_lock_file_is_but_never_for_a_checkout(tmp_path, monkeypatch):
    named = tmp_path / "named.lock"
    named.write_text("numpy==1\n")
    monkeypatch.setenv(provenance.LOCK_VARIABLE, str(named))
    assert provenance.lock_sha256(tmp_path) == hashlib.sha256(b"numpy==1\n").hexdigest()
    (tmp_path / "requirements.lock").write_text("numpy==2\n")
    assert provenance.lock_sha256(tmp_path) == hashlib.sha256(b"numpy==2\n").hexdigest()
    monkeypatch.setenv(provenance.LOCK_VARIABLE, str(tmp_path / "none"))
    assert provenance.lock_sha256(tmp_path / "nowhere") is None


def test_the_lock_file_is_named_by_its_content(tmp_path, monkeypatch):
    monkeypatch.delenv(provenance.LOCK_VARIABLE, raising=False)
    assert provenance.lock_sha256(tmp_path) is None
    (tmp_path / "requirements.lock").write_text("numpy==2\n")
    assert provenance.lock_sha256(tmp_path) == hashlib.sha256(b"numpy==2\n").hexdigest()


def test_a_copy_never_overwrites_another_bundle_of_the_version(tmp_path, forest, report):
    source, copied = tmp_path / "a" / "7", tmp_path / "models" / "reliability_detector" / "7"
    finalize(source, forest, report)
    copied.mkdir(parents=True)
    (copied / "report.json").write_text("{}")  # what a failed export left is no bundle
    copy_version(source, copied)
    assert open_bundle(copied).digest == bundle_digest(source)
    assert names(copied.parent) == ["7"]
    before = (copied / MANIFEST_NAME).stat()
    copy_version(source, copied)
    assert (copied / MANIFEST_NAME).stat() == before, "the same digest is left alone"
    other = tmp_path / "b" / "7"
    finalize(other, forest, report.replace(hyperparameters={"trees": 1}))
    with pytest.raises(ExportFailed, check=about(ErrorCode.ALREADY_EXISTS, copied)):
        copy_version(other, copied)
    (other / MANIFEST_NAME).unlink()
    with pytest.raises(ExportFailed, check=about(ErrorCode.ALREADY_EXISTS, copied)):
        copy_version(other, copied)
    assert open_bundle(copied).digest == bundle_digest(source)
