"""Every small change of one operator, constant or call of a module, as mutants."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence

from benchmarks.mutation.running import ROOT, Mutant

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "min": "max",
    "max": "min",
    "argmax": "argmin",
    "argmin": "argmax",
    "any": "all",
    "all": "any",
    "minimum": "maximum",
    "maximum": "minimum",
    "mean": "sum",
}


def mutants_of(path: str, tests: Sequence[str]) -> Iterator[Mutant]:
    """Yield every mutant of one module that the operators know."""
    text = (ROOT / path).read_text(encoding="utf-8")
    places = len(_places(ast.parse(text)))
    for position in range(places):
        tree = ast.parse(text)
        node, change = _places(tree)[position]
        before = ast.unparse(node)
        change()
        after = ast.unparse(node)
        if before == after:
            continue
        words = f"`{_short(before)}` → `{_short(after)}`"
        yield Mutant(path, node.lineno, words, ast.unparse(tree), tuple(tests))


def _short(code: str) -> str:
    line = " ".join(code.split()).replace("|", "∣")
    return line if len(line) <= 70 else f"{line[:67]}…"


Place = tuple[ast.AST, Callable[[], None]]


def _places(tree: ast.Module) -> list[Place]:
    """Return what can be changed in a tree, in order: the smallest statement or expression."""
    found: list[Place] = []
    skipped = {id(inner) for node in ast.walk(tree) for inner in _not_code(node)}
    for node in ast.walk(tree):
        if id(node) not in skipped:
            found += _changes(node)
    return found


def _not_code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what says types, not what to do."""
    hints = []
    if isinstance(node, ast.AnnAssign):
        hints.append(node.annotation)
    if isinstance(node, ast.arg) and node.annotation:
        hints.append(node.annotation)
    if isinstance(node, ast.ClassDef):
        hints += node.decorator_list
    if isinstance(node, ast.FunctionDef):
        hints += [*node.decorator_list, *([node.returns] if node.returns else [])]
    if isinstance(node, ast.JoinedStr):
        hints.append(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        hints.append(node)
    for hint in hints:
        yield from ast.walk(hint)


def _changes(node: ast.AST) -> Iterator[Place]:  # noqa: C901 - a flat list of cases
    def put(field: str, value: object) -> Place:
        return node, lambda: setattr(node, field, value)

    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield put("ops", [COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield put("op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield put("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        # Twice the operator is none: the node keeps its place in the tree.
        yield put("operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield put("test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield put("value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield put("value", node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield put("attr", NAMES[node.attr])
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield put("id", NAMES[node.id])
    elif isinstance(node, ast.Continue | ast.AugAssign):
        yield node, lambda: _erase(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield put("value", ast.Constant(None))


def _erase(node: ast.AST) -> None:
    """Turn a statement into ``pass``."""
    node.__class__ = ast.Pass
    node.__dict__ = {"lineno": getattr(node, "lineno", 0), "col_offset": 0}
