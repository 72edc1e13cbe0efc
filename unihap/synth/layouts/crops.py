"""One person a picture: attributes as in PA-100K, parsing as in LIP."""

from collections.abc import Iterator, Sequence

import numpy as np

from unihap.synth.attributes import ATTRIBUTES, attributes
from unihap.synth.layouts.base import (
    Context,
    Draft,
    Facts,
    Files,
    Item,
    Layout,
    column,
    draw_others,
    draw_place,
    image_and_facts,
    jpeg,
    label_png,
    main_person,
    mat,
    text_lines,
)
from unihap.synth.structures import LIP, Picture

PA100K_SPLITS = ("train", "val", "test")


def _pa100k_plan(draft: Draft) -> Iterator[Item]:
    """Nobody twice: attributes are learned from many people, not from many pictures of one."""
    number = 0
    for split in PA100K_SPLITS:
        for index in range(draft.amount.counts[split]):
            rng = draft.rng(split, index)
            number += 1
            name = f"data/{number:06d}.jpg"
            yield draft.item(split, index, name, [(index, 0)], others=draw_others(rng), **draw_place(rng))


def _pa100k_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    _, seen = main_person(item, picture)
    values = np.asarray(attributes(seen.figure, picture.camera, context.domain)).astype(int)
    assert values.shape == (len(ATTRIBUTES[context.domain]),)
    return image_and_facts(item, picture, {"values": values.tolist()})


def _pa100k_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    content = {"attributes": column(ATTRIBUTES[context.domain])}
    for split in PA100K_SPLITS:
        here = [(item, facts) for item, facts in items if item.split == split]
        content[f"{split}_images_name"] = column([item.name.removeprefix("data/") for item, _ in here])
        content[f"{split}_label"] = np.array([facts["values"] for _, facts in here], dtype=np.uint8)
    return {"annotation.mat": mat(content)}


def _lip_plan(draft: Draft) -> Iterator[Item]:
    for split in ("train", "val"):
        for index in range(draft.amount.counts[split]):
            rng = draft.rng(split, index)
            number = f"{index + 1}_{draft.identity(split, index)}"
            name = f"TrainVal_images/{split}_images/{number}.jpg"
            where = {"others": draw_others(rng), **draw_place(rng)}
            yield draft.item(split, index, name, [(index, 0)], facts={"id": number}, **where)


def _lip_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    """As in LIP, everybody but the person that the crop is made of is background."""
    index, _ = main_person(item, picture)
    label_map = np.where(picture.owner == index, picture.part, LIP["background"]).astype(np.uint8)
    path = f"TrainVal_parsing_annotations/{item.split}_segmentations/{item.facts['id']}.png"
    return {item.name: jpeg(picture), path: label_png(label_map)}, {}


def _lip_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    return {
        f"TrainVal_images/{split}_id.txt": text_lines(item.facts["id"] for item, _ in items if item.split == split)
        for split in ("train", "val")
    }


PA100K = Layout("PA-100K", "pictures", PA100K_SPLITS, _pa100k_plan, _pa100k_label, _pa100k_annotate)
LIP_LAYOUT = Layout("LIP", "pictures", ("train", "val"), _lip_plan, _lip_label, _lip_annotate)
