"""Finalize a bundle: a staging directory becomes a bundle atomically.

The files are written into a hidden directory beside the destination, their SHA-256 goes into
``manifest.json``, which is written last, the result is opened
and checked like any untrusted bundle, everything is flushed to the disk, and one rename gives the
bundle its name. An existing bundle is never changed.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME, FileRecord, IntervalRecord, Manifest, signature
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, ExportFailed
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import ModelReport, TrainingRecord
from dwcp_ml.export.provenance import CHECKOUT, provenance
from dwcp_ml.export.verify import bundle_digest, verify_bundle
from dwcp_ml.files import cant_write, sha256_of, sync

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """Yield an empty hidden directory beside ``destination``; it is removed afterwards.

    Raises
    ------
    ExportFailed
        If ``destination`` exists.
    DwcpError
        If the directory can't be made.
    """
    _refuse_existing(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(
            tempfile.mkdtemp(
                prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
            )
        )
    except OSError as error:
        raise cant_write(f"the bundle {destination}", error) from error
    try:
        directory.chmod(DIRECTORY_MODE)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def finalize_bundle(
    directory: Path,
    destination: Path,
    spec: ModelSpec,
    report: ModelReport,
    *,
    checkout: Path = CHECKOUT,
) -> Path:
    """Turn the files in ``directory`` into the bundle ``destination``.

    Parameters
    ----------
    directory
        The directory of ``staging`` with the model's files and reports; it is renamed.
    destination
        ``<model>/<version>``; must not exist.
    report
        The gate's report on the model, from which the manifest takes the version, the threshold
        (``fitted["threshold"]``), the hyperparameters and the provenance.
    checkout
        The directory whose commit and lock file the provenance names.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    ExportFailed
        If ``destination`` exists.
    BundleRefused
        If the bundle would be rejected when opened: a link, an outsized file, an invalid graph.
    DwcpError
        If it can't be written: disk full, no permission.
    """
    _refuse_existing(destination)
    try:
        _drop_empty_directories(directory)
        diagnostics = report.evaluation.diagnostics
        manifest = Manifest(
            **signature(spec, report.training.form),
            version=report.version,
            threshold=report.training.fitted.get("threshold"),
            interval=_interval(spec, report.training),
            training_distribution=() if diagnostics is None else diagnostics.training,
            hyperparameters=report.hyperparameters,
            files=_file_records(directory),
            provenance=provenance(report, checkout=checkout),
        )
        (directory / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        verify_bundle(directory)
        _flush(directory)
        _rename(directory, destination)
        sync(destination.parent)
    except OSError as error:
        raise cant_write(f"the bundle {destination}", error) from error
    return destination


def _interval(spec: ModelSpec, training: TrainingRecord) -> IntervalRecord | None:
    """Return the interval of the first output; None if the training calibrated none."""
    fitted = training.fitted
    if "interval_half_width" not in fitted:
        return None
    return IntervalRecord(
        output=spec.form(training.form).outputs[0].name,
        nominal_coverage=fitted["interval_nominal"],
        half_width=fitted["interval_half_width"],
        calibration_examples=int(fitted["interval_examples"]),
    )


def copy_version(source: Path, destination: Path, *, digest: str | None = None) -> None:
    """Copy one version of a model, a bundle or what a failed export left, to ``destination``.

    A bundle that is there already with the same digest stays as it is. A bundle is verified before
    it gets its name.

    Parameters
    ----------
    digest
        What the copy must have. ``None`` for any, and for what is no bundle: then what is at the
        destination and is no bundle, as a failed export leaves it, is replaced.

    Raises
    ------
    BundleRefused
        If the copy is not a valid bundle of this digest.
    ExportFailed
        If ``destination`` is a bundle with another digest, or with ``digest`` anything else.
    DwcpError
        If it can't be written: disk full, no permission.
    """
    if (destination / MANIFEST_NAME).exists():
        is_bundle = (source / MANIFEST_NAME).exists()
        if is_bundle and bundle_digest(source) == bundle_digest(destination):
            return
        raise _clash(destination)
    try:
        if digest is None:
            shutil.rmtree(destination, ignore_errors=True)
        with staging(destination) as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
            if digest is not None or (directory / MANIFEST_NAME).exists():
                _verify_copy(directory, destination, digest)
            _rename(directory, destination)
        sync(destination.parent)
    except OSError as error:
        raise cant_write(f"the bundle {destination}", error) from error


def _verify_copy(directory: Path, destination: Path, digest: str | None) -> None:
    try:
        verify_bundle(directory, digest=digest)
    except BundleRefused as error:
        error.args = (str(error).replace(str(directory), str(destination)),)
        raise


def _file_records(directory: Path) -> dict[str, FileRecord]:
    """Return the record of every file but the manifest, by its POSIX path, in order."""
    files = sorted(path for path in directory.rglob("*") if not path.is_dir())
    return {
        path.relative_to(directory).as_posix(): FileRecord(
            sha256=sha256_of(path), size_bytes=path.stat().st_size
        )
        for path in files
        if path != directory / MANIFEST_NAME
    }


def _drop_empty_directories(directory: Path) -> None:
    """Remove them: object stores don't keep them, so no reader may count on them."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _flush(directory: Path) -> None:
    """Make every file readable for the server's user and force it to the disk, parents last."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.chmod(DIRECTORY_MODE if path.is_dir() else FILE_MODE)
        sync(path)
    directory.chmod(DIRECTORY_MODE)
    sync(directory)


def _rename(directory: Path, destination: Path) -> None:
    try:
        directory.rename(destination)  # never replaces a file, nor a directory that holds something
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _clash(destination) from error
        raise


def _refuse_existing(destination: Path) -> None:
    if os.path.lexists(destination):
        raise _clash(destination)


def _clash(destination: Path) -> ExportFailed:
    return ExportFailed(
        f"{destination} exists already, and a version is never overwritten; "
        "export under another version, or remove it first.",
        code=ErrorCode.ALREADY_EXISTS,
        subject=destination,
    )
