"""A contact sheet of a dataset: some records with their truth and their prediction."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unihap.data.images import read_image
from unihap.structures import AttributesLabel, Dataset, DetectionLabel, ParsingLabel, PoseLabel, Record, ReIDLabel
from unihap.tasks.task import Result, Task
from unihap.visualize.draw import IGNORED, SCORE, Colour, class_colours, draw_boxes, draw_label_map, draw_pose

logger = logging.getLogger(__name__)

Shown = Sequence[tuple[Record, Result]]
Cell = tuple[str, np.ndarray]  # caption and (h, w, 3) picture

RIGHT_ANSWER, WRONG_ANSWER, UNKNOWN = (22, 140, 60), (208, 32, 32), (140, 140, 140)
BACKGROUND, INK, PANEL = (255, 255, 255), (30, 30, 30), (236, 236, 236)

ENCODING = {".jpg": (cv2.IMWRITE_JPEG_QUALITY, 90)}
SHEET_WIDTH = 2000
SHEET_HEIGHT = 30_000  # JPEG ends at 65,535
GAP = 10
FONT_SIZE = 14
LINE = FONT_SIZE + 5
NEIGHBOURS = 4


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


def _shortened(text: str, width: int) -> str:
    """The end of a text that fits into ``width`` pixels; paths differ at their ends."""
    font = _font()
    while len(text) > 4 and font.getlength(text) > width:
        text = "…" + text[2:]
    return text


def _text(lines: Sequence[tuple[str, Colour]], width: int, height: int = 0) -> np.ndarray:
    """Lines of coloured text on a picture of ``width`` x ``height`` pixels (0: as high as they are)."""
    picture = Image.new("RGB", (width, height or LINE * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for i, (text, colour) in enumerate(lines):
        draw.text((0, i * LINE), _shortened(text, width), fill=colour, font=_font())
    return np.array(picture)


def _legend(names: Sequence[str], colours: Sequence[Colour], width: int) -> np.ndarray:
    """Colours with their names, in as many lines as they need."""
    places, x, y = [], 0, 0
    for name in names:
        length = round(_font().getlength(name)) + FONT_SIZE + 18
        if x and x + length > width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += length
    picture = Image.new("RGB", (width, y + LINE), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for (x, y), name, colour in zip(places, names, colours, strict=True):
        draw.rectangle((x, y + 3, x + FONT_SIZE - 2, y + FONT_SIZE + 1), fill=colour)
        draw.text((x + FONT_SIZE + 3, y), name, fill=INK, font=_font())
    return np.array(picture)


def _fit(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales an image into ``height`` x ``width`` pixels; also the (2,) factors of x and y."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return scaled, np.array([size[0] / image.shape[1], size[1] / image.shape[0]])


def _padded(picture: np.ndarray, height: int, width: int, colour: Colour = BACKGROUND) -> np.ndarray:
    """A picture in the upper middle of a larger one."""
    canvas = np.full((height, width, 3), colour, dtype=np.uint8)
    left = (width - picture.shape[1]) // 2
    canvas[: picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def _beside(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Pictures side by side, each in a field of ``width`` pixels."""
    height = max(len(picture) for picture in pictures)
    gap = np.full((height, 4, 3), BACKGROUND, dtype=np.uint8)
    fields = [part for picture in pictures for part in (gap, _padded(picture, height, width, PANEL))]
    return np.concatenate(fields[1:], axis=1)


# the kinds


def _pose_cells(dataset: Dataset, shown: Shown) -> list[Cell]:
    """The surroundings of each person's box."""
    height, width = 360, 270
    cells = []
    for record, result in shown:
        image, label = read_image(record.image), cast(PoseLabel, record.label)
        margin = 0.2 * (label.box[2:] - label.box[:2]).max()
        x1, y1 = np.floor(label.box[:2] - margin).clip(0, np.array(image.shape[1::-1]) - 2).astype(int)
        x2, y2 = np.ceil(label.box[2:] + margin).clip((x1 + 1, y1 + 1), image.shape[1::-1]).astype(int)
        crop, factors = _fit(image[y1:y2, x1:x2], height, width)
        pictures = []
        for points in (label.keypoints, np.asarray(result["keypoints"])):
            # pixel centres are whole numbers, so the edge of the crop lies half a pixel before them
            places = (points[:, :2] - (x1, y1) + 0.5) * factors - 0.5
            pictures.append(draw_pose(crop, np.column_stack([places, points[:, 2]]), dataset.classes, size=4))
        cells.append((record.id, _beside(pictures, width)))
    return cells


