"""The part of the Common Expression Language that our validation rules use; the rest is an error.

Written from the language definition (https://github.com/google/cel-spec): ``&&`` and ``||`` in any
order of errors, no conversion between types, ``has`` for fields that may be absent.
"""

import functools
import re

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+)|(?P<string>'[^'\\]*'|\"[^\"\\]*\")|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<mark>&&|\|\||[=!<>]=|[-+!<>?:.,()\[\]]))"
)


def _same(a, b):
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    return a == b


_COMPARE = {
    "==": _same,
    "!=": lambda a, b: not _same(a, b),
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: any(_same(a, one) for one in b),
}


class CelError(Exception):
    """An expression that can't be evaluated: the API server refuses the object then."""


def holds(rule, **variables):
    """Return whether a rule holds; ``CelError`` if it has no answer."""
    answer = _compiled(rule)(variables)
    if not isinstance(answer, bool):
        raise CelError(f"{rule} is {answer!r}")
    return answer


@functools.cache
def _compiled(rule):
    tokens, at = [], 0
    text = rule.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise CelError(f"no such thing in the rules so far: {text[at:]}")
        tokens.append((found.lastgroup, found.group(found.lastgroup)))
        at = found.end()
    parser = _Parser(tokens)
    answer = parser.either()
    if parser.tokens:
        raise CelError(f"left over: {parser.tokens}")
    return answer


class _Parser:
    """Tokens -> a function of the variables, by recursive descent."""

    def __init__(self, tokens):
        self.tokens = tokens

    def _next(self, *marks):
        if self.tokens and self.tokens[0][1] in marks and self.tokens[0][0] != "string":
            return self.tokens.pop(0)[1]
        return None

    def _need(self, mark):
        if self._next(mark) is None:
            raise CelError(f"{mark} expected before {self.tokens}")

    def either(self):
        asked = self._or()
        if not self._next("?"):
            return asked
        yes = self.either()
        self._need(":")
        no = self.either()
        return lambda v: yes(v) if asked(v) else no(v)

    def _or(self):
        parts = [self._and()]
        while self._next("||"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda v: any(part(v) for part in _lazy(parts, v))

    def _and(self):
        parts = [self._compared()]
        while self._next("&&"):
            parts.append(self._compared())
        if len(parts) == 1:
            return parts[0]
        return lambda v: all(part(v) for part in _lazy(parts, v))

    def _compared(self):
        left = self._sum()
        while mark := self._next(*_COMPARE):
            left = functools.partial(_binary, _COMPARE[mark], left, self._sum())
        return left

    def _sum(self):
        left = self._unary()
        while mark := self._next("+", "-"):
            do = (lambda a, b: a + b) if mark == "+" else (lambda a, b: a - b)
            left = functools.partial(_binary, do, left, self._unary())
        return left

    def _unary(self):
        if self._next("!"):
            inner = self._unary()
            return lambda v: not inner(v)
        return self._member(self._primary())

    def _primary(self):
        if self._next("("):
            inner = self.either()
            self._need(")")
            return inner
        if self._next("["):
            items = self._list("]")
            return lambda v: [item(v) for item in items]
        if not self.tokens:
            raise CelError("it ends too soon")
        kind, text = self.tokens.pop(0)
        if kind in ("number", "string"):
            value = int(text) if kind == "number" else text[1:-1]
            return lambda v: value
        if kind == "name" and self._next("("):
            return self._function(text)
        if kind == "name":
            return lambda v: _field(v, text)
        raise CelError(f"{text} is out of place")

    def _list(self, end):
        items = []
        while not self._next(end):
            items.append(self.either())
            self._next(",")
        return items

    def _function(self, name):
        (inner,) = self._list(")")
        if name == "size":
            return lambda v: len(inner(v))
        if name == "has":
            return lambda v: _has(inner, v)
        raise CelError(f"there is no function {name} in the rules so far")

    def _member(self, of):
        while mark := self._next(".", "["):
            if mark == "[":
                index = self.either()
                self._need("]")
                of = functools.partial(_binary, _at, of, index)
                continue
            name = self.tokens.pop(0)[1]
            of = self._method(of, name) if self._next("(") else _got(of, name)
        return of

    def _method(self, of, name):
        if name in ("all", "exists"):
            item = self.tokens.pop(0)[1]
            self._need(",")
            (inner,) = self._list(")")
            every = lambda v: (inner({**v, item: one}) for one in of(v))  # noqa: E731
            return (lambda v: all(every(v))) if name == "all" else (lambda v: any(every(v)))
        if name == "replace":
            old, new = self._list(")")
            return lambda v: of(v).replace(old(v), new(v))
        raise CelError(f"there is no method {name} in the rules so far")


def _lazy(parts, v):
    """Yield each part that has an answer; an error counts only if none of the others decides."""
    failed = None
    for part in parts:
        try:
            part(v)
        except (CelError, TypeError) as error:
            failed = error
            continue
        yield part
    if failed is not None:
        raise CelError(str(failed))


def _binary(do, left, right, v):
    return do(left(v), right(v))


def _got(of, name):
    return lambda v: _field(of(v), name)


def _field(of, name):
    try:
        return of[name]
    except (KeyError, TypeError) as error:
        raise CelError(f"no such key: {name}") from error


def _at(of, index):
    try:
        return of[index]
    except (IndexError, KeyError, TypeError) as error:
        raise CelError(f"no such index: {index}") from error


def _has(inner, v):
    try:
        inner(v)
    except CelError:
        return False
    return True
