"""Seconds and peak memory of the two large metrics, on made-up data of realistic size.

    python benchmarks/metrics.py

Each case runs in a process of its own, so that the peak is its own; the peak includes the inputs and the imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from unihap.evaluation.detection import crowd_metrics_of
from unihap.evaluation.reid import ranking_metrics


def market() -> tuple:
    """Arguments of ``ranking_metrics``: 3368 queries, 15913 gallery images, 750 people, 6 cameras, 1536 dimensions."""
    rng = np.random.default_rng(0)
    person = rng.normal(size=(751, 1536)).astype(np.float32)

    def side(count: int, lowest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = rng.integers(lowest, 751, size=count)  # 0 = distractors
        features = person[ids] + 3 * rng.standard_normal((count, 1536), dtype=np.float32)
        return features, ids, rng.integers(1, 7, size=count)

    return *side(3368, 1), *side(15913, 0)


def crowd(num_images: int = 4370, num_boxes: int = 500) -> tuple[list[dict], list[dict]]:
    """Arguments of ``crowd_metrics_of``: CrowdHuman's validation images with 23 people and 2 ignore regions each."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for number in range(num_images):
        centre, height = rng.uniform((0, 200), (1400, 700), size=(25, 2)), rng.uniform(60, 400, size=25)
        people = np.column_stack([centre[:, 0] - height / 5, centre[:, 1] - height / 2, height / 2.5, height])
        copies = people[rng.integers(0, 23, size=num_boxes)]
        boxes = copies + rng.normal(0, 0.1, size=copies.shape) * copies[:, 2:3]
        boxes[:, 2:] = np.abs(boxes[:, 2:])
        scores = rng.beta(0.5, 3, size=num_boxes)
        gtboxes = [
            {"tag": "person" if i < 23 else "mask", "fbox": box, "extra": {"ignore": int(i >= 23)}}
            for i, box in enumerate(people.tolist())
        ]
        dtboxes = [{"box": b, "score": s} for b, s in zip(boxes.tolist(), scores.tolist(), strict=True)]
        truth.append({"ID": str(number), "width": 1400, "height": 800, "gtboxes": gtboxes})
        found.append({"ID": str(number), "dtboxes": dtboxes})
    return truth, found


CASES: dict[str, tuple[Callable[[], tuple], Callable[..., dict]]] = {
    "ranking_metrics 3368 x 15913 x 1536": (market, ranking_metrics),
    "crowd_metrics_of 4370 x 500": (crowd, crowd_metrics_of),
}


def measure(case: str) -> dict[str, float]:
    """Runs one case in this process."""
    make, metric = CASES[case]
    arguments = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    metric(*arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "inputs_mb": before / 1024, "peak_mb": peak / 1024}


def main() -> None:
    """Prints a table, one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="measure this case in this process and print JSON")
    case = parser.parse_args().case
    if case:
        print(json.dumps(measure(case)))
        return
    print(f"{'metric':40} {'seconds':>8} {'inputs MB':>10} {'peak MB':>8}")
    for name in CASES:
        command = [sys.executable, __file__, "--case", name]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:40} {result['seconds']:8.1f} {result['inputs_mb']:10.0f} {result['peak_mb']:8.0f}")


if __name__ == "__main__":
    main()
