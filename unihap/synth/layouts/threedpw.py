"""3D joints of several people in sequences, as in 3DPW."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unihap.data.skeletons import SKELETONS
from unihap.synth.layouts.base import Context, Draft, Facts, Files, Item, Layout, draw_place, image_and_facts, rounded
from unihap.synth.layouts.scenes import in_order
from unihap.synth.structures import Picture

FOLDERS = {"train": "train", "val": "validation", "test": "test"}
CONFIDENCE = (0.0, 0.5, 1.0)  # of a keypoint outside the picture, a hidden and a seen one


def _threedpw_plan(draft: Draft) -> Iterator[Item]:
    """Sequences of the same people before one camera; every frame is a picture of its own, nobody moves smoothly."""
    low, high = draft.amount.people
    sequence = 0
    for split in FOLDERS:
        index = 0
        for number in range(draft.amount.counts[split]):
            rng = draft.rng(split, number)
            people = [(number * high + i, 0) for i in range(int(rng.integers(low, high + 1)))]
            place = draw_place(rng)
            for frame in range(draft.amount.images):
                name = f"imageFiles/synth_{sequence:04d}/image_{frame:05d}.jpg"
                facts = {"sequence": f"synth_{sequence:04d}", "frame": frame}
                yield draft.item(split, index, name, people, crop=False, facts=facts, **place)
                index += 1
            sequence += 1


def _threedpw_label(item: Item, picture: Picture, context: Context) -> tuple[Files, Facts]:
    camera = picture.camera
    by_identity = {seen.figure.person.identity: seen for seen in picture.people}
    people = []
    for identity, _ in item.people:
        seen = by_identity[identity]
        points, _ = in_order(seen, camera.matrix, SKELETONS["threedpw"].names)
        points[:, 2] = np.choose(points[:, 2].astype(int), CONFIDENCE)
        person = seen.figure.person
        people.append(
            {
                "poses2d": rounded(points.T, 2),
                "joints": rounded(seen.joints, 4),
                "shape": {key: round(value, 4) for key, value in sorted(person.shape.items())},
                "rotations": {bone: rounded(v, 4) for bone, v in sorted(seen.figure.pose.rotations.items())},
            }
        )
    return image_and_facts(item, picture, {"people": people, "camera_matrix": rounded(camera.matrix, 4)})


def _threedpw_annotate(items: Sequence[tuple[Item, Facts]], context: Context) -> Files:
    """A pickle for each sequence, since that is what 3DPW has and its readers expect, of plain arrays and strings."""
    sequences: dict[str, list[tuple[Item, Facts]]] = {}
    for item, facts in items:
        sequences.setdefault(item.facts["sequence"], []).append((item, facts))
    files = {}
    for name, frames in sequences.items():
        folder = FOLDERS[frames[0][0].split]
        files[f"sequenceFiles/{folder}/{name}.pkl"] = pickle.dumps(_sequence(name, frames), protocol=2)
    return files


def _sequence(name: str, frames: Sequence[tuple[Item, Facts]]) -> dict[str, Any]:
    """3DPW's keys.  ``jointPositions`` are COCO's 17 joints, in metres, and the world is the camera's frame."""
    actors = list(zip(*(facts["people"] for _, facts in frames), strict=True))  # per actor, their frames
    bones = sorted({bone for actor in actors for frame in actor for bone in frame["rotations"]})
    poses = [
        np.array([[frame["rotations"].get(bone, [0.0] * 3) for bone in bones] for frame in actor]) for actor in actors
    ]
    shapes = [actor[0]["shape"] for actor in actors]
    return {
        "sequence": name,
        "img_frame_ids": np.array([item.facts["frame"] for item, _ in frames]),
        "genders": ["f" if shape["gender"] > 0.5 else "m" for shape in shapes],
        "poses2d": [np.array([frame["poses2d"] for frame in actor]) for actor in actors],
        "jointPositions": [np.array([frame["joints"] for frame in actor]).reshape(len(frames), -1) for actor in actors],
        "campose_valid": [np.ones(len(frames), dtype=np.int64) for _ in actors],
        # (F, 3, 3) instead of (3, 3): every frame is another window of what its camera sees
        "cam_intrinsics": np.array([facts["camera_matrix"] for _, facts in frames]),
        "cam_poses": np.tile(np.eye(4), (len(frames), 1, 1)),
        # not SMPL's: the body model is Anny, its parameters are named beside them
        "betas": [np.array(list(shape.values())) for shape in shapes],
        "poses": [actor.reshape(len(frames), -1) for actor in poses],
        "body_model": "anny",
        "shape_names": list(shapes[0]) if shapes else [],
        "bone_names": bones,
        "joint_names": list(SKELETONS["coco"].names),
        "people_ids": [identity for identity, _ in frames[0][0].people],
    }


THREEDPW = Layout("3DPW", "sequences", tuple(FOLDERS), _threedpw_plan, _threedpw_label, _threedpw_annotate)
