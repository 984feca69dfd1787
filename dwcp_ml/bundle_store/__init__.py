"""Bundles in a store: copied there and back, never over another one, and removed when outdated.

<prefix>/<model>/<version>/    the files of a bundle, manifest.json among them

In a file system a bundle appears under its name by one rename. In an object store ``manifest.json``
is written last: without it there is no bundle, and every reader requires it.

transfer   push, pull, and open where it is
objects    a bundle in an object store
retention  which bundles are outdated, and their removal
usage      what a cluster says of its bundles
"""

from dwcp_ml.bundle_store.transfer import Pushed, opened_at, pull, push

__all__ = ["Pushed", "opened_at", "pull", "push"]
