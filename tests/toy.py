"""Toy datasets for every kind of task, drawn into the official layouts of the real ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import scipy.io


def person(rng: np.random.Generator, height: int, width: int, colour) -> np.ndarray:
    """A figure of one colour on noise."""
    image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    image[height // 6 : -height // 8, width // 4 : -width // 4] = colour
    return image


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def make(root: Path) -> Path:
    """Market-1501, PA-100K, COCO keypoints, LIP and CrowdHuman with a dozen images each."""
    rng = np.random.default_rng(0)
    market, colours = root / "Market-1501-v15.09.15", rng.integers(120, 255, (8, 3))
    for identity in range(8):
        for camera in (1, 2):
            for frame in range(2):
                name = f"{identity + 1:04d}_c{camera}s1_{frame:06d}_00.jpg"
                image = person(rng, 64, 32, colours[identity])
                if identity < 4:
                    write(market / "bounding_box_train" / name, image)
                else:
                    write(market / ("query" if frame == 0 else "bounding_box_test") / name, image)

    names, labels = [], rng.integers(0, 2, (12, 26))
    for number in range(12):
        names.append(f"{number:06d}.jpg")
        write(root / "PA-100K" / "data" / names[-1], person(rng, 64, 48, 200 * labels[number, :3] + 50))
    content = {"attributes": np.array([[f"attribute {i}"] for i in range(26)], dtype=object)}
    for split, part in (("train", slice(0, 6)), ("val", slice(6, 8)), ("test", slice(8, 12))):
        content[f"{split}_images_name"] = np.array([[name] for name in names[part]], dtype=object)
        content[f"{split}_label"] = labels[part].astype(np.uint8)
    scipy.io.savemat(root / "PA-100K" / "annotation.mat", content)

    for split in ("train", "val"):
        images, annotations = [], []
        for number in range(1, 7):
            name = f"{number:012d}.jpg"
            write(root / "coco" / f"{split}2017" / name, person(rng, 80, 80, (200, 180, 90)))
            keypoints = np.column_stack([rng.uniform(20, 60, 17), rng.uniform(10, 70, 17), np.full(17, 2)])
            images.append({"id": number, "file_name": name, "height": 80, "width": 80})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [18, 8, 44, 64],
                    "area": 2000,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "keypoints": keypoints.round(1).ravel().tolist(),
                }
            )
        path = root / "coco" / "annotations" / f"person_keypoints_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        category = {"id": 1, "name": "person", "keypoints": [f"k{i}" for i in range(17)], "skeleton": []}
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))

    for split in ("train", "val"):
        ids = [f"{number}_{split}" for number in range(5)]
        for name in ids:
            write(
                root / "LIP" / "TrainVal_images" / f"{split}_images" / f"{name}.jpg", person(rng, 72, 56, (90, 200, 90))
            )
            label = np.zeros((72, 56), np.uint8)
            label[12:40, 14:42], label[40:60, 14:42] = 5, 9
            write(root / "LIP" / "TrainVal_parsing_annotations" / f"{split}_segmentations" / f"{name}.png", label)
        (root / "LIP" / "TrainVal_images" / f"{split}_id.txt").write_text("".join(f"{name}\n" for name in ids))

    for split in ("train", "val"):
        lines = []
        for number in range(6):
            name = f"{split}{number}"
            write(root / "CrowdHuman" / "Images" / f"{name}.jpg", person(rng, 60, 90, (60, 60, 220)))
            boxes = [] if number == 1 else [{"tag": "person", "fbox": [22, 10, 45, 42], "extra": {}}]
            if number == 2:
                boxes.append({"tag": "mask", "fbox": [0, 0, 20, 20], "extra": {"ignore": 1}})
            lines.append(json.dumps({"ID": name, "gtboxes": boxes}))
        (root / "CrowdHuman" / f"annotation_{split}.odgt").write_text("\n".join(lines) + "\n")
    return root


CONFIG = """
MODEL:
  ENCODER: {NAME: vit_pico_patch16, POSITION_GRID: [8, 8], DROP_PATH: 0.1}
  DECODER: {WIDTH: 32, HEADS: 2, LAYERS: 2, FEEDFORWARD: 32}
  NUM_ANCHORS: 6
  NUM_PATTERNS: 2
TRAIN:
  TASKS: [general_reid, pa100k_attributes, coco_pose, lip_parsing, pedestrian_detection]
  CHECKPOINT_PERIOD: 5
  LOG_PERIOD: 1
TASKS:
  general_reid:
    {TRAIN: [market1501_train], TEST: [market1501_test], BATCH_SIZE: 4, IMAGES_PER_PERSON: 2, INPUT_SIZE: [64, 32]}
  pa100k_attributes: {BATCH_SIZE: 2, INPUT_SIZE: [64, 48]}
  coco_pose: {BATCH_SIZE: 2, INPUT_SIZE: [64, 48]}
  lip_parsing: {BATCH_SIZE: 1, INPUT_SIZE: [64, 64]}
  pedestrian_detection: {BATCH_SIZE: 1, INPUT_SIZE: [48, 96]}
LOSS: {PARSING: {NUM_POINTS: 64}}
SOLVER: {OPTIMIZER: adamw, MAX_ITERATIONS: 20, WARMUP_ITERATIONS: 2}
DATA: {NUM_WORKERS: 0}
TEST: {VISUALIZE: 0}
"""
