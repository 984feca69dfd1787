"""Markdown as the tests of the documentation read it: headings, links, blocks of code."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

_SKIPPED = {".venv", ".tools", ".cache", ".git", ".hypothesis", "node_modules", "runs"}
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)[^`\n]*$")
_HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)?$")
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^()\s]+)\)|<(?:img|source)[^>]*? src(?:set)?=\"([^\"]+)\"")
_NOT_RUN = re.compile(r"^<!-- not run:(?P<reason>.*?)-->$")
_INLINE_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


class Block(NamedTuple):
    """A fenced block.

    ``heading`` is the last one above it; ``not_run`` says why nobody runs it (``None``: it is run).
    """

    language: str
    text: str
    not_run: str | None
    line: int
    heading: str


def markdown_files():
    """Return every Markdown file that belongs to the project, below its root."""
    found = ROOT.rglob("*.md")
    inside = (path for path in found if not _SKIPPED & set(path.relative_to(ROOT).parts[:-1]))
    return sorted(path for path in inside if "testdata" not in path.parts)


def prose_and_blocks(text):
    """Return the lines outside of fences, and the blocks."""
    prose, blocks, inside, said, title = [], [], None, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if inside is not None:
            ticks, language, begun, lines, reason, indent = inside
            if line.strip() == ticks:
                body = "".join(f"{one.removeprefix(indent)}\n" for one in lines)
                blocks.append(Block(language, body, reason, begun, title))
                inside = None
            else:
                lines.append(line)
            continue
        fence = _FENCE.match(line)
        if fence:
            note = _NOT_RUN.match(said)
            reason = note["reason"].strip() if note else None
            inside = (fence["ticks"], fence["language"], number, [], reason, fence["indent"])
            said = ""
            continue
        said = line.strip() or said
        heading = _HEADING.match(line)
        title = heading[1] if heading else title
        prose.append(line)
    assert inside is None, f"the fence of line {inside[2]} does not end"
    return prose, blocks


def blocks_of(path, *languages):
    """Return the blocks of a page in these languages, in their order."""
    _, blocks = prose_and_blocks(path.read_text(encoding="utf-8"))
    return [block for block in blocks if block.language in languages]


@cache
def anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose, _ = prose_and_blocks(path.read_text(encoding="utf-8"))
    found, seen = set(), {}
    for line in prose:
        heading = _HEADING.match(line)
        if heading:
            slug = slug_of(heading[1])
            times = seen.get(slug, 0)
            seen[slug] = times + 1
            found.add(f"{slug}-{times}" if times else slug)
    return found


def slug_of(heading):
    """Return the anchor of a heading: lower case, hyphens for spaces, no other signs.

    >>> slug_of("### `dwcp-ml serve`, and [more](x.md)".lstrip("# "))
    'dwcp-ml-serve-and-more'
    """
    plain = _INLINE_LINK.sub(r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


def links(path):
    """Return the addresses that a page links to or shows, code left out."""
    prose, _ = prose_and_blocks(path.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", "\n".join(prose))
    shown = [one or other for one, other in _IMAGE.findall(text)]
    return [*_LINK.findall(text), *shown]
