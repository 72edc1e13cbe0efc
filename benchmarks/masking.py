"""Masks of HAP per second on one core, on random people.

    python benchmarks/masking.py

The first line is what training draws: part-guided, in blocks, 16 x 8 patches, ratio 0.5; at least 2,000 a second are
wanted, so that a data worker never waits for its masks.
"""

import argparse
import statistics
import time

import numpy as np

from unihap.pretrain.part_masking import Masking

CASES = {
    "part, block, 16 x 8, 0.5": Masking(),
    "none, block, 16 x 8, 0.5": Masking(guidance="none"),
    "keypoint, block, 16 x 8, 0.5": Masking(guidance="keypoint"),
    "part, random, 16 x 8, 0.5": Masking(sampler="random"),
    "part, block, release, 16 x 8, 0.5": Masking(compat="release"),
    "part, block, 14 x 14, 0.75": Masking(grid=(14, 14), ratio=0.75),
    "part, block, 24 x 12, 0.75": Masking(grid=(24, 12), ratio=0.75),
}

# A standing person: x and y as fractions of the picture's width and height.
STANDING = np.array(
    [
        *[(0.48, 0.09), (0.53, 0.08), (0.43, 0.08), (0.57, 0.09), (0.40, 0.09)],
        *[(0.68, 0.20), (0.32, 0.20), (0.74, 0.35), (0.26, 0.35), (0.77, 0.50), (0.23, 0.50)],
        *[(0.59, 0.52), (0.43, 0.52), (0.62, 0.71), (0.38, 0.71), (0.64, 0.91), (0.36, 0.91)],
    ]
)


def random_people(num: int, masking: Masking, rng: np.random.Generator) -> list[np.ndarray]:
    """(17, 3) keypoints each: other sizes, places and poses, some joints outside the picture or missing."""
    size = np.array([masking.grid[1], masking.grid[0]]) * masking.patch
    people = np.ones((num, 17, 3))
    pose = STANDING - 0.5 + rng.normal(0, 0.08, size=(num, 17, 2))
    people[..., :2] = (pose * rng.uniform(0.6, 1.2, size=(num, 1, 1)) + 0.5) * size
    people[rng.random((num, 17)) < 0.1] = -1
    return list(people)


def main() -> None:
    """Prints a table, one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=2000, help="masks of a round")
    parser.add_argument("--rounds", type=int, default=5, help="the median round counts")
    options = parser.parse_args()
    print(f"{'guidance, sampler, grid, ratio':<36} {'masks/s/core':>12}")
    for name, masking in CASES.items():
        rng = np.random.default_rng(0)
        rates = []
        for _ in range(options.rounds):
            people = random_people(options.masks, masking, rng)
            start = time.process_time()  # of this process alone: others may use the cores too
            for keypoints in people:
                masking.draw(keypoints, rng)
            rates.append(options.masks / (time.process_time() - start))
        print(f"{name:<36} {statistics.median(rates):>12.0f}")


if __name__ == "__main__":
    main()
