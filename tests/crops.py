"""A folder of toy person crops with keypoints, and a config that pre-trains a tiny encoder on it."""

from pathlib import Path

import cv2
import numpy as np

from unihap.data.keypoint_index import make_index, write_index

# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles of somebody who stands upright, as fractions.
STANDING = [
    (0.5, 0.1), (0.54, 0.08), (0.46, 0.08), (0.58, 0.1), (0.42, 0.1), (0.68, 0.22), (0.32, 0.22), (0.74, 0.38),
    (0.26, 0.38), (0.72, 0.52), (0.28, 0.52), (0.62, 0.52), (0.38, 0.52), (0.62, 0.72), (0.38, 0.72), (0.62, 0.92),
    (0.38, 0.92),
]  # fmt: skip


def make(folder: Path, number: int = 12) -> Path:
    """Striped figures on noise; the last one has no keypoints."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    names = [f"{i:03d}.png" for i in range(number)]
    keypoints = []
    for name in names:
        image = rng.integers(0, 120, (80, 40, 3), dtype=np.uint8)
        image[8:72:2, 10:30] = rng.integers(120, 255, 3)
        assert cv2.imwrite(str(folder / name), image)
        points = np.array(STANDING) * (40, 80) + rng.normal(0, 1, (17, 2))
        keypoints.append(np.column_stack([points, np.ones(17)]).astype(np.float32))
    write_index(folder / "keypoints.npz", make_index(names, [*keypoints[:-1], None], source="drawn"))
    return folder


CONFIG = """
MODEL: {ENCODER: {NAME: vit_pico_patch16, DROP_PATH: 0.1}}
TRAIN: {MODE: pretrain, PRECISION: float32, LOG_PERIOD: 1, CHECKPOINT_PERIOD: 2}
PRETRAIN:
  INPUT_SIZE: [64, 32]
  BATCH_SIZE: 2
  ACCUMULATE: 2
  EPOCHS: 2
  WARMUP_EPOCHS: 0.5
  BLR: 0.05
  DECODER: {WIDTH: 16, LAYERS: 1, HEADS: 2}
  CAE: {REGRESSOR_LAYERS: 1, DECODER_LAYERS: 1, TOKENIZER: kmeans, VOCABULARY: 5}
DATA: {NUM_WORKERS: 0}
"""
