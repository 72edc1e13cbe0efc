#!/usr/bin/env python3
"""Draws the picture of the README: encoder, decoder with the queries of five kinds of task, four units, five outputs.

python tools/draw_architecture.py [FILE]      default docs/architecture.svg
"""

import argparse
from pathlib import Path

WIDTH, HEIGHT = 1180, 460
INK, FAINT, SHARED, PAPER = "#22252b", "#6b7280", "#e8ebf1", "#ffffff"

# kind: colour, number of queries, what its output says, units it opens
KINDS = {
    "ReID": ("#7a4de0", "6 queries", "a descriptor of the person", ("feature",)),
    "attributes": ("#0b9b6c", "one per attribute", "hat, bag, long sleeves ...", ("probability",)),
    "pose": ("#ee7a00", "one per keypoint", "where the joints are", ("probability", "heatmap")),
    "parsing": ("#d93674", "one per class", "what every pixel shows", ("probability", "heatmap")),
    "detection": ("#1f6fea", "300 anchors x 3", "where people are", ("probability", "box")),
}
UNITS = ("feature", "probability", "heatmap", "box")
UNIT_X, UNIT_WIDTH, OUTPUT_X = 620, 130, 900
ROW = 76


def text(x: float, y: float, words: str, size: int = 15, colour: str = INK, anchor: str = "middle", bold: bool = False):
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str = SHARED, stroke: str = "#9aa3b2"):
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="9" fill="{fill}" stroke="{stroke}" '
        'stroke-width="1.5"/>'
    )


def arrow(x1: float, y: float, x2: float):
    head = f'<path d="M{x2 - 9} {y - 6} L{x2} {y} L{x2 - 9} {y + 6}" fill="none" stroke="{INK}" stroke-width="2"/>'
    return f'<path d="M{x1} {y} H{x2}" stroke="{INK}" stroke-width="2"/>{head}'


def curve(x1: float, y1: float, x2: float, y2: float, colour: str):
    middle = (x1 + x2) / 2
    return (
        f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" stroke="{colour}" '
        'stroke-width="2.5" stroke-opacity="0.85"/>'
    )


def dots(x: float, y: float, colour: str, count: int = 5):
    return "".join(f'<circle cx="{x + 15 * i}" cy="{y}" r="5.5" fill="{colour}"/>' for i in range(count))


def figure(x: float, y: float, scale: float, head: str, body: str, legs: str):
    """A person about 26 x 54 units large, its parts in three colours."""
    return (
        f'<g transform="translate({x} {y}) scale({scale})">'
        f'<circle cx="13" cy="7" r="6.5" fill="{head}"/>'
        f'<path d="M6 16 h14 a5 5 0 0 1 5 5 v13 h-4.5 v-11 h-1.5 v12 h-12 v-12 h-1.5 v11 h-4.5 v-13 a5 5 0 0 1 5 -5 z" '
        f'fill="{body}"/><path d="M7 36.5 h12 l-0.7 17.5 h-4 l-1.3 -13 l-1.3 13 h-4 z" fill="{legs}"/></g>'
    )


def skeleton(x: float, y: float, scale: float, colour: str):
    points = [(13, 6), (6, 18), (20, 18), (3, 32), (23, 32), (8, 35), (18, 35), (7, 53), (19, 53)]
    lines = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (1, 5), (2, 6), (5, 6), (5, 7), (6, 8)]
    strokes = "".join("M{} {} L{} {}".format(*points[a], *points[b]) for a, b in lines)
    joints = "".join(f'<circle cx="{px}" cy="{py}" r="2.8" fill="{colour}"/>' for px, py in points)
    return (
        f'<g transform="translate({x} {y}) scale({scale})"><path d="{strokes}" stroke="{colour}" fill="none" '
        f'stroke-width="1.8"/>{joints}</g>'
    )


