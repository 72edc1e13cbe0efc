"""Keypoint AP, PCK, PCKh and end point error."""

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unihap.evaluation.checks import finite, same_shape
from unihap.evaluation.oks import COCO_SIGMAS

T = TypeVar("T", dict, list)

# Places of COCOeval's ten numbers for keypoints.
COCO_NUMBERS = {"AP": 0, "AP50": 1, "AP75": 2, "APM": 3, "APL": 4, "AR": 5}
# Joints of MPII, right and left; the pelvis (6) and the thorax (7) count nowhere, the upper neck (8) in the mean alone.
MPII_PARTS = {
    "Head": (9,),
    "Shoulder": (12, 13),
    "Elbow": (11, 14),
    "Wrist": (10, 15),
    "Hip": (2, 3),
    "Knee": (1, 4),
    "Ankle": (0, 5),
}
MPII_LEFT_OUT = (6, 7)
BOX_TO_BODY = 0.53  # area of a body in its box, from COCO's statistics


def keypoint_ap(
    ground_truth_json: str | Path | dict,
    results_json: str | Path | list[dict],
    sigmas: Iterable[float] | None = None,
    use_area: bool = True,
    image_ids: Iterable[int] | None = None,
) -> dict[str, float]:
    """COCO's keypoint evaluation, run by pycocotools.

    Without ``use_area`` a person's area is 0.53 times that of the box, both in the similarity and in the choice of
    medium and large people; this is what xtcocotools does for AI Challenger.  People without an ``area`` are treated
    so in any case.

    Args:
        ground_truth_json: COCO annotations, a file or its content.
        results_json: COCO results, a file or its content: ``image_id``, ``category_id``, ``keypoints`` (3 K numbers)
            and ``score`` of every detected pose.
        sigmas: (K,) OKS constants; COCO's when not given.
        use_area: use the labelled area.
        image_ids: evaluate these images only.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``APM``, ``APL``, ``AR`` in percent; NaN where no person has that size; all 0
        without any results.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: content that is not COCO's, nobody to find, results of unknown images, NaN.
    """
    truth = _completed(_content(ground_truth_json, dict), use_area)
    chosen = [image["id"] for image in truth["images"]]
    results = _checked(_content(results_json, list), truth, set(chosen))
    if image_ids is not None:
        wanted = set(image_ids)
        strangers = wanted.difference(chosen)
        if strangers:
            raise ValueError(f"image {min(strangers)} is not in the ground truth ({len(strangers)} such image_ids)")
        chosen = [i for i in chosen if i in wanted]
    visible = {a["image_id"] for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]}
    if not visible.intersection(chosen):
        raise ValueError(f"none of the {len(chosen)} images has a person with labelled keypoints")

    sigma = np.array(COCO_SIGMAS if sigmas is None else tuple(sigmas), dtype=np.float64)
    lengths = {len(a["keypoints"]) for a in (*truth["annotations"], *results)}
    if lengths != {3 * len(sigma)}:
        raise ValueError(f"keypoints come as {sorted(lengths)} numbers; {len(sigma)} sigmas ask for {3 * len(sigma)}")
    if not results:
        return dict.fromkeys(COCO_NUMBERS, 0.0)

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = sigma
        evaluation.params.imgIds = chosen
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = [float(value) if value >= 0 else np.nan for value in evaluation.stats]  # -1: nothing to measure
    return {name: 100 * numbers[place] for name, place in COCO_NUMBERS.items()}


def pckh(
    predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray, head_size: np.ndarray, threshold: float = 0.5
) -> dict[str, float]:
    """Percentage of MPII's joints within ``threshold`` head sizes of the truth (Andriluka et al. 2014, CVPR).

    ``PCKh`` counts all visible joints but the pelvis and the thorax; a part is the mean of its left and right joint,
    ``Head`` the head top alone (HRNet's code).

    Args:
        predicted: (N, 16, 2) pixels, joints in MPII's order (0 right ankle ... 9 head top ... 15 left wrist).
        truth: (N, 16, 2) pixels, in the same frame.
        visible: (N, 16), true where the joint is labelled.
        head_size: (N,) pixels; the official one is 0.6 times the diagonal of the head box, the caller multiplies.
        threshold: in head sizes; a distance equal to it counts as found.

    Returns:
        ``PCKh``, ``PCKh@0.1``, ``Head``, ``Shoulder``, ``Elbow``, ``Wrist``, ``Hip``, ``Knee``, ``Ankle`` in percent;
        NaN for a part that is never visible.

    Raises:
        ValueError: shapes that do not fit, NaN, nothing visible, or a head size that is not positive.
    """
    distance, shown = _distances(predicted, truth, visible)
    if distance.shape[1] != 16:
        raise ValueError(f"{distance.shape[1]} joints; PCKh is defined on MPII's 16")
    size = finite("head sizes", head_size, 1)
    if size.shape != distance.shape[:1]:
        raise ValueError(f"{len(size)} head sizes for {len(distance)} people")
    if size.min() <= 0:
        raise ValueError(f"head size {size.min()} of person {int(np.argmin(size))} is not positive")
    distance /= size[:, None]
    counted = shown.copy()
    counted[:, MPII_LEFT_OUT] = False
    if not counted.any():
        raise ValueError(f"none of {len(shown)} people has a visible joint that counts")
    found = (distance <= threshold) & shown
    metrics = {"PCKh": found[counted].mean(), "PCKh@0.1": (distance[counted] <= 0.1).mean()}
    for part, joints in MPII_PARTS.items():
        sides = [found[:, j].sum() / shown[:, j].sum() for j in joints if shown[:, j].any()]
        metrics[part] = np.mean(sides) if sides else np.nan
    return {name: 100 * float(value) for name, value in metrics.items()}


