#!/usr/bin/env python3
"""Draws the picture of the README: encoder, decoder with the queries of five kinds of task, four units, five outputs.

python tools/draw_architecture.py [FILE]      default docs/architecture.svg
"""

import argparse
from pathlib import Path

WIDTH, HEIGHT = 1180, 446
INK, FAINT, SHARED, PAPER, EDGE, GREY = "#22252b", "#6b7280", "#e8ebf1", "#ffffff", "#9aa3b2", "#c3c9d4"

# kind: colour, queries, what its output says, units it opens
KINDS = {
    "ReID": ("#7a4de0", "6", "a descriptor of the person", ("feature",)),
    "attributes": ("#0b9b6c", "one per attribute", "hat, bag, long sleeves ...", ("probability",)),
    "pose": ("#ee7a00", "one per keypoint", "where the joints are", ("probability", "heatmap")),
    "parsing": ("#d93674", "one per class", "what every pixel shows", ("probability", "heatmap")),
    "detection": ("#1f6fea", "300 anchors x 3", "where people are", ("probability", "box")),
}
UNITS = ("feature", "probability", "heatmap", "box")
UNIT_X, UNIT_WIDTH, OUTPUT_X, ROW = 620, 130, 900, 76


def _text(x: float, y: float, words: str, size: int = 13, colour: str = FAINT, anchor: str = "middle") -> str:
    weight = ' font-weight="600"' if size > 14 else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{words}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str = SHARED, edge: str = EDGE, radius: int = 9) -> str:
    size = f'width="{width}" height="{height}" rx="{radius}"'
    return f'<rect x="{x}" y="{y}" {size} fill="{fill}" stroke="{edge}" stroke-width="1.5"/>'


def _path(line: str, colour: str = INK, width: float = 2, fill: str = "none") -> str:
    return f'<path d="{line}" fill="{fill}" stroke="{colour}" stroke-width="{width}"/>'


def _arrow(x1: float, y: float, x2: float) -> str:
    return _path(f"M{x1} {y} H{x2} M{x2 - 9} {y - 6} L{x2} {y} L{x2 - 9} {y + 6}")


def _dots(x: float, y: float, colours: list[str]) -> str:
    return "".join(f'<circle cx="{x + 15 * i}" cy="{y}" r="5.5" fill="{c}"/>' for i, c in enumerate(colours))


def _placed(x: float, y: float, scale: float, content: str) -> str:
    return f'<g transform="translate({x} {y}) scale({scale})">{content}</g>'


def _figure(x: float, y: float, scale: float, head: str, body: str, legs: str) -> str:
    arms = "M6 16 h14 a5 5 0 0 1 5 5 v13 h-4.5 v-11 h-1.5 v12 h-12 v-12 h-1.5 v11 h-4.5 v-13 a5 5 0 0 1 5 -5 z"
    trousers = "M7 36.5 h12 l-0.7 17.5 h-4 l-1.3 -13 l-1.3 13 h-4 z"
    person = f'<circle cx="13" cy="7" r="6.5" fill="{head}"/>' + _path(arms, "none", 0, body)
    return _placed(x, y, scale, person + _path(trousers, "none", 0, legs))


def _skeleton(x: float, y: float, colour: str) -> str:
    points = [(13, 6), (6, 18), (20, 18), (3, 32), (23, 32), (8, 35), (18, 35), (7, 53), (19, 53)]
    limbs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (1, 5), (2, 6), (5, 6), (5, 7), (6, 8)]
    lines = " ".join(f"M{points[a][0]} {points[a][1]} L{points[b][0]} {points[b][1]}" for a, b in limbs)
    joints = "".join(f'<circle cx="{px}" cy="{py}" r="2.8" fill="{colour}"/>' for px, py in points)
    return _placed(x, y, 1, _path(lines, colour, 1.8) + joints)


