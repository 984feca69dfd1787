"""No module imports itself through others; imports inside functions count as well."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def import_cycle(package: str) -> list[str]:
    """Return the modules of one import cycle, each imported by the next; empty without any."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = {
        module: graph.find_modules_directly_imported_by(module) & graph.modules
        for module in graph.modules
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return [str(module) for module in error.args[1]]
    return []


def test_no_module_imports_itself_through_others():
    assert import_cycle("dwcp_ml") == []


@pytest.mark.parametrize(
    "closing_import",
    [
        "from planted_cycle import first",
        "def late():\n    from planted_cycle import first\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import planted_cycle.first\n",
    ],
)
def test_a_cycle_of_three_modules_is_found(tmp_path, monkeypatch, closing_import):
    package = tmp_path / "planted_cycle"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text("from planted_cycle import second\n")
    (package / "second.py").write_text("from planted_cycle import third\n")
    (package / "third.py").write_text(closing_import + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = {f"planted_cycle.{name}" for name in ("first", "second", "third")}
    assert set(import_cycle("planted_cycle")) == names
