"""What the official layouts have no place for: outfits, body shapes, poses, cameras; every label of every picture."""

import math
from typing import Any

import numpy as np

from unihap.synth.layouts.base import Facts, Item, gzipped, json_lines, rounded
from unihap.synth.structures import Picture, Seen

EXTRA_FILE = "extra.jsonl.gz"
LEVELS = ("full", "brief", "none")


def describe(item: Item, picture: Picture, level: str) -> Facts:
    """One line of ``extra.jsonl.gz``.

    Args:
        item: what was asked for.
        picture: what was rendered.
        level: ``full``; ``brief`` leaves out poses, keypoints and joints; ``none`` everything.
    """
    if level == "none":
        return {}
    camera = picture.camera
    wanted = [identity for identity, _ in item.people]
    return {
        "file": item.name,
        "split": item.split,
        "site": item.site,
        "camera": item.camera,
        "camera_matrix": rounded(camera.matrix, 3),
        "camera_rotation": rounded(camera.rotation, 5),
        "camera_position": rounded(camera.position, 4),
        "people": [
            _person(seen, level) for seen in picture.people if seen.visible_share > 0 or _identity(seen) in wanted
        ],
    }


def extra_file(lines: list[Facts]) -> dict[str, bytes]:
    """The file, if there is anything to say."""
    return {EXTRA_FILE: gzipped(json_lines(lines))} if any(lines) else {}


def _identity(seen: Seen) -> int:
    return seen.figure.person.identity


def _person(seen: Seen, level: str) -> dict[str, Any]:
    figure = seen.figure
    facts = {
        "person": figure.person.identity,
        "outfit": figure.person.outfit.number,
        "shape": {name: round(value, 3) for name, value in sorted(figure.person.shape.items())},
        "activity": figure.pose.activity,
        "yaw": round(math.remainder(figure.yaw, 2 * math.pi), 3),
        "visible_share": round(float(seen.visible_share), 3),
        "full_box": rounded(seen.full_box, 1),
        "visible_box": rounded(seen.visible_box, 1),
    }
    if level == "full":
        rotations = {bone: np.asarray(vector) for bone, vector in sorted(figure.pose.rotations.items())}
        facts |= {
            "rotations": {bone: rounded(vector, 3) for bone, vector in rotations.items()},
            "keypoints": rounded(seen.keypoints, 2),
            "joints_camera": rounded(seen.joints, 4),
        }
    return facts
