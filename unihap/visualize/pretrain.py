"""Pictures of pre-training: reconstructions, masks over body parts and attention (HAP, Figures 5 to 7).

Crops are (H, W, 3) uint8 RGB of whole patches; whatever belongs to the (gh, gw) patches of a crop is an array of that
shape, from which the edge of a patch follows.  Masks are True where a patch is hidden.
"""

import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from unihap.visualize.draw import BLACK, WHITE, Colour, class_colours, draw_label_map
from unihap.visualize.sheet import INK, Cell, _beside, _legend, _text

Rectangle = tuple[int, int, int, int]  # top, left, bottom and right patch, the last two inclusive

HIDDEN = (128, 128, 128)
QUERY = (255, 0, 0)
PICTURE_HEIGHT = 256  # smaller crops are enlarged, by a whole factor so that patches keep their edges
CHARACTER = 7  # pixels of a letter in a caption
MAP_OPACITY = 0.6


def enlarged(image: np.ndarray) -> np.ndarray:
    """A crop about ``PICTURE_HEIGHT`` high, every pixel a square."""
    factor = max(1, round(PICTURE_HEIGHT / image.shape[0]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _spread(patches: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Values of (gh, gw) patches at the pixels of a crop."""
    edge = image.shape[0] // patches.shape[0]
    return patches.repeat(edge, axis=0).repeat(edge, axis=1)


def _frame(image: np.ndarray, rectangle: Rectangle, edge: int, colour: Colour, width: int = 2) -> None:
    """Draws the border of some patches, just inside them."""
    top, left, bottom, right = rectangle
    corner, opposite = (left * edge, top * edge), ((right + 1) * edge - 1, (bottom + 1) * edge - 1)
    for i in range(width):
        a, b = (corner[0] + i, corner[1] + i), (opposite[0] - i, opposite[1] - i)
        cv2.rectangle(image, a, b, colour, 1)


# drawing on one crop


def draw_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hides patches: grey where the (gh, gw) mask is True."""
    return np.where(_spread(mask, image)[..., None], np.array(HIDDEN, np.uint8), image)


def draw_parts(
    image: np.ndarray, rectangles: Mapping[str, Sequence[Rectangle]], grid: tuple[int, int], keypoints: np.ndarray
) -> np.ndarray:
    """The rectangles of patches that body parts are made of, a colour for each part (see ``part_colours``).

    Args:
        image: the crop.
        rectangles: of every part, in patches.
        grid: (gh, gw).
        keypoints: (K, 2) x, y in pixels of ``image``, those that are there; white dots.

    Returns:
        The crop with the parts laid over it.
    """
    edge = image.shape[0] // grid[0]
    colours = part_colours(rectangles)
    for part, boxes in rectangles.items():
        patches = np.zeros(grid, dtype=np.uint8)
        for top, left, bottom, right in boxes:
            patches[top : bottom + 1, left : right + 1] = 1
        image = draw_label_map(image, _spread(patches, image), (BLACK, colours[part]), opacity=0.3)
    for part, boxes in rectangles.items():
        for box in boxes:
            _frame(image, box, edge, colours[part])
    for x, y in keypoints.round().astype(int).tolist():
        cv2.circle(image, (x, y), 3, WHITE, -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 3, BLACK, 1, cv2.LINE_AA)
    return image


def part_colours(names: Mapping[str, object] | Sequence[str]) -> dict[str, Colour]:
    """A colour for every name, by its place."""
    return dict(zip(names, class_colours(len(names)), strict=True))


def draw_origin(image: np.ndarray, mask: np.ndarray, chosen: Sequence[tuple[np.ndarray, Colour]]) -> np.ndarray:
    """A mask, and which of its patches are hidden for which part.

    Args:
        image: the crop.
        mask: (gh, gw).
        chosen: (gh, gw) patches and colour of each part, in the order in which they were drawn.

    Returns:
        The crop with hidden patches in the colour of the first part that asked for them, or grey; patches that a part
        asked for in vain are framed in its colour.
    """
    edge = image.shape[0] // mask.shape[0]
    owner = np.zeros(mask.shape, dtype=np.uint8)
    for number, (patches, _) in enumerate(chosen, start=1):
        owner[patches & (owner == 0)] = number
    image = draw_mask(image, mask)
    colours = [BLACK, *(colour for _, colour in chosen)]
    image = draw_label_map(image, _spread(np.where(mask, owner, 0), image), colours, opacity=0.75)
    for row, column in np.argwhere((owner > 0) & ~mask).tolist():
        _frame(image, (row, column, row, column), edge, colours[owner[row, column]])
    return image


def patch_attention(
    maps: np.ndarray, query: tuple[int, int], grid: tuple[int, int], head: int | None = None
) -> tuple[np.ndarray, float]:
    """What one patch of the picture attends to, among the patches.

    Args:
        maps: (heads, 1 + N, 1 + N) attention, rows are queries; token 0 is the class token.
        query: row and column of the patch that asks.
        grid: (gh, gw), gh * gw = N.
        head: number of the head; ``None`` is the mean of all.

    Returns:
        (gh, gw) attention without the class token, of sum 1; and the share that the class token had.

    Raises:
        ValueError: no such head or patch.
    """
    if head is not None and not 0 <= head < len(maps):
        raise ValueError(f"no head {head}: the block has {len(maps)}, 0 to {len(maps) - 1}")
    if not (0 <= query[0] < grid[0] and 0 <= query[1] < grid[1]):
        raise ValueError(f"no patch {query}: a crop has {grid[0]} rows and {grid[1]} columns of them, from 0")
    row = 1 + query[0] * grid[1] + query[1]
    asked = (maps.mean(axis=0) if head is None else maps[head])[row].astype(np.float64)
    return asked[1:].reshape(grid) / asked[1:].sum(), float(asked[0] / asked.sum())


def draw_attention(image: np.ndarray, attention: np.ndarray, query: tuple[int, int]) -> np.ndarray:
    """A (gh, gw) map over a crop, blue 0, red its own maximum; the patch that asks has a red frame."""
    size = (image.shape[1], image.shape[0])
    smooth = cv2.resize(attention / attention.max(), size, interpolation=cv2.INTER_LINEAR)
    levels = (255 * smooth.clip(0, 1)).round().astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return draw_query(cv2.addWeighted(coloured, MAP_OPACITY, image, 1 - MAP_OPACITY, 0), query, attention.shape[0])


def draw_query(image: np.ndarray, query: tuple[int, int], num_rows: int) -> np.ndarray:
    """A crop with a red frame around one of its patches."""
    image = image.copy()
    _frame(image, (*query, *query), image.shape[0] // num_rows, QUERY, width=3)
    return image


# cells of a sheet


def _row(
    pictures: Mapping[str, np.ndarray], lines: Sequence[str] = (), legend: Mapping[str, Colour] | None = None
) -> np.ndarray:
    """Pictures side by side, each above its name; below them a legend and lines of text."""
    width = next(iter(pictures.values())).shape[1]
    named = [np.concatenate([picture, _text([(name, INK)], width)]) for name, picture in pictures.items()]
    rows = [_beside(named, width)]
    whole = rows[0].shape[1]
    if legend:
        rows.append(_legend(list(legend), list(legend.values()), whole))
    wrapped = [part for line in lines for part in textwrap.wrap(line, whole // CHARACTER)]
    if wrapped:
        rows.append(_text([(line, INK) for line in wrapped], whole))
    return np.concatenate(rows)


def reconstruction_cell(name: str, image: np.ndarray, mask: np.ndarray, painted: Mapping[str, np.ndarray]) -> Cell:
    """A crop, what the model saw of it, and what it made of that.

    Args:
        name: caption.
        image: the crop.
        mask: (gh, gw).
        painted: reconstructions, (H, W, 3) uint8, by the name of the variant.
    """
    pictures = {"original": image, "masked": draw_mask(image, mask), **painted}
    return name, _row({what: enlarged(picture) for what, picture in pictures.items()})


def mask_cell(
    name: str,
    image: np.ndarray,
    keypoints: np.ndarray,
    rectangles: Mapping[str, Sequence[Rectangle]],
    chosen: Mapping[str, np.ndarray],
    mask: np.ndarray,
) -> Cell:
    """Part rectangles on a crop, and the mask that a list of parts led to.

    Args:
        name: caption.
        image: the crop.
        keypoints: (K, 2) x, y in its pixels, those that are there.
        rectangles: of every part, in patches.
        chosen: (gh, gw) patches of what was drawn (parts, or other things by name), in the order of the draw.
        mask: (gh, gw).
    """
    large = enlarged(image)
    factor = large.shape[0] / image.shape[0]
    colours = part_colours(list(dict.fromkeys([*rectangles, *chosen])))
    wanted = np.logical_or.reduce(list(chosen.values())) if chosen else np.zeros_like(mask)
    in_colour = [(patches, colours[part]) for part, patches in chosen.items()]
    pictures = {
        "parts": draw_parts(large, rectangles, (mask.shape[0], mask.shape[1]), (keypoints + 0.5) * factor - 0.5),
        "mask": draw_origin(large, mask, in_colour),
    }
    lines = [f"drawn: {', '.join(chosen) or 'nothing'}", _balance(wanted, mask)]
    if not any(rectangles.values()):
        lines.append("no part is known here")
    return name, _row(pictures, lines, colours)


def _balance(wanted: np.ndarray, mask: np.ndarray) -> str:
    """How the patches of the drawn parts, N_p, were brought to the number of the mask, N_m."""
    num_wanted, num_masked = int(wanted.sum()), int(mask.sum())
    added, given_up = int((mask & ~wanted).sum()), int((wanted & ~mask).sum())
    sign = "=" if num_wanted == num_masked else "<" if num_wanted < num_masked else ">"
    said = [f"{added} added"] * (added > 0) + [f"{given_up} given up"] * (given_up > 0)
    return f"N_p {num_wanted} {sign} N_m {num_masked}{': ' if said else ''}{', '.join(said)}"


def attention_cell(
    name: str, image: np.ndarray, attention: np.ndarray, query: tuple[int, int], class_share: float, asked: str
) -> Cell:
    """A crop and the attention of one of its patches to all.

    Args:
        name: caption.
        image: the crop.
        attention: (gh, gw) of sum 1, see ``patch_attention``.
        query: row and column of the patch that asks.
        class_share: what the class token had before it was left out.
        asked: whose patch it is.
    """
    large = enlarged(image)
    row, column = np.unravel_index(int(attention.argmax()), attention.shape)
    lines = [
        f"{asked}: row {query[0]}, column {query[1]}",
        f"most {attention.max():.3f} at row {row}, column {column}",
        f"class token had {class_share:.3f}",
    ]
    pictures = {"patch": draw_query(large, query, len(attention)), "attention": draw_attention(large, attention, query)}
    return name, _row(pictures, lines)