def icon(kind: str, x: float, y: float, colour: str):
    """A small picture of what a kind of task answers, 60 x 56."""
    grey = "#c3c9d4"
    pictures = {
        "ReID": figure(x, y, 1, grey, colour, grey)
        + text(x + 31, y + 33, "=", 20, colour, bold=True)
        + figure(x + 38, y + 6, 0.85, grey, colour, grey),
        "attributes": figure(x + 2, y, 1, grey, grey, grey)
        + f'<path d="M{x + 6} {y + 4} h18 M{x + 9} {y + 2} a6 6 0 0 1 12 0" stroke="{colour}" stroke-width="3.5" '
        f'fill="{colour}"/>'
        + "".join(f'<rect x="{x + 36}" y="{y + 8 + 15 * i}" width="22" height="8" rx="4" fill="{c}"/>'
                  for i, c in enumerate((colour, grey, colour))),  # fmt: skip
        "pose": skeleton(x + 15, y, 1, colour),
        "parsing": figure(x + 15, y, 1, "#f3a712", colour, "#3a86c8"),
        "detection": figure(x + 2, y + 4, 0.9, grey, grey, grey)
        + figure(x + 34, y + 12, 0.75, grey, grey, grey)
        + f'<rect x="{x - 2}" y="{y}" width="31" height="56" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        + f'<rect x="{x + 32}" y="{y + 8}" width="25" height="48" fill="none" stroke="{colour}" stroke-width="2.5"/>',
    }
    return pictures[kind]


def draw() -> str:
    """The whole picture as SVG."""
    parts = [f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="16" fill="{PAPER}" stroke="#d5d9e0"/>']
    middle = 120
    parts += [box(28, 62, 84, 116, "#f5f6f9"), figure(44, 68, 1.9, "#8b93a3", "#5b6474", "#8b93a3")]
    parts += [text(70, 198, "image", 14, FAINT), arrow(118, middle, 150)]
    parts += [box(156, 62, 140, 116), text(226, 108, "Encoder", 18, bold=True), text(226, 130, "plain ViT", 14, FAINT)]
    parts += [dots(196, 154, "#9aa3b2"), arrow(302, middle, 334)]
    parts += [box(340, 62, 190, 116), text(435, 108, "Decoder", 18, bold=True)]
    parts += [text(435, 130, "queries ask the image", 14, FAINT), arrow(536, middle, 568)]
    for i, colour in enumerate(kind[0] for kind in KINDS.values()):
        parts.append(dots(405 + 15 * i, 154, colour, 1))

    # the private queries, below the decoder
    parts += [f'<path d="M435 214 V184 M429 193 L435 184 L441 193" fill="none" stroke="{INK}" stroke-width="2"/>']
    for i, (kind, (colour, number, _, _)) in enumerate(KINDS.items()):
        y = 236 + 32 * i
        parts += [text(340, y + 5, kind, 15, colour, "end", bold=True), dots(356, y, colour)]
        parts.append(text(440, y + 5, number, 13, FAINT, "start"))
    parts.append(text(380, 420, "queries: private to each task, a few kilobytes", 13, FAINT))
    parts.append(text(226, 50, "shared by all tasks", 13, FAINT))

    # units and outputs
    rows = {kind: 40 + ROW * i for i, kind in enumerate(KINDS)}
    units = {unit: 66 + 96 * i for i, unit in enumerate(UNITS)}
    spine = f'<path d="M574 {units["feature"]} V{units["box"]}" stroke="{INK}" stroke-width="2"/>'
    parts.append(spine + "".join(arrow(574, y, UNIT_X - 6) for y in units.values()))
    for kind, (colour, _, _, opened) in KINDS.items():
        for i, unit in enumerate(opened):
            end = rows[kind] + 28 + 14 * (i - (len(opened) - 1) / 2)
            parts.append(curve(UNIT_X + UNIT_WIDTH, units[unit], OUTPUT_X - 8, end, colour))
    for unit, y in units.items():
        parts += [box(UNIT_X, y - 22, UNIT_WIDTH, 44), text(UNIT_X + UNIT_WIDTH / 2, y + 6, unit, 16, bold=True)]
    parts.append(text(UNIT_X + UNIT_WIDTH / 2, 420, "Interpreter: four shared units", 13, FAINT))
    for kind, (colour, _, answer, _) in KINDS.items():
        y = rows[kind]
        parts += [icon(kind, OUTPUT_X + 4, y, colour), text(OUTPUT_X + 78, y + 24, kind, 16, colour, "start", bold=True)]
        parts.append(text(OUTPUT_X + 78, y + 44, answer, 13, FAINT, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" role="img" aria-label="One encoder, one decoder asked by the '
        'queries of five kinds of task, four shared output units, five outputs">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).resolve().parents[1] / "docs/architecture.svg")
    path = parser.parse_args().file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
