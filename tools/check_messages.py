"""A lint rule: no code looks into a message. Run by ``make lint``.

State is an enum with fields; sentences are made last, for people. So no string literal may be
compared with, searched for in, or matched against

- a field called ``reason``, ``message``, ``sentence`` or ``text``, or an element of that name;
- a variable called ``reason``, ``message`` or ``sentence``;
- the text of a caught error, ``str(error)``.

This also covers the messages of other programs, such as a Kubernetes API server or a parser: their
wording may change with every release. Comparing enum members, codes and types is what is wanted.

    python tools/check_messages.py [FILE ...]

Without files it checks the product. Exit code 1 if something is found, one line for each place.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FIELDS = frozenset({"reason", "message", "sentence", "text"})
VARIABLES = frozenset({"reason", "message", "sentence"})
METHODS = frozenset({"startswith", "endswith", "find", "index", "count"})
MATCHERS = frozenset({"match", "search", "fullmatch", "findall", "finditer", "split", "sub"})
PRODUCT = ("dwcp_ml", "components", "pipelines")


def violations(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and field of each place where a literal is held against a message."""
    tree = ast.parse(source)
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    found = {place for each in [tree, *functions] for place in _violations(each)}
    yield from sorted(found)


def copies(source: str) -> Iterator[int]:
    """Yield each line that replaces fields of a record where mypy does not see it."""
    for node in ast.walk(ast.parse(source)):
        is_copy = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if (
            is_copy
            and node.func.attr == "model_copy"
            and any(
                keyword.arg == "update" and not isinstance(keyword.value, ast.Name)
                for keyword in node.keywords
            )
        ):
            yield node.lineno


def _violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    aliases = _aliases(tree) if isinstance(tree, ast.FunctionDef) else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_is_literal(side) for side in sides):
                yield from (
                    (node.lineno, name) for side in sides for name in _fields(side, aliases)
                )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            arguments = node.args
            if node.func.attr in METHODS and any(_is_literal(each) for each in arguments):
                yield from ((node.lineno, name) for name in _fields(node.func.value, aliases))
            if node.func.attr in MATCHERS:
                yield from (
                    (node.lineno, name) for each in arguments for name in _fields(each, aliases)
                )
        elif isinstance(node, ast.Match):
            for name in _fields(node.subject, aliases):
                if any(_holds_literal(case.pattern) for case in node.cases):
                    yield node.lineno, name


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(_is_literal, node.elts))
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != ""
    )


def _holds_literal(pattern: ast.pattern) -> bool:
    return any(
        isinstance(node, ast.MatchValue) and _is_literal(node.value) for node in ast.walk(pattern)
    )


def _aliases(tree: ast.AST) -> set[str]:
    """Return the variables that hold such a field: ``why = status.reason``; and caught errors."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Assign) and any(_fields(node.value, names)):
            targets = [each for target in node.targets for each in ast.walk(target)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.NamedExpr) and any(_fields(node.value, names)):
            names.add(node.target.id)
    return names


def _fields(node: ast.expr, aliases: set[str]) -> Iterator[str]:
    """Yield the field that an expression reads, also through ``str()`` and string methods."""
    if isinstance(node, ast.Attribute) and node.attr in FIELDS:
        yield node.attr
    elif isinstance(node, ast.Name) and node.id in aliases | VARIABLES:
        yield node.id
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "get":  # an element of a mapping, not the mapping
                yield from _elements(node.args[:1])
                return
            yield from _fields(node.func.value, aliases)
        for each in node.args:
            yield from _fields(each, aliases)
    elif isinstance(node, ast.Subscript):
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            yield from _elements([node.slice])
        else:
            yield from _fields(node.value, aliases)


def _elements(keys: list[ast.expr]) -> Iterator[str]:
    """Yield the keys that name a message: ``status["message"]``."""
    for key in keys:
        if isinstance(key, ast.Constant) and key.value in FIELDS:
            yield str(key.value)


def main(arguments: list[str]) -> int:
    """Check files, or the product; return the exit code."""
    root = Path(__file__).resolve().parents[1]
    paths = [Path(each) for each in arguments] or [
        path for package in PRODUCT for path in sorted((root / package).rglob("*.py"))
    ]
    count = 0
    for path in paths:
        source = path.read_text(encoding="utf-8")
        for line, name in violations(source):
            count += 1
            print(f"{path}:{line}: A string literal is held against '{name}': compare an enum.")
        for line in copies(source):
            count += 1
            print(f"{path}:{line}: Use replace(), which mypy checks, not model_copy(update=...).")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
