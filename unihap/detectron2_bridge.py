"""What users of detectron2 get: datasets in its catalogues, results as its ``Instances``, its detectors for our tasks.

detectron2 is the extra ``unihap[detectron2]``; it is imported when a function needs it.

Frames: boxes are (x1, y1, x2, y2) between pixels in both.  A position names the centre of the first pixel (0, 0) here
and (0.5, 0.5) in detectron2, so keypoints move by half a pixel on their way.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import masks_to_boxes

from unihap.data.catalog import DATASETS, load_dataset
from unihap.data.images import read_image
from unihap.data.label_maps import IGNORED
from unihap.data.people import PeopleRecords
from unihap.data.standard_dicts import Dict, dataset_dicts
from unihap.engine.checkpoint import write_atomically
from unihap.lookup import lookup
from unihap.structures import Dataset
from unihap.tasks.task import Result
from unihap.visualize.draw import class_colours, limbs, side_colour

PERSON = 1  # COCO's category


def _detectron2(module: str) -> Any:
    """A module of detectron2.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(f"detectron2.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "detectron2":
            raise
        raise ImportError('this needs detectron2; install it with: pip install "unihap[detectron2]"') from None


# datasets


def register_datasets(root: Path | None = None) -> list[str]:
    """Registers every dataset in ``DatasetCatalog``; nothing is read before detectron2 asks for it.

    What a dataset's classes are is in its files, so, as with ``register_coco_instances``, its entry of
    ``MetadataCatalog`` is filled when ``DatasetCatalog.get`` has read them.  Registering again changes the root.

    Args:
        root: datasets root; ``$UNIHAP_DATASETS`` (or ``$DETECTRON2_DATASETS``) at the time of reading by default.

    Returns:
        The registered names.

    Raises:
        ImportError: detectron2 is not installed.
        ValueError: somebody else has registered one of the names.
    """
    data = _detectron2("data")
    catalog, metadata = data.DatasetCatalog, data.MetadataCatalog
    ours = [name for name in DATASETS if name in catalog and getattr(catalog[name], "func", None) is _load]
    foreign = [name for name in DATASETS if name in catalog and name not in ours]
    if foreign:
        raise ValueError(
            f"detectron2's DatasetCatalog already has {', '.join(foreign)}; DatasetCatalog.remove them first"
        )
    for name in ours:
        catalog.remove(name)
        if name in metadata:
            metadata.remove(name)
    for name in DATASETS:
        catalog.register(name, partial(_load, name, root))
    return list(DATASETS)


def _load(name: str, root: Path | None) -> list[Dict]:
    """Reads a dataset and fills its metadata."""
    dataset = load_dataset(name, root)
    _detectron2("data").MetadataCatalog.get(name).set(**dataset_metadata(dataset))
    dicts = dataset_dicts(dataset)
    box_mode = _detectron2("structures").BoxMode.XYXY_ABS  # its converter asks for more than the number
    for annotation in (annotation for entry in dicts for annotation in entry.get("annotations", ())):
        annotation["bbox_mode"] = box_mode
    return dicts


def dataset_metadata(dataset: Dataset) -> Dict:
    """What ``MetadataCatalog`` holds about a dataset; needs no detectron2."""
    return lookup(_METADATA, dataset.kind, "kind of dataset")(dataset)


def _person_metadata(dataset: Dataset) -> Dict:
    metadata: Dict = {"thing_classes": ["person"], "thing_colors": list(class_colours(1))}
    if dataset.annotation.endswith(".json"):  # COCO's format, which its evaluation reads itself
        metadata |= {"json_file": dataset.annotation, "thing_dataset_id_to_contiguous_id": {PERSON: 0}}
    return metadata


def _pose_metadata(dataset: Dataset) -> Dict:
    names = dataset.classes
    rules = [(names[a], names[b], side_colour(names[a], names[b])) for a, b in limbs(names)]
    return _person_metadata(dataset) | {
        "keypoint_names": list(names),
        "keypoint_flip_map": [(names[left], names[right]) for left, right in dataset.mirror],
        "keypoint_connection_rules": rules,
        "keypoint_oks_sigmas": list(dataset.sigmas),
    }


def _parsing_metadata(dataset: Dataset) -> Dict:
    return {
        "stuff_classes": list(dataset.classes),
        "stuff_colors": list(class_colours(len(dataset.classes))),
        "ignore_label": IGNORED,
        "read_label_map": dataset.read_label_map,
    }


_METADATA: Mapping[str, Callable[[Dataset], Dict]] = {
    "pose": _pose_metadata,
    "parsing": _parsing_metadata,
    "detection": _person_metadata,
    "attributes": lambda dataset: {"attribute_classes": list(dataset.classes)},
    "reid": lambda dataset: {},
    "unlabelled": lambda dataset: {},
}


# results


def to_instances(
    result: Result, kind: str, image_size: tuple[int, int] | None = None, box: np.ndarray | None = None
) -> Any:
    """One result as ``detectron2.structures.Instances``; ``Instances.cat`` puts the people of an image together.

    Args:
        result: of a task of that kind, in source-image pixels.
        kind: pose, parsing or detection; see ``instance_fields``.
        image_size: (height, width) of the image; only pose results do not know it.
        box: (4,) xyxy, the person box of a pose result.

    Raises:
        ImportError: detectron2 is not installed.
        ValueError: another kind, or a pose result without ``image_size``.
    """
    structures = _detectron2("structures")
    fields = instance_fields(result, kind, box)
    known = {"detection": result.get("size"), "parsing": np.shape(result.get("label_map", ()))}
    size = known.get(kind, image_size)
    if size is None:
        raise ValueError("a pose result does not know its image; give image_size=(height, width)")
    fields["pred_boxes"] = structures.Boxes(fields["pred_boxes"])
    return structures.Instances((int(size[0]), int(size[1])), **fields)


def instance_fields(result: Result, kind: str, box: np.ndarray | None = None) -> dict[str, Any]:
    """The fields of ``to_instances`` as tensors, in detectron2's frame; needs no detectron2.

    All have ``pred_boxes`` (N, 4), ``scores`` (N,) and ``pred_classes`` (N,).  Detection: every box, class 0.  Pose:
    N = 1, the score is the mean peak, ``pred_keypoints`` (1, K, 3) and ``keypoint_probability`` (1, K); without
    ``box`` the rectangle around the keypoints.  Parsing: one instance per occurring class but the background, with
    ``pred_masks`` (N, H, W) and score 1.

    Raises:
        ValueError: a kind that says nothing about places in an image.
    """
    return lookup(_FIELDS, kind, "kind with instances")(result, box)


def _fields(boxes: Any, scores: Any, classes: Any, **rest: Any) -> dict[str, Any]:
    return {
        "pred_boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.as_tensor(scores, dtype=torch.float32),
        "pred_classes": torch.as_tensor(classes, dtype=torch.int64),
        **rest,
    }


def _detection_fields(result: Result, box: np.ndarray | None) -> dict[str, Any]:
    return _fields(result["boxes"], result["scores"], np.zeros(len(result["scores"])))


def _pose_fields(result: Result, box: np.ndarray | None) -> dict[str, Any]:
    keypoints = torch.as_tensor(result["keypoints"], dtype=torch.float32) + torch.tensor([0.5, 0.5, 0])
    place = torch.cat([keypoints[:, :2].amin(0), keypoints[:, :2].amax(0)]) if box is None else box
    probability = torch.as_tensor(result["probability"], dtype=torch.float32)
    mean = keypoints[:, 2].mean()[None]
    return _fields(place, mean, [0], pred_keypoints=keypoints[None], keypoint_probability=probability[None])


def _parsing_fields(result: Result, box: np.ndarray | None) -> dict[str, Any]:
    label_map = torch.as_tensor(result["label_map"])
    numbers = [n for n in label_map.unique().tolist() if n not in (0, IGNORED)]
    masks = label_map == torch.tensor(numbers, dtype=label_map.dtype)[:, None, None]
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])  # from the last pixel to its far edge
    return _fields(boxes, torch.ones(len(numbers)), numbers, pred_masks=masks)