def _parsing_cells(dataset: Dataset, shown: Shown) -> list[Cell]:
    """Label maps over the image, above the names of the classes that occur."""
    height, width = 360, 300
    assert dataset.read_label_map is not None
    colours = class_colours(len(dataset.classes))
    cells = []
    for record, result in shown:
        image, _ = _fit(read_image(record.image), height, width)
        maps = [
            cv2.resize(label_map, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            for label_map in (dataset.read_label_map(cast(ParsingLabel, record.label).path), result["label_map"])
        ]
        numbers = [n for n in np.unique(np.stack(maps)).tolist() if n not in (0, IGNORED)]
        pair = _beside([draw_label_map(image, label_map, colours) for label_map in maps], width)
        legend = _legend([dataset.classes[n] for n in numbers], [colours[n] for n in numbers], pair.shape[1])
        cells.append((record.id, np.concatenate([pair, legend])))
    return cells


def _detection_cells(dataset: Dataset, shown: Shown) -> list[Cell]:
    """Truth green, ignored regions grey; predictions above 0.3 with their scores."""
    height, width = 360, 480
    cells = []
    for record, result in shown:
        image, factors = _fit(read_image(record.image), height, width)
        scale = np.tile(factors, 2)
        label = cast(DetectionLabel, record.label)
        truth = draw_boxes(image, label.ignore * scale, UNKNOWN)
        truth = draw_boxes(truth, label.boxes * scale, RIGHT_ANSWER)
        sure = np.asarray(result["scores"]) > SCORE
        labels = [f"{score:.2f}" for score in np.asarray(result["scores"])[sure]]
        # the surest box last, so that it lies on top
        found = draw_boxes(image, (np.asarray(result["boxes"])[sure] * scale)[::-1], labels=labels[::-1])
        cells.append(
            (f"{record.id} (people: {len(label.boxes)}, found: {len(labels)})", _beside([truth, found], width))
        )
    return cells


def _attributes_cells(dataset: Dataset, shown: Shown) -> list[Cell]:
    """The image beside the attributes that are true or predicted; the many absent ones are left out."""
    height, width = 360, 260
    cells = []
    for record, result in shown:
        lines: list[tuple[str, Colour]] = []
        label = cast(AttributesLabel, record.label)
        for name, truth, score in zip(dataset.classes, label.values, result["probability"], strict=True):
            predicted = score > 0.5
            if truth < 0 and predicted:
                lines.append((f"{name} {score:.2f}: not labelled", UNKNOWN))
            elif truth > 0 and predicted:
                lines.append((f"{name} {score:.2f}", RIGHT_ANSWER))
            elif predicted:
                lines.append((f"{name} {score:.2f}: wrong", WRONG_ANSWER))
            elif truth > 0:
                lines.append((f"{name} {score:.2f}: missed", WRONG_ANSWER))
        room = height // LINE
        if len(lines) > room:
            lines[room - 1 :] = [(f"and {len(lines) - room + 1} more", INK)]
        image, _ = _fit(read_image(record.image), height, width)
        image = _padded(image, height, width, PANEL)
        text = _text(lines, width, height)
        cells.append((record.id, np.concatenate([image, np.full((height, 8, 3), BACKGROUND, np.uint8), text], axis=1)))
    return cells


def _reid_cells(dataset: Dataset, shown: Shown, company: Shown = ()) -> list[Cell]:
    """Each query and its nearest neighbours, framed green for the same person, red for another.

    Neighbours are looked for in ``company`` or, without any, among the shown images.  As in the evaluation, images of
    the same person by the same camera do not count.  Where no shown image is a query, each is one.
    """
    height, width, frame = 240, 120, 5
    num_shown, shown = len(shown), [*shown, *company]
    labels = [cast(ReIDLabel, record.label) for record, _ in shown]
    candidates = range(num_shown if company else 0, len(shown))
    features = np.stack([np.asarray(result["feature"], dtype=np.float64) for _, result in shown])
    features /= np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)
    similarity = features @ features.T
    tiles = [_padded(_fit(read_image(record.image), height, width)[0], height, width, PANEL) for record, _ in shown]

    def framed(i: int, colour: Colour, text: str) -> np.ndarray:
        sides = (frame, frame, frame, frame)
        picture = cv2.copyMakeBorder(tiles[i], *sides, borderType=cv2.BORDER_CONSTANT, value=colour)
        return np.concatenate([picture, _text([(text, colour)], picture.shape[1])])

    queries = [i for i in range(num_shown) if labels[i].role == "query"] or list(range(num_shown))
    cells = []
    for query in queries:
        person, camera = labels[query].identity, labels[query].camera
        nearest = [i for i in np.argsort(-similarity[query], kind="stable").tolist() if i in candidates]
        nearest = [i for i in nearest if shown[i][0].id != shown[query][0].id]
        nearest = [i for i in nearest if (labels[i].identity, labels[i].camera) != (person, camera)][:NEIGHBOURS]
        pictures = [framed(query, INK, "query")]
        for i in nearest:
            colour = RIGHT_ANSWER if labels[i].identity == person else WRONG_ANSWER
            pictures.append(framed(i, colour, f"{similarity[query, i]:.2f}"))
        cells.append((shown[query][0].id, np.concatenate(pictures, axis=1)))
    return cells


