"""The YAML files of the repository, read with the C library where it is there: it is faster."""

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def document_of(path):
    """Return the one document of a file."""
    return yaml.load(path.read_text(encoding="utf-8"), LOADER)


def documents_of(path):
    """Return the documents of a file."""
    return list(yaml.load_all(path.read_text(encoding="utf-8"), LOADER))
