"""Several people a picture: keypoints as in COCO, boxes as in CrowdHuman."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from unihap.data.skeletons import SKELETONS
from unihap.synth.layouts.base import (
    Context,
    Draft,
    Facts,
    Files,
    Item,
    Layout,
    draw_place,
    image_and_facts,
    json_lines,
    pixels_to,
    rounded,
    whole,
)
from unihap.synth.structures import LIP, Picture, Seen

SKELETON_OF = {"a": "coco", "b": "synth_b"}  # domain -> key of SKELETONS
MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "pelvis": ("left_hip", "right_hip")}
UNCLEAR_PIXELS = 40  # with fewer seen, a person has a box but no keypoints: nobody could label them
HIDDEN_SHARE = 0.05  # with less seen, a person of CrowdHuman is an ignored region
HEAD_PARTS = tuple(LIP[name] for name in ("hat", "hair", "sunglasses", "face"))
HEAD_RADIUS = 0.19  # metres from the middle of the ears: the head with its hat, not the ends of long hair
COCO_LIMBS = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


def in_order(seen: Seen, matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The keypoints of a skeleton.

    COCO's own are taken as they are; ``MIDDLES`` are halfway between two joints in space, and as visible as the less
    visible of the two.

    Args:
        seen: a person with COCO's keypoints.
        matrix: (3, 3) intrinsics.
        names: of the skeleton's K keypoints.

    Returns:
        (K, 3) x, y, visibility (2, 1, 0) and (K, 3) camera frame, metres.
    """
    number = {name: i for i, name in enumerate(SKELETONS["coco"].names)}
    points, joints = [], []
    for name in names:
        pair = [number[part] for part in MIDDLES.get(name, (name,))]
        joint = seen.joints[pair].astype(np.float64).mean(axis=0)
        pixel = seen.keypoints[pair[0], :2] if len(pair) == 1 else (matrix @ joint)[:2] / joint[2]
        points.append([*pixel, seen.keypoints[pair, 2].min()])
        joints.append(joint)
    return np.array(points), np.array(joints)


def _scene_items(draft: Draft, split: str, index: int, name: str, **rest: Any) -> Item:
    """Strangers in every picture: the more people, the more poses and clothes there are to learn from."""
    low, high = draft.amount.people
    rng = draft.rng(split, index)
    people = [(index * high + i, 0) for i in range(int(rng.integers(low, high + 1)))]
    return draft.item(split, index, name, people, crop=False, **draw_place(rng), **rest)


def _coco_plan(draft: Draft) -> Iterator[Item]:
    number = 0
    for split in ("train", "val"):
        for index in range(draft.amount.counts[split]):
            number += 1
            yield _scene_items(draft, split, index, f"{split}2017/{number:012d}.jpg", facts={"id": number})


def _coco_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    """Everybody of whom a pixel is seen; boxes and masks are of what is seen, as COCO's are."""
    names = SKELETONS[SKELETON_OF[context.domain]].names
    people = []
    for i, seen in enumerate(picture.people):
        mask = picture.owner == i
        area = int(mask.sum())
        if not area:
            continue
        points, joints = in_order(seen, picture.camera.matrix, names)
        points[points[:, 2] == 0] = 0
        if area < UNCLEAR_PIXELS:
            points[:] = 0
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        people.append(
            {
                "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode()},
                "area": area,
                "iscrowd": 0,
                "bbox": whole(seen.visible_box),
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": [v for x, y, seen_as in rounded(points, 2) for v in (x, y, int(seen_as))],
                "joints_camera": rounded(joints, 4),
                "person_id": seen.figure.person.identity,
            }
        )
    facts = {"people": people, "camera_matrix": rounded(picture.camera.matrix, 3)}
    return image_and_facts(item, picture, facts)


