"""Labelled person crops per second and peak memory of the generator of people.

    python benchmarks/synthesis.py

Renders through ``generate``, as the tool does: bodies, clothes, picture, every label, files and manifest; once
Market-1501, in which a person is dressed once for six crops, and once PA-100K, in which everybody is new.  Starting the
processes and building the body model are not counted: the rate is that of a larger run minus that of a smaller one.
Needs the extra ``synth``.
"""

import argparse
import logging
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from unihap.synth.amounts import amounts
from unihap.synth.generate import generate
from unihap.synth.request import Request

CASES = {"market1501": [100, 2], "pa100k": [500, 2, 2]}  # people of six crops, and crops; of train, val and test


def seconds(dataset: str, counts: list[int], size: tuple[int, int], workers: int) -> tuple[int, float]:
    """Renders; returns the number of crops and the seconds it took."""
    amount = replace(amounts(1, [dataset], {dataset: counts})[dataset], size=size)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        manifest = generate(Path(folder), Request({dataset: amount}, seed=1), workers=workers)
        took = time.perf_counter() - start
    return sum(name.endswith(".jpg") for name in manifest["files"]), took


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    size = (options.size[0], options.size[1])
    for dataset, counts in CASES.items():
        few, short = seconds(dataset, [counts[0] // 5, *counts[1:]], size, options.workers)
        many, long = seconds(dataset, counts, size, options.workers)
        print(
            f"{dataset}, {size[0]} x {size[1]}, {options.workers} processes: {(many - few) / (long - short):.1f} "
            f"labelled crops/s ({many} in {long:.1f} s, {few} in {short:.1f} s)"
        )
    # kilobytes on Linux, of the largest process
    print(f"peak memory of a process {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
