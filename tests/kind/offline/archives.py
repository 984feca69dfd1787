"""Container images as files, made without an engine: layers, and archives of images."""

import hashlib
import io
import json
import tarfile

_DATE = "2026-01-01T00:00:00Z"
_PATH = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def layer(path, entries):
    """Write a layer of (name inside, file or directory) into a file; return it and its digest."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for inside, source in entries:
            tar.add(source, inside, filter=_of_root)
    with path.open("rb") as file:
        return path, hashlib.file_digest(file, "sha256").hexdigest()


def image(name, layers, entrypoint, user=""):
    """Return an image of layers, for ``archive``."""
    whole = {
        "architecture": "amd64", "os": "linux", "created": _DATE,
        "config": {"Entrypoint": entrypoint, "User": user, "Env": [_PATH]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
        "history": [{"created": _DATE} for _ in layers],
    }  # fmt: skip
    return name, layers, json.dumps(whole).encode()


def archive(path, images):
    """Write images into an archive; "repositories" comes first, as kind reads all names from it."""
    with tarfile.open(path, "w") as tar:

        def put(name, content):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        names = [name.rpartition(":") for name, _, _ in images]
        put("repositories", json.dumps({one: {tag: "0"} for one, _, tag in names}).encode())
        listed, there = [], set()
        for name, layers, config in images:
            file = hashlib.sha256(config).hexdigest() + ".json"
            put(file, config)
            for source, digest in layers:
                if digest not in there:
                    tar.add(source, f"{digest}/layer.tar")
                there.add(digest)
            paths = [f"{digest}/layer.tar" for _, digest in layers]
            listed.append({"Config": file, "RepoTags": [name], "Layers": paths})
        put("manifest.json", json.dumps(listed).encode())


def _of_root(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
