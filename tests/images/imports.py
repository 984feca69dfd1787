"""What a command may ever import, inside functions too: read from the source, nothing is run."""

import ast
import functools
import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("dwcp_ml", "components", "pipelines")


def third_party(root: str) -> dict[str, str]:
    """Return each top-level package that ``root`` may import -> one module of ours that does.

    Imports at the top of a module are followed everywhere. Those inside functions are followed
    except in the other commands: this image does not run them.
    """
    importers: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        module = waiting.pop()
        path = _file_of(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        waiting += _parents(module)
        other_command = module.startswith("dwcp_ml.cli") and module != root
        for name in _imported(path, module, top_only=other_command):
            top = name.split(".")[0]
            if top in OURS:
                waiting += [name, *_parents(name)]
            elif top not in sys.stdlib_module_names:
                importers.setdefault(top, module)
    return importers


def distributions(top: str) -> set[str]:
    """Return the names, as a lock file writes them, of the distributions that give a package."""
    packages = _providers().get(top, ())
    return {name.lower().replace("_", "-").replace(".", "-") for name in packages}


@functools.cache
def _providers():
    return importlib.metadata.packages_distributions()


def _file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _imported(path: Path, module: str, *, top_only: bool) -> set[str]:
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _statements(tree, top_only):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _statements(node: ast.AST, top_only: bool):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from _statements(child, top_only)