def _plain_cells(dataset: Dataset, shown: Shown) -> list[Cell]:
    """The images alone."""
    return [(record.id, _fit(read_image(record.image), 360, 360)[0]) for record, _ in shown]


# how each kind is drawn, and what the sheet says about it
CELLS: dict[str, tuple[Callable[..., list[Cell]], str]] = {
    "pose": (_pose_cells, "truth left, prediction right; orange: the person's left, blue: right, rings: unsure"),
    "parsing": (_parsing_cells, "truth left, prediction right; black: ignored"),
    "detection": (_detection_cells, f"truth left, grey: ignored; predictions above {SCORE} right"),
    "attributes": (_attributes_cells, "what is true or predicted, with its probability; red: wrong"),
    "reid": (_reid_cells, "the nearest of the images on this sheet by cosine similarity; green: the same person"),
}


def draw_sheet(
    task: Task,
    dataset: Dataset,
    shown: Shown,
    path: Path,
    *,
    heading: str = "",
    scores: Sequence[float] = (),
    company: Shown = (),
) -> None:
    """Writes a contact sheet of some results as JPEG: a cell per record, truth left and prediction right.

    A kind of task that ``CELLS`` does not know is drawn as its images alone.

    Args:
        task: whose results they are.
        dataset: what the labels mean.
        shown: the records with their results in source-image pixels.
        path: the file; its folder is made.
        heading: what the sheet says about the choice of records.
        scores: of the records, 0-100, in their captions; none, or one for each record, each of which is a cell then.
        company: further results that the cells may need (ReID: the gallery images near to the queries).

    Raises:
        ValueError: nothing to show, or an image that cannot be read (``BadImageError``).
    """
    if not shown:
        raise ValueError(f"no results of {dataset.name} to draw")
    make_cells, explanation = CELLS.get(task.kind, (_plain_cells, ""))
    cells = make_cells(dataset, shown, company) if company else make_cells(dataset, shown)
    if scores:
        cells = [(f"{text}: {score:.1f}", picture) for score, (text, picture) in zip(scores, cells, strict=True)]
    title = f"{dataset.name}, task {task.spec.name}" + (f": {heading}" if heading else "")
    sheet = lay_out(cells, title, explanation)
    write_picture(sheet, path)


def lay_out(cells: Sequence[Cell], title: str, explanation: str) -> np.ndarray:
    """A sheet of cells under a heading of two lines; the last cells are left out where there are too many.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = (max(picture.shape[axis] for _, picture in cells) for axis in (0, 1))
    num_columns = min(len(cells), max(1, (SHEET_WIDTH - GAP) // (width + GAP)))
    num_rows = math.ceil(len(cells) / num_columns)
    if num_rows * (height + LINE + GAP) > SHEET_HEIGHT:
        num_rows = max(1, SHEET_HEIGHT // (height + LINE + GAP))
        logger.info("%s: drawing the first %d of %d results", title, num_rows * num_columns, len(cells))
    top = 2 * LINE + 2 * GAP
    sheet_width = GAP + num_columns * (width + GAP)
    sheet = np.full((top + num_rows * (height + LINE + GAP), sheet_width, 3), BACKGROUND, dtype=np.uint8)
    heading = [(title, INK), (explanation, UNKNOWN)]
    sheet[GAP : GAP + 2 * LINE, GAP:-GAP] = _text(heading, sheet_width - 2 * GAP)
    for i, (caption, picture) in enumerate(cells[: num_rows * num_columns]):
        y, x = top + i // num_columns * (height + LINE + GAP), GAP + i % num_columns * (width + GAP)
        sheet[y : y + LINE, x : x + width] = _text([(caption, INK)], width)
        sheet[y + LINE : y + LINE + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def write_picture(image: np.ndarray, path: Path) -> None:
    """Writes (H, W, 3) uint8 as JPEG or PNG, by the suffix: the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), ENCODING.get(path.suffix, ()))
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data.tobytes())
    os.replace(temporary, path)
