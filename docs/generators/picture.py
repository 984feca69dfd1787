"""``docs/architecture.svg``: the one picture of the house, on a card of its own.

The card is white wherever the page is dark, so that dark text stays legible on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 1000
HEIGHT: Final = 684

FILLS: Final = {"room": "#dbeafe", "object": "#fef3c7", "file": "#dcfce7", "other": "#e5e7eb"}
EDGES: Final = {"room": "#1d4ed8", "object": "#b45309", "file": "#15803d", "other": "#4b5563"}
INK: Final = "#111827"
FAINT: Final = "#374151"

TITLE_SIZE: Final = 15
SMALL_SIZE: Final = 13
LETTER: Final = 0.56
"""Mean width of a letter, in sizes: what a box must have room for."""


class Box(NamedTuple):
    """A box: where it is, what it is, what stands in it."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    title: str
    lines: tuple[str, ...] = ()


class Arrow(NamedTuple):
    """A line with a head at its last point, and a word beside it."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    dashed: bool = False


BANDS: Final = (
    (16, 44, 968, 232, "A run: on one machine, or on Kubeflow"),
    (16, 296, 968, 302, "A rollout: on a cluster with KServe"),
)

BOXES: Final = (
    Box(32, 84, 116, 62, "file", "telemetry", ("CSV, Parquet",)),
    Box(172, 84, 116, 62, "room", "validate", ("data",)),
    Box(312, 84, 116, 62, "room", "train ×4", ("models",)),
    Box(452, 84, 116, 62, "room", "evaluate ×4", ("evaluation",)),
    Box(592, 84, 116, 62, "room", "export ×4", ("export",)),
    Box(732, 84, 116, 62, "room", "check", ("serving, go",)),
    Box(872, 84, 100, 62, "room", "gate", ("evaluation",)),
    Box(32, 200, 116, 62, "room", "simulate", ("and ceilings",)),
    Box(452, 200, 116, 62, "file", "report", ("and reasons",)),
    Box(592, 200, 116, 62, "file", "bundle", ("sealed, ONNX",)),
    Box(804, 200, 168, 62, "file", "manifests", ("of what is APPROVED",)),
    Box(32, 336, 150, 62, "object", "ModelRollout", ("candidate, steps",)),
    Box(232, 330, 216, 138, "room", "operator", ("once in 10 s, and on events:",)),
    Box(244, 384, 94, 70, "room", "decide", ("rollout", "pure")),
    Box(346, 384, 94, 70, "room", "move", ("adapters", "one write")),
    Box(498, 336, 150, 62, "object", "InferenceService", ("stable + candidate",)),
    Box(698, 336, 110, 62, "other", "KServe", ("",)),
    Box(858, 336, 114, 62, "object", "HTTPRoute", ("weights",)),
    Box(858, 436, 114, 50, "other", "gateway"),
    Box(858, 528, 114, 56, "room", "Go client", ("four calls",)),
    Box(612, 430, 166, 50, "room", "server: stable", ("serving",)),
    Box(612, 528, 166, 50, "room", "server: candidate", ("serving",)),
    Box(32, 520, 150, 62, "room", "truth", ("with later telemetry",)),
    Box(232, 520, 216, 62, "file", "prediction log", ("what was asked and answered",)),
    Box(16, 618, 968, 50, "room", "contract: columns, the four signatures, bundle, records"),
)

ARROWS: Final = (
    Arrow(((148, 115), (170, 115))),
    Arrow(((288, 115), (310, 115))),
    Arrow(((428, 115), (450, 115))),
    Arrow(((568, 115), (590, 115))),
    Arrow(((708, 115), (730, 115))),
    Arrow(((848, 115), (870, 115))),
    Arrow(((90, 200), (90, 148))),
    Arrow(((650, 146), (650, 198))),
    Arrow(((922, 146), (922, 198))),
    Arrow(((872, 134), (860, 134), (860, 172), (510, 172), (510, 198))),
    Arrow(((888, 262), (888, 282), (107, 282), (107, 334)), "publish candidate", (146, 318)),
    Arrow(((676, 262), (676, 428)), "storageUri", (714, 318)),
    Arrow(((182, 367), (230, 367))),
    Arrow(((448, 360), (496, 360))),
    Arrow(((648, 367), (696, 367))),
    Arrow(((808, 367), (856, 367))),
    Arrow(((915, 398), (915, 434))),
    Arrow(((915, 528), (915, 488)), "asks", (938, 512)),
    Arrow(((858, 455), (780, 455)), "99 %", (820, 448)),
    Arrow(((858, 472), (818, 472), (818, 553), (780, 553)), "1 %", (798, 541)),
    Arrow(((612, 462), (450, 462)), "counters", (560, 455)),
    Arrow(((612, 545), (530, 545), (530, 445), (450, 445)), "", (0, 0)),
    Arrow(((612, 562), (450, 562)), "", (0, 0), dashed=True),
    Arrow(((232, 551), (184, 551)), "", (0, 0), dashed=True),
)


def picture() -> str:
    """Return the picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" '
        'role="img" aria-labelledby="title">',
        '<title id="title">The way of the data through dwcp-ml</title>',
        '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        f'<path d="M0,0 L9,4 L0,8 z" fill="{INK}"/></marker></defs>',
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff" '
        'stroke="#9ca3af"/>',
        *_bands(),
        *(line for arrow in ARROWS for line in _arrow(arrow)),
        *(line for box in BOXES for line in _box(box)),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bands() -> Iterator[str]:
    for x, y, width, height, title in BANDS:
        yield (
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#f9fafb" '
            'stroke="#d1d5db"/>'
        )
        yield _text(x + width - 14, y + 24, title, SMALL_SIZE, FAINT, anchor="end", weight="bold")


def _box(box: Box) -> Iterator[str]:
    yield (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6" '
        f'fill="{FILLS[box.kind]}" stroke="{EDGES[box.kind]}" stroke-width="1.5"/>'
    )
    middle = box.x + box.width // 2
    lines = [line for line in box.lines if line]
    is_whole = box.title != "operator"
    first = box.y + (box.height - 18 * len(lines)) // 2 + 5 if is_whole else box.y + 22
    yield _text(middle, first, box.title, TITLE_SIZE, INK, weight="bold")
    for number, line in enumerate(lines, 1):
        yield _text(middle, first + 18 * number, line, SMALL_SIZE, FAINT)


def _arrow(arrow: Arrow) -> Iterator[str]:
    points = " ".join(f"{x},{y}" for x, y in arrow.points)
    dashes = ' stroke-dasharray="5 4"' if arrow.dashed else ""
    yield (
        f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="1.5"{dashes} '
        'marker-end="url(#head)"/>'
    )
    if arrow.label:
        yield _text(*arrow.at, arrow.label, SMALL_SIZE, FAINT)


def _legend() -> Iterator[str]:
    words = {
        "room": "ours: a room of dwcp_ml/, or go/",
        "file": "a file",
        "object": "an object of Kubernetes",
        "other": "not ours",
    }
    x = 30
    for kind, text in words.items():
        yield (
            f'<rect x="{x}" y="16" width="16" height="16" rx="3" fill="{FILLS[kind]}" '
            f'stroke="{EDGES[kind]}"/>'
        )
        yield _text(x + 24, 29, text, SMALL_SIZE, FAINT, anchor="start")
        x += 60 + round(len(text) * SMALL_SIZE * LETTER)


def _text(
    x: int, y: int, text: str, size: int, fill: str, anchor: str = "middle", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(text)}</text>'
    )
