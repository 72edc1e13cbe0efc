"""What the layouts share: items to render, the numbers that tell them apart, and the bytes of files.

A layout plans its items, labels one rendered picture at a time and writes its annotation files at the end, from the
records of all items.  It never touches the disk: it returns the content of files.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import scipy.io

from unihap.synth.structures import LIP, Camera, Picture, Seen

SPLITS = ("train", "val", "test")
SPAN = 10**7  # people, and pictures, that a split of a dataset has at most
TRIES = 8  # keys of an item: the first, and those to draw it again with
OTHERS = (0.7, 0.22, 0.08)  # share of crops into which nobody else, one and two others come
CAMERAS = 6  # of a site
SITES = 12  # places of a split, for datasets whose cameras are not known by their numbers

Files = dict[str, bytes]  # path under the dataset's folder -> content
Facts = dict[str, Any]  # of one item, as JSON has them


@dataclass(frozen=True)
class Amount:
    """How much of a dataset to render.

    Attributes:
        counts: split -> number of its units (people, pictures or sequences, see ``Layout.unit``).
        size: (height, width) of its images.
        images: crops of a person by a camera or in all, frames of a sequence; 1 elsewhere.
        people: fewest and most people of a scene.
    """

    counts: Mapping[str, int]
    size: tuple[int, int]
    images: int = 1
    people: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Item:
    """One picture to render.

    Attributes:
        dataset: key of ``LAYOUTS``.
        split: train | val | test; each has its own people and sites.
        name: path of the image under the dataset's folder.
        key: number of the picture, unique in a run; the next ``TRIES`` - 1 are its own too.
        people: (identity, outfit) of everybody wanted; the first is the one a crop is made of.
        camera: of the site, from 1.
        size: (height, width).
        site: of the split, from 0.
        crop: whether it is a crop of the first person, with ``others`` coming in, or a scene of all of ``people``.
        others: see ``crop``.
        facts: what the layout wants to know again when it labels the picture.
    """

    dataset: str
    split: str
    name: str
    key: int
    people: tuple[tuple[int, int], ...]
    camera: int
    size: tuple[int, int]
    site: int = 0
    crop: bool = True
    others: int = 0
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """What a layout plans from: its amount, and numbers that no other dataset or split gets.

    Attributes:
        dataset: key of ``LAYOUTS``.
        position: of the dataset in ``LAYOUTS``, the same whichever datasets are asked for.
        seed: of the run.
        amount: how much.
    """

    dataset: str
    position: int
    seed: int
    amount: Amount

    def first(self, split: str) -> int:
        """The number before the first of a split."""
        return (self.position * len(SPLITS) + SPLITS.index(split)) * SPAN

    def identity(self, split: str, index: int) -> int:
        """Number of the split's person ``index``, unique in a run, from 1."""
        assert 0 <= index < SPAN
        return self.first(split) + index + 1

    def rng(self, split: str, index: int) -> np.random.Generator:
        """Randomness for planning the split's picture (or person) ``index``."""
        return np.random.default_rng((self.seed, self.first(split) + index))

    def item(self, split: str, index: int, name: str, people: Iterable[tuple[int, int]], **rest: Any) -> Item:
        """The split's picture ``index``; ``people`` are (index of the person, outfit)."""
        assert 0 <= index < SPAN
        wanted = tuple((self.identity(split, person), outfit) for person, outfit in people)
        key = (self.first(split) + index) * TRIES
        return Item(self.dataset, split, name, key, wanted, size=self.amount.size, **rest)


@dataclass(frozen=True)
class Context:
    """What holds for a whole run: its seed and its domain, ``a`` or ``b``."""

    seed: int
    domain: str