def pck(
    predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray, torso: tuple[int, int], threshold: float = 0.2
) -> float:
    """Percentage of correct keypoints: within ``threshold`` torso diameters of the truth.

    The torso's diameter is the distance from the left shoulder to the right hip (Toshev and Szegedy 2014, CVPR); a
    person without both, or with both at one point, has none and is left out.

    Args:
        predicted: (N, K, 2) pixels.
        truth: (N, K, 2) pixels, in the same frame.
        visible: (N, K), true where the keypoint is labelled.
        torso: numbers of the left shoulder and the right hip.
        threshold: in torso diameters; a distance equal to it counts as found.

    Returns:
        Percent of all labelled keypoints; NaN if nobody has a torso.

    Raises:
        ValueError: shapes that do not fit, or NaN.
    """
    distance, shown = _distances(predicted, truth, visible)
    shoulder, hip = torso
    diameter = np.linalg.norm(truth[:, shoulder].astype(np.float64) - truth[:, hip], axis=-1)
    shown = shown & (shown[:, shoulder] & shown[:, hip] & (diameter > 0))[:, None]
    if not shown.any():
        return np.nan
    return 100 * float((distance <= threshold * diameter[:, None])[shown].mean())


def end_point_error(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> float:
    """Mean distance between predicted and true joints, over all visible joints of all people.

    Args:
        predicted: (N, K, 2) pixels.
        truth: (N, K, 2) pixels.
        visible: (N, K), true where the joint is labelled.

    Returns:
        Pixels.

    Raises:
        ValueError: shapes that do not fit, NaN, or nothing visible.
    """
    distance, shown = _distances(predicted, truth, visible)
    if not shown.any():
        raise ValueError(f"none of the {shown.size} joints is visible")
    return float(distance[shown].mean())


def _distances(predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) pixels and (N, K) bool."""
    a, b = finite("predicted joints", predicted, 3), finite("true joints", truth, 3)
    same_shape(predicted=a, truth=b)
    if a.shape[-1] != 2:
        raise ValueError(f"joints have {a.shape[-1]} coordinates; expected x and y")
    shown = finite("visible flags", visible, 2) > 0
    if shown.shape != a.shape[:2]:
        raise ValueError(f"visible flags have shape {shown.shape}; expected {a.shape[:2]}")
    return np.linalg.norm(a.astype(np.float64) - b, axis=-1), shown


def _content(source: str | Path | T, kind: type[T]) -> T:
    """What a JSON file holds, or the object itself."""
    name, content = "the given object", source
    if isinstance(source, str | Path):
        name = str(source)
        with open(source, encoding="utf-8") as file:
            try:
                content = json.load(file)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{name} holds a {type(content).__name__}; expected a {kind.__name__} of COCO's format")
    return content


def _completed(truth: dict, use_area: bool) -> dict:
    """A copy of the annotations with every key pycocotools reads."""
    missing = [key for key in ("images", "annotations") if key not in truth]
    if missing:
        raise ValueError(f"the ground truth has no {missing}; its keys are {sorted(truth)}")
    people = []
    for number, person in enumerate(truth["annotations"], 1):  # pycocotools takes an annotation with id 0 for unmatched
        lacking = [key for key in ("image_id", "bbox", "keypoints") if key not in person]
        if lacking:
            raise ValueError(f"annotation {number} of the ground truth has no {lacking}; its keys are {sorted(person)}")
        person = {"iscrowd": 0, "category_id": 1} | person | {"id": number}
        person.setdefault("num_keypoints", sum(v > 0 for v in person["keypoints"][2::3]))
        if not use_area or "area" not in person:
            person["area"] = person["bbox"][2] * person["bbox"][3] * BOX_TO_BODY
        people.append(person)
    categories = truth.get("categories") or [{"id": i} for i in sorted({person["category_id"] for person in people})]
    return {"info": {}, "images": truth["images"], "annotations": people, "categories": categories}


def _checked(results: list[dict], truth: dict, images: set[int]) -> list[dict]:
    """Copies of the results with the keys of keypoint results alone: pycocotools would trust a box beside them."""
    categories = {category["id"] for category in truth["categories"]}
    copies = []
    for number, result in enumerate(results):
        try:
            copy = {key: result[key] for key in ("image_id", "category_id", "keypoints", "score")}
        except KeyError as error:
            raise ValueError(f"result {number} has no {error}; its keys are {sorted(result)}") from error
        if copy["image_id"] not in images:
            raise ValueError(f"result {number} is of image {copy['image_id']}, which the ground truth does not know")
        if copy["category_id"] not in categories:
            raise ValueError(f"result {number} has category {copy['category_id']}; known are {sorted(categories)}")
        copies.append(copy)
    if copies:
        finite("scores of the results", [copy["score"] for copy in copies], 1)
        finite("keypoints of the results", [copy["keypoints"] for copy in copies], 2)
    return copies
