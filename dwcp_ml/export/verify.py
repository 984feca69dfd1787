"""Opening a bundle that somebody else may have touched.

Nothing in the bundle is believed before it is checked: first what kind of files there are, then the
manifest, then that the files are exactly those of the manifest, byte for byte, then the graph. No
file but the manifest and ``model.onnx`` is parsed; nothing is unpickled. TensorFlow is not needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from pydantic import ValidationError

from dwcp_ml.contract.bundle import MANIFEST_NAME, MAX_FILE_BYTES, ONNX_NAME, Manifest
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.export.onnx_graph import external_tensor, signature_fault

MAX_ENTRIES: Final = 200
MAX_MANIFEST_BYTES: Final = 1_000_000

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked.

    Parameters
    ----------
    path
        Its directory.
    manifest
        What it says.
    digest
        SHA-256 of ``manifest.json``, which names the SHA-256 of every other file.
    onnx : bytes
        The graph that was checked: load these bytes, not the file, which may have changed since.
    """

    path: Path
    manifest: Manifest
    digest: str
    onnx: bytes


def verify_bundle(path: Path, *, digest: str | None = None) -> Manifest:
    """Check a bundle and return its manifest; see ``open_bundle``."""
    return open_bundle(path, digest=digest).manifest


def open_bundle(path: Path, *, digest: str | None = None) -> Bundle:
    """Check the bundle in the directory ``path`` and return it.

    ``path`` itself may be a link, it is the caller's word; nothing below it may.

    Parameters
    ----------
    path
        The directory that holds ``manifest.json``.
    digest
        What ``bundle_digest`` gave when the bundle was approved; ``None`` if nobody approved it.

    Raises
    ------
    BundleRefused
        If a file is missing, extra, changed, too large, a link, or not a plain file; if the
        manifest is invalid or names a path outside the bundle; if the graph is not ONNX, keeps
        data outside its file, uses operators of no known domain, or is not what the manifest says.
    """
    found = _files_below(path)
    if MANIFEST_NAME not in found:
        raise BundleRefused(
            f"{path} is no bundle: it has no {MANIFEST_NAME}; export the model again."
        )
    manifest_bytes = _read(path, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    actual = hashlib.sha256(manifest_bytes).hexdigest()
    if digest is not None and actual != digest:
        raise BundleRefused(
            f"{path} is not the bundle that was approved: its digest is {actual}, not {digest}."
        )
    manifest = _manifest(path, manifest_bytes)
    _compare_lists(path, found - {MANIFEST_NAME}, set(manifest.files))
    graph = b""
    for name, record in sorted(manifest.files.items()):
        content = _read(path, name, MAX_FILE_BYTES)
        same_size = len(content) == record.size_bytes
        if not same_size or hashlib.sha256(content).hexdigest() != record.sha256:
            raise BundleRefused(
                f"{path}: {name} has changed since the bundle was sealed; export the model again."
            )
        if name == ONNX_NAME:
            graph = content
    fault = _graph_fault(graph, manifest)
    if fault:
        raise BundleRefused(f"{path}: {ONNX_NAME} is refused: {fault}.")
    return Bundle(path, manifest, actual, graph)


def bundle_digest(path: Path) -> str:
    """Return the SHA-256 of the bundle's ``manifest.json``: the bundle's name by content.

    Raises
    ------
    BundleRefused
        If there is no such plain file.
    """
    return hashlib.sha256(_read(path, MANIFEST_NAME, MAX_MANIFEST_BYTES)).hexdigest()


def _files_below(root: Path) -> set[str]:
    """Return the POSIX paths of all files, having refused whatever is not a plain file."""
    found: set[str] = set()
    seen = 0
    pending = [(root, "")]
    while pending:
        directory, prefix = pending.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MAX_ENTRIES:
                        raise BundleRefused(
                            f"{root} holds more than {MAX_ENTRIES} files and directories; "
                            "it is no bundle."
                        )
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((Path(entry.path), f"{name}/"))
                        continue
                    info = entry.stat(follow_symlinks=False)
                    _refuse_odd_file(root, name, info, MAX_FILE_BYTES)
                    found.add(name)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BundleRefused(f"{root} can't be read as a bundle: {reason}.") from error
    return found


def _refuse_odd_file(root: Path, name: str, info: os.stat_result, limit: int) -> None:
    if stat.S_ISLNK(info.st_mode):
        raise BundleRefused(f"{root}: {name} is a symbolic link; a bundle holds plain files only.")
    if not stat.S_ISREG(info.st_mode):
        raise BundleRefused(f"{root}: {name} is not a plain file; a bundle holds plain files only.")
    if info.st_nlink > 1:
        raise BundleRefused(
            f"{root}: {name} is a hard link to a file elsewhere; copy the bundle instead."
        )
    if info.st_size > limit:
        raise BundleRefused(
            f"{root}: {name} has {info.st_size:,} bytes; a bundle may hold {limit:,} a file."
        )


def _read(root: Path, name: str, limit: int) -> bytes:
    """Return the content of a plain file, checked again on the open file itself."""
    try:
        descriptor = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            _refuse_odd_file(root, name, os.fstat(stream.fileno()), limit)
            return stream.read(limit)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleRefused(f"{root}: {name} can't be read: {reason}.") from error


def _manifest(path: Path, content: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleRefused(
            f"{path}: {MANIFEST_NAME} is invalid: {where}: {first['msg'].lower()}."
        ) from error
    if manifest.schema_version != 1:
        raise BundleRefused(
            f"{path}: {MANIFEST_NAME} has schema version {manifest.schema_version}; "
            "this program reads version 1."
        )
    for what, value, pattern in (
        ("name", manifest.name, _NAME),
        ("version", manifest.version, _VERSION),
    ):
        if not pattern.fullmatch(value):
            raise BundleRefused(
                f"{path}: {MANIFEST_NAME} has the {what} {value!r}, which can't be a path."
            )
    for name in manifest.files:
        if name == MANIFEST_NAME or not _safe(name):
            raise BundleRefused(
                f"{path}: {MANIFEST_NAME} names the file {name!r}, which can't lie in a bundle."
            )
    if ONNX_NAME not in manifest.files:
        raise BundleRefused(f"{path}: {MANIFEST_NAME} does not name {ONNX_NAME}; nothing to serve.")
    return manifest


def _safe(name: str) -> bool:
    """Return whether ``name`` is a relative POSIX path of plain parts: no ``..``, no root."""
    return all(_PART.fullmatch(part) for part in name.split("/"))


def _compare_lists(path: Path, found: set[str], listed: set[str]) -> None:
    missing, extra = sorted(listed - found), sorted(found - listed)
    if missing:
        raise BundleRefused(f"{path}: {missing[0]} is missing; export the model again.")
    if extra:
        raise BundleRefused(
            f"{path}: {extra[0]!r} is not in {MANIFEST_NAME}; a sealed bundle takes no other file."
        )


def _graph_fault(content: bytes, manifest: Manifest) -> str | None:
    """Return why the graph may not be loaded, ``None`` if it may."""
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        return "it is not an ONNX file"
    tensor = external_tensor(model)
    if tensor is not None:
        return f"the data of '{tensor}' lie in another file"
    domains = {node.domain for node in model.graph.node} | {o.domain for o in model.opset_import}
    unknown = sorted(domains - set(_DOMAINS))
    if unknown:
        return f"it uses operators of the domain '{unknown[0]}'"
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        return f"ONNX calls it invalid: {str(error).splitlines()[0].rstrip('.')}"
    return signature_fault(model.graph, manifest.inputs, manifest.outputs)