@dataclass(frozen=True)
class Layout:
    """How a dataset is on disk.

    Attributes:
        folder: under the datasets root, as the real dataset's.
        unit: what its counts count.
        splits: those it has, in the order of ``SPLITS``.
        plan: all its items.
        label: content of the files of one picture, and what the annotation files need to know of it.
        annotate: content of the annotation files, from (item, facts) of every picture in the order of the plan.
    """

    folder: str
    unit: str
    splits: tuple[str, ...]
    plan: Callable[[Draft], Iterator[Item]]
    label: Callable[[Item, Picture, Context], tuple[Files, Facts]]
    annotate: Callable[[Sequence[tuple[Item, Facts]], Context], Files]


def image_and_facts(item: Item, picture: Picture, facts: Facts) -> tuple[Files, Facts]:
    """The image as the only file."""
    return {item.name: jpeg(picture)}, facts


def no_annotation(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    """For layouts whose file names say everything."""
    return {}


def position_of(picture: Picture, identity: int) -> int:
    """Index of somebody among the people of a picture.

    Raises:
        ValueError: the person is not there.
    """
    for i, seen in enumerate(picture.people):
        if seen.figure.person.identity == identity:
            return i
    raise ValueError(f"person {identity} is not in the picture")


def main_person(item: Item, picture: Picture) -> tuple[int, Seen]:
    """Index and labels of the person a crop is made of."""
    index = position_of(picture, item.people[0][0])
    return index, picture.people[index]


def draw_others(rng: np.random.Generator) -> int:
    """How many others come into a crop."""
    return int(rng.choice(len(OTHERS), p=OTHERS))


def draw_place(rng: np.random.Generator) -> dict[str, int]:
    """Any site and any of its cameras, as ``Draft.item`` takes them."""
    return {"site": int(rng.integers(SITES)), "camera": int(rng.integers(1, CAMERAS + 1))}


def pixels_to(camera: Camera, points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of (N, 3) points of the camera frame."""
    projected = points @ camera.matrix.T
    return projected[:, :2] / projected[:, 2:]


def rounded(values: Any, digits: int) -> Any:
    """Numbers of any nesting as short decimal numbers."""
    array = np.round(np.asarray(values, dtype=np.float64), digits) + 0.0  # -0.0 becomes 0.0
    return array.tolist()


def whole(box: np.ndarray) -> list[int]:
    """A box (x1, y1, x2, y2) as whole (x, y, w, h) that hold it."""
    x1, y1 = np.floor(box[:2] + 1e-3).astype(int).tolist()
    x2, y2 = np.ceil(box[2:] - 1e-3).astype(int).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


# the content of files


def jpeg(picture: Picture) -> bytes:
    """The image as its camera stores it."""
    options = (cv2.IMWRITE_JPEG_QUALITY, picture.camera.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)  # a tenth smaller
    return _encoded(".jpg", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR), *options)


def label_png(label_map: np.ndarray) -> bytes:
    """(H, W) uint8 classes of LIP as a grey PNG."""
    assert label_map.max() < len(LIP), "a part that LIP does not have"
    return _encoded(".png", label_map.astype(np.uint8), cv2.IMWRITE_PNG_COMPRESSION, 9)


def mat(content: Mapping[str, np.ndarray]) -> bytes:
    """A MATLAB file; its header, which scipy fills with the time, says nothing."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, dict(content), do_compression=True)
    return b"MATLAB 5.0 MAT-file".ljust(116) + buffer.getvalue()[116:]


def column(texts: Sequence[str]) -> np.ndarray:
    """(N, 1) cells of text, as MATLAB's lists are."""
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = list(texts)
    return cells


def json_lines(rows: Iterable[Any]) -> bytes:
    """One JSON value a line."""
    return "".join(f"{json.dumps(row, separators=(',', ':'))}\n" for row in rows).encode()


def gzipped(content: bytes) -> bytes:
    """Compressed, without the time that gzip would add."""
    return gzip.compress(content, mtime=0)


def text_lines(lines: Iterable[str]) -> bytes:
    """One line each."""
    return "".join(f"{line}\n" for line in lines).encode()


def _encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, [int(option) for option in options])
    assert done
    return data.tobytes()
