"""No code of this project unpickles: not the server, not the operator, not the export.

The text of every module is parsed, so an import inside a function counts, and so does an alias.
"""

import ast
from pathlib import Path

import pytest

import dwcp_ml

PACKAGE = Path(dwcp_ml.__file__).parent
PACKAGES = [
    PACKAGE,
    *(p for p in (PACKAGE.parent / n for n in ("components", "pipelines")) if p.exists()),
]

FORBIDDEN_MODULES = {
    "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "shelve",
    "skops", "torch",
}  # fmt: skip
"""Modules that load code with data, none of which we need."""

WRITERS = {"dumps", "dump", "Pickler", "DEFAULT_PROTOCOL", "HIGHEST_PROTOCOL", "PicklingError"}
"""What may be used of ``pickle``: it writes."""

LOADERS = {"read_pickle", "Unpickler", "enable_unsafe_deserialization", "unsafe_load"}


def modules():
    return sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def faults(tree: ast.AST) -> list[str]:
    """Return what in a module reads a pickle, or could."""
    nodes = list(ast.walk(tree))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    names = {alias.asname or alias.name: alias.name for node in imports for alias in node.names}
    found = [fault for node in imports for fault in import_faults(node)]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found += import_from_faults(node)
        elif isinstance(node, ast.Attribute):
            found += attribute_faults(node, names)
        elif isinstance(node, ast.Call):
            found += call_faults(node)
    return found


def import_faults(node: ast.Import) -> list[str]:
    roots = [alias.name.split(".")[0] for alias in node.names]
    return [f"imports {root}" for root in roots if root in FORBIDDEN_MODULES]


def import_from_faults(node: ast.ImportFrom) -> list[str]:
    module = node.module or ""
    names = [alias.name for alias in node.names]
    found = [f"imports {name}" for name in names if name in LOADERS]
    if module.split(".")[0] in FORBIDDEN_MODULES:
        found.append(f"imports from {module}")
    if module == "pickle":
        found += [f"imports pickle.{name}" for name in names if name not in WRITERS]
    return found


def attribute_faults(node: ast.Attribute, names: dict[str, str]) -> list[str]:
    owner = names.get(node.value.id) if isinstance(node.value, ast.Name) else None
    if owner == "pickle" and node.attr not in WRITERS:
        return [f"uses pickle.{node.attr}"]
    return [f"uses {node.attr}"] if node.attr in LOADERS else []


def call_faults(node: ast.Call) -> list[str]:
    found = []
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}

    def says(argument: str, value: bool) -> bool:
        given = keywords.get(argument)
        return isinstance(given, ast.Constant) and given.value is value

    if "allow_pickle" in keywords and not says("allow_pickle", False):
        found.append("allows pickle in an array file")
    if "safe_mode" in keywords and not says("safe_mode", True):
        found.append("loads a Keras file without safe mode")
    if name == "load_model" and not says("safe_mode", True):
        found.append("loads a Keras file without saying safe_mode=True")
    if name == "load" and ast.unparse(node.func) in ("np.load", "numpy.load"):
        found += [] if says("allow_pickle", False) else ["np.load without allow_pickle=False"]
    if name in ("import_module", "__import__") and node.args:
        target = node.args[0]
        if isinstance(target, ast.Constant) and str(target.value).split(".")[0] in (
            FORBIDDEN_MODULES | {"pickle"}
        ):
            found.append(f"imports {target.value} by name")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE.parent)))
def test_no_module_unpickles(path):
    assert faults(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle\npickle.loads(b)",
        "import pickle as p\np.loads(b)",
        "import pickle\nload = pickle.load",
        "from pickle import loads",
        "from pickle import load as l",
        "from pickle import Unpickler",
        "from pickle import *",
        "def f():\n    import joblib",
        "from joblib import load",
        "import cloudpickle",
        "import dill as d",
        "import pandas\npandas.read_pickle(p)",
        "from pandas import read_pickle",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "keras.saving.load_model(p)",
        "keras.saving.load_model(p, safe_mode=False)",
        "keras.layers.Lambda.from_config(c, safe_mode=no)",
        "keras.config.enable_unsafe_deserialization()",
        "importlib.import_module('pickle')",
        "__import__('cloudpickle')",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert faults(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.dumps(x, protocol=5)",
        "import json\njson.load(f)",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "keras.saving.load_model(p, compile=False, safe_mode=True)",
    ],
)
def test_the_search_lets_the_harmless_be(source):
    assert not faults(ast.parse(source))


UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
VERIFIERS = [
    *sorted((PACKAGE / "serving").rglob("*.py")),
    *sorted((PACKAGE / "cli").rglob("*.py")),
    *sorted((PACKAGE / "contract").rglob("*.py")),
    *(PACKAGE / "export" / f"{name}.py" for name in (
        "verify", "signing", "keys", "plain_files", "untrusted_graph", "onnx_graph", "bundle",
    )),
]  # fmt: skip


@pytest.mark.parametrize("path", VERIFIERS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_verifies_or_serves_does_not_even_import_pickle(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            by_name = ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
            names = [str(node.args[0].value)] if by_name else []
        else:
            continue
        assert not {name.split(".")[0] for name in names} & UNPICKLERS
