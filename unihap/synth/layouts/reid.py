"""Who is who: Market-1501, PRCC (changed clothes), LUPerson (no labels but keypoints), CUHK-PEDES (captions)."""

import io
import json
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from unihap.data.reid import MARKET_FOLDERS
from unihap.synth.captions import captions
from unihap.synth.layouts.base import (
    CAMERAS,
    Context,
    Draft,
    Facts,
    Files,
    Item,
    Layout,
    draw_others,
    draw_place,
    image_and_facts,
    main_person,
    no_annotation,
    text_lines,
)
from unihap.synth.structures import Picture

DISTRACTORS = 0.1  # of the gallery's people's crops: crops of people who are nobody's answer
PRCC_CAMERAS = {"A": (1, 0), "B": (2, 0), "C": (3, 1)}  # camera and outfit: who comes to C has changed clothes
SEEN_SCORE, HIDDEN_SCORE = 1.0, 0.5  # of keypoints, in place of a detector's confidence


def _market_plan(draft: Draft) -> Iterator[Item]:
    """Every person before every camera in turn; in testing, the first crop by each camera is a query.

    A test person meets only half as many cameras as there are crops, so that the gallery too has crops by every
    camera: those by the query's own, which evaluation leaves out, and those by others, which are its answers.
    """
    images = draft.amount.images
    frame = 0
    for split, shift in (("train", 0), ("test", draft.amount.counts["train"])):
        count = draft.amount.counts[split]
        num_cameras = CAMERAS if split == "train" else min(CAMERAS, max(2, images // 2))
        index = 0
        for person in range(count):
            rng = draft.rng(split, person)
            cameras = (rng.permutation(CAMERAS)[:num_cameras] + 1).tolist()
            for image in range(images):
                folder = (
                    "bounding_box_train"
                    if split == "train"
                    else "query"
                    if image < num_cameras
                    else "bounding_box_test"
                )
                camera = cameras[image % num_cameras]
                name = f"{folder}/{shift + person + 1:04d}_c{camera}s1_{frame:06d}_01.jpg"
                others = draw_others(rng)
                yield draft.item(split, index, name, [(person, 0)], camera=camera, others=others)
                index, frame = index + 1, frame + 1
    for person in range(count, count + math.ceil(DISTRACTORS * count * images)):
        camera = int(draft.rng("test", person).integers(1, CAMERAS + 1))
        name = f"{MARKET_FOLDERS['gallery']}/0000_c{camera}s1_{frame:06d}_01.jpg"
        yield draft.item("test", index, name, [(person, 0)], camera=camera)
        index, frame = index + 1, frame + 1


def _prcc_plan(draft: Draft) -> Iterator[Item]:
    """Three cameras; A and B see the same clothes, C others.

    The official ``val`` shows training people again; here it has people of its own, as every split.
    """
    shift = 0
    for split in ("train", "val", "test"):
        index = 0
        for person in range(draft.amount.counts[split]):
            rng = draft.rng(split, person)
            for letter, (camera, outfit) in PRCC_CAMERAS.items():
                for image in range(1, draft.amount.images + 1):
                    number = f"{shift + person + 1:03d}"
                    where = f"{letter}/{number}/" if split == "test" else f"{number}/{letter}_"
                    name = f"rgb/{split}/{where}cropped_rgb{image:03d}.jpg"
                    yield draft.item(split, index, name, [(person, outfit)], camera=camera, others=draw_others(rng))
                    index += 1
        shift += draft.amount.counts[split]


def _plain_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    return image_and_facts(item, picture, {})


def _luperson_plan(draft: Draft) -> Iterator[Item]:
    for index in range(draft.amount.counts["train"]):
        rng = draft.rng("train", index)
        name = f"images/{index:07d}.jpg"
        yield draft.item("train", index, name, [(index, 0)], others=draw_others(rng), **draw_place(rng))


def _luperson_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    _, seen = main_person(item, picture)
    points = seen.keypoints.astype(np.float64)
    points[:, 2] = np.choose(points[:, 2].astype(int), (0.0, HIDDEN_SCORE, SEEN_SCORE))
    return image_and_facts(item, picture, {"keypoints": points.round(2).tolist()})


def _luperson_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    """A list of the images, and their keypoints (x, y, score) in one array instead of a pickle for each."""
    names = [item.name for item, _ in items]
    keypoints = np.array([facts["keypoints"] for _, facts in items], dtype=np.float32).reshape(-1, 17, 3)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(names), keypoints=keypoints)
    return {"list.txt": text_lines(names), "keypoints.npz": buffer.getvalue()}


def _cuhkpedes_plan(draft: Draft) -> Iterator[Item]:
    number, shift = 0, 0
    for split in ("train", "val", "test"):
        index = 0
        for person in range(draft.amount.counts[split]):
            rng = draft.rng(split, person)
            for _ in range(draft.amount.images):
                number += 1
                where = {"others": draw_others(rng), **draw_place(rng)}
                name = f"imgs/synth/{number:07d}.jpg"
                yield draft.item(split, index, name, [(person, 0)], facts={"id": shift + person + 1}, **where)
                index += 1
        shift += draft.amount.counts[split]


def _cuhkpedes_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    _, seen = main_person(item, picture)
    sentences = list(captions(seen.figure, picture.camera, np.random.default_rng((context.seed, item.key))))
    return image_and_facts(item, picture, {"captions": sentences})


def _cuhkpedes_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    entries = [
        {
            "split": item.split,
            "captions": facts["captions"],
            "file_path": item.name.removeprefix("imgs/"),
            "processed_tokens": [re.findall(r"[a-z0-9]+", text.lower()) for text in facts["captions"]],
            "id": item.facts["id"],
        }
        for item, facts in items
    ]
    return {"reid_raw.json": f"{json.dumps(entries, indent=1)}\n".encode()}


MARKET1501 = Layout("Market-1501-v15.09.15", "people", ("train", "test"), _market_plan, _plain_label, no_annotation)
PRCC = Layout("prcc", "people", ("train", "val", "test"), _prcc_plan, _plain_label, no_annotation)
LUPERSON = Layout("LUPerson", "pictures", ("train",), _luperson_plan, _luperson_label, _luperson_annotate)
CUHKPEDES = Layout(
    "CUHK-PEDES", "people", ("train", "val", "test"), _cuhkpedes_plan, _cuhkpedes_label, _cuhkpedes_annotate
)