def _coco_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    names = SKELETONS[SKELETON_OF[context.domain]].names
    category = {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(names),
        "skeleton": [list(limb) for limb in COCO_LIMBS] if SKELETON_OF[context.domain] == "coco" else [],
    }
    info = {
        "description": "rendered people in the format of COCO keypoints",
        "keypoint_order": f"{SKELETON_OF[context.domain]}: {' '.join(names)}",
        "joints_camera": "the same keypoints in metres, x right, y down, z forward; camera_matrix projects them",
    }
    files = {}
    for split in ("train", "val"):
        images: list[Facts] = []
        annotations: list[Facts] = []
        for item, facts in items:
            if item.split != split:
                continue
            number, (height, width) = item.facts["id"], item.size
            image = {"id": number, "file_name": item.name.partition("/")[2], "height": height, "width": width}
            images.append({**image, "camera_matrix": facts["camera_matrix"], "license": 1})
            for i, person in enumerate(facts["people"]):
                annotations.append({"id": 100 * number + i, "image_id": number, "category_id": 1, **person})
        content = {
            "info": info,
            "licenses": [{"id": 1, "name": "rendered, no photograph", "url": ""}],
            "images": images,
            "annotations": annotations,
            "categories": [category],
        }
        path = f"annotations/person_keypoints_{split}2017.json"
        files[path] = f"{json.dumps(content, separators=(',', ':'))}\n".encode()
    return files


def head_box(picture: Picture, seen: Seen) -> np.ndarray:
    """(4,) xyxy of a whole head, with hat and hair, also where it is hidden or outside the picture."""
    mesh, camera = seen.figure.mesh, picture.camera
    vertices = mesh.vertices[np.unique(mesh.faces[np.isin(mesh.part, HEAD_PARTS)])].astype(np.float64)
    ears = [SKELETONS["coco"].names.index(name) for name in ("left_ear", "right_ear")]
    middle = seen.figure.keypoints[ears].mean(axis=0)
    near = vertices[np.linalg.norm(vertices - middle, axis=1) < HEAD_RADIUS]
    if not len(near):
        near = seen.figure.keypoints[ears]
    pixels = pixels_to(camera, (near - camera.position) @ camera.rotation.T)
    return np.concatenate([pixels.min(axis=0) - 0.5, pixels.max(axis=0) + 0.5])


def _crowdhuman_plan(draft: Draft) -> Iterator[Item]:
    for split in ("train", "val"):
        for index in range(draft.amount.counts[split]):
            yield _scene_items(draft, split, index, f"Images/{split}_{index:06d}.jpg")


def _crowdhuman_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    """Everybody of whom a pixel is seen; who is all but hidden is an ignored region."""
    boxes: list[Facts] = []
    for seen in picture.people:
        if not seen.visible_box.any():
            continue
        outer, inner = seen.full_box.astype(np.float64), seen.visible_box.astype(np.float64)
        outer = np.concatenate([np.minimum(outer[:2], inner[:2]), np.maximum(outer[2:], inner[2:])])
        hidden_head = int(seen.keypoints[0, 2] == 0 and not (seen.keypoints[1:5, 2] > 0).any())
        extra: Facts = {"box_id": len(boxes), "occ": int(seen.visible_share < 0.99)}
        if seen.visible_share < HIDDEN_SHARE:
            extra["ignore"] = 1
        boxes.append(
            {
                "tag": "person",
                "hbox": whole(head_box(picture, seen)),
                "head_attr": {"ignore": hidden_head, "occ": int((seen.keypoints[:3, 2] < 2).any()), "unsure": 0},
                "fbox": whole(outer),
                "vbox": whole(inner),
                "extra": extra,
            }
        )
    return image_and_facts(item, picture, {"gtboxes": boxes})


def _crowdhuman_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    files = {}
    for split in ("train", "val"):
        rows = [
            {
                "ID": item.name.removeprefix("Images/").removesuffix(".jpg"),
                "height": item.size[0],
                "width": item.size[1],
                "gtboxes": facts["gtboxes"],
            }
            for item, facts in items
            if item.split == split
        ]
        files[f"annotation_{split}.odgt"] = json_lines(rows)
    return files


COCO_KEYPOINTS = Layout("coco", "pictures", ("train", "val"), _coco_plan, _coco_label, _coco_annotate)
CROWDHUMAN = Layout(
    "CrowdHuman", "pictures", ("train", "val"), _crowdhuman_plan, _crowdhuman_label, _crowdhuman_annotate
)