def _icon(kind: str, x: float, y: float, colour: str) -> str:
    """A small picture of what a kind of task answers, 60 x 56."""
    hat = _path(f"M{x + 6} {y + 4} h18 M{x + 9} {y + 2} a6 6 0 0 1 12 0", colour, 3.5, colour)
    tags = [_box(x + 36, y + 8 + 15 * i, 22, 7, fill, fill, 4) for i, fill in enumerate((colour, GREY, colour))]
    return {
        "ReID": _figure(x, y, 1, GREY, colour, GREY)
        + _text(x + 31, y + 13, "=", 20, colour)
        + _figure(x + 37, y + 8, 0.85, GREY, colour, GREY),
        "attributes": _figure(x + 2, y, 1, GREY, GREY, GREY) + hat + "".join(tags),
        "pose": _skeleton(x + 15, y, colour),
        "parsing": _figure(x + 15, y, 1, "#f3a712", colour, "#3a86c8"),
        "detection": _figure(x + 2, y + 4, 0.9, GREY, GREY, GREY)
        + _figure(x + 36, y + 13, 0.72, GREY, GREY, GREY)
        + _path(f"M{x - 2} {y} h31 v56 h-31 z M{x + 34} {y + 9} h24 v47 h-24 z", colour, 2.5),
    }[kind]


def _shared() -> list[str]:
    """Image, encoder and decoder, and the queries below it."""
    y, colours = 120, [colour for colour, *_ in KINDS.values()]
    parts = [_box(28, 62, 84, 116, "#f5f6f9"), _figure(44, 68, 1.9, "#8b93a3", "#5b6474", "#8b93a3")]
    parts += [_text(70, 198, "image"), _arrow(118, y, 150), _arrow(302, y, 334), _arrow(536, y, 568)]
    parts += [_text(343, 36, "shared by all tasks"), _path("M156 54 V46 H530 V54", FAINT, 1.2)]
    parts += [_box(156, 62, 140, 116), _text(226, 108, "Encoder", 18, INK), _text(226, 130, "plain ViT")]
    parts += [_box(340, 62, 190, 116), _text(435, 108, "Decoder", 18, INK), _text(435, 130, "queries ask the image")]
    parts += [_dots(196, 154, [EDGE] * 5), _dots(405, 154, colours), _path("M435 214 V184 M429 193 L435 184 L441 193")]
    for i, (kind, (colour, number, _, _)) in enumerate(KINDS.items()):
        y = 236 + 32 * i
        parts += [_text(340, y + 5, kind, 15, colour, "end"), _dots(356, y, [colour] * 5)]
        parts.append(_text(440, y + 5, number, anchor="start"))
    return [*parts, _text(390, 416, "queries: private to each task")]


def _outputs() -> list[str]:
    """Units, outputs and which unit each output reads."""
    units = {unit: 66 + 96 * i for i, unit in enumerate(UNITS)}
    parts = [_path(f"M574 {units['feature']} V{units['box']}")]
    for i, (kind, (colour, _, answer, opened)) in enumerate(KINDS.items()):
        y = 40 + ROW * i
        start, end = UNIT_X + UNIT_WIDTH, OUTPUT_X - 8
        for k, unit in enumerate(opened):
            arrival, middle = y + 28 + 14 * (k - (len(opened) - 1) / 2), (start + end) / 2
            line = f"M{start} {units[unit]} C{middle} {units[unit]} {middle} {arrival} {end} {arrival}"
            parts.append(_path(line, colour, 2.5))
        parts += [_icon(kind, OUTPUT_X + 4, y, colour), _text(OUTPUT_X + 78, y + 24, kind, 16, colour, "start")]
        parts.append(_text(OUTPUT_X + 78, y + 44, answer, anchor="start"))
    for unit, y in units.items():
        parts += [_arrow(574, y, UNIT_X - 6), _box(UNIT_X, y - 22, UNIT_WIDTH, 44)]
        parts.append(_text(UNIT_X + UNIT_WIDTH / 2, y + 6, unit, 16, INK))
    return [*parts, _text(UNIT_X + UNIT_WIDTH / 2, 416, "Interpreter: four shared units")]


def draw() -> str:
    """The whole picture as SVG."""
    paper = _box(1, 1, WIDTH - 2, HEIGHT - 2, PAPER, "#d5d9e0", 16)
    label = "One encoder and one decoder, asked by the queries of five kinds of task; four units give five outputs"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{label}">\n'
        + "\n".join([paper, *_shared(), *_outputs()])
        + "\n</svg>\n"
    )


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[1] / "docs" / "architecture.svg"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    path = parser.parse_args().file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