_FIELDS: Mapping[str, Callable[[Result, np.ndarray | None], dict[str, Any]]] = {
    "detection": _detection_fields,
    "pose": _pose_fields,
    "parsing": _parsing_fields,
}


def from_instances(instances: Any, kind: str, person_class: int = 0) -> list[Result]:
    """``Instances`` of one image, of detectron2's models or of ``to_instances``, as results.

    Args:
        instances: predictions.
        kind: detection (one result, best box first), pose (one result per person) or parsing (one result; the
            classes are those of a parsing task, a surer mask lies on top).
        person_class: number of the class person, for detection and pose; other objects are left out.

    Raises:
        ValueError: another kind, or fields that the kind needs are missing.
    """
    needed = lookup(_NEEDED, kind, "kind with instances")
    missing = [name for name in needed if not instances.has(name)]
    if missing:
        raise ValueError(f"{kind} results need the fields {', '.join(needed)}; these Instances lack {missing}")
    instances = instances.to("cpu")
    if kind != "parsing" and instances.has("pred_classes"):
        instances = instances[instances.pred_classes == person_class]
    return _RESULTS[kind](instances)


def _detection_results(instances: Any) -> list[Result]:
    scores = instances.scores.numpy()
    order = np.argsort(-scores, kind="stable")
    boxes = instances.pred_boxes.tensor.double().numpy()
    return [{"boxes": boxes[order], "scores": scores[order], "size": tuple(instances.image_size)}]


def _pose_results(instances: Any) -> list[Result]:
    keypoints = instances.pred_keypoints.double() - torch.tensor([0.5, 0.5, 0])
    known = instances.has("keypoint_probability")
    probability = instances.keypoint_probability if known else keypoints[..., 2].clamp(0, 1)
    return [{"keypoints": k.numpy(), "probability": p.numpy()} for k, p in zip(keypoints, probability, strict=True)]


def _parsing_results(instances: Any) -> list[Result]:
    label_map = np.zeros(instances.image_size, dtype=np.uint8)
    for i in instances.scores.argsort(stable=True).tolist():
        label_map[instances.pred_masks[i].numpy().astype(bool)] = int(instances.pred_classes[i])
    return [{"label_map": label_map}]


_NEEDED: Mapping[str, Sequence[str]] = {
    "detection": ("pred_boxes", "scores"),
    "pose": ("pred_keypoints",),
    "parsing": ("pred_masks", "scores", "pred_classes"),
}
_RESULTS: Mapping[str, Callable[[Any], list[Result]]] = {
    "detection": _detection_results,
    "pose": _pose_results,
    "parsing": _parsing_results,
}


# detectors


def person_boxes(
    predictor: Callable[[np.ndarray], Dict], image: np.ndarray, threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """The people that a detector of detectron2 finds, as boxes for top-down tasks.

    Args:
        predictor: a ``DefaultPredictor``, or anything that takes a BGR image and returns ``{"instances": ...}``.
        image: (H, W, 3) uint8 RGB.
        threshold: lowest score.

    Returns:
        (N, 4) xyxy pixels and (N,) scores, best first.

    Raises:
        ValueError: a detector of other things than people.
    """
    metadata = getattr(predictor, "metadata", None)
    classes = list(getattr(metadata, "thing_classes", ["person"]))
    if "person" not in classes:
        raise ValueError(f"the detector finds {', '.join(classes[:5])} ... but no class called person")
    instances = predictor(np.ascontiguousarray(image[..., ::-1]))["instances"]
    (result,) = from_instances(instances, "detection", classes.index("person"))
    sure = result["scores"] >= threshold
    return result["boxes"][sure], result["scores"][sure]


def write_person_boxes(
    predictor: Callable[[np.ndarray], Dict], dataset: Dataset, path: Path, threshold: float = 0.05
) -> None:
    """Detects the people in every image of a pose dataset and writes the file that pose evaluation takes boxes from.

    The file is a list in COCO's results format, as ``unihap.data.pose.with_detector_boxes`` reads it.

    Raises:
        ValueError: a dataset whose images are not known, or an unreadable image.
    """
    if not isinstance(dataset.records, PeopleRecords):
        raise ValueError(f"{dataset.name} is no dataset of people in images; its kind is {dataset.kind}")
    images = dataset.records.images
    entries = []
    for row, image_id in enumerate(images.ids.tolist()):
        boxes, scores = person_boxes(predictor, read_image(images.path(row)), threshold)
        for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            entries.append({"image_id": image_id, "category_id": PERSON, "bbox": box, "score": score})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(entries))
