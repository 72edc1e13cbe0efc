"""Labelled person crops per second and peak memory of the generator of people.

    python benchmarks/synthesis.py

Renders the PA-100K layout through ``generate``, as the tool does: bodies, clothes, picture, every label, files and
manifest.  Starting the processes and building the body model are not counted: the rate is that of a larger run minus
that of a smaller one.  Needs the extra ``synth``.
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


def seconds(crops: int, size: tuple[int, int], workers: int) -> tuple[int, float]:
    """Renders; returns the number of crops and the seconds it took."""
    counts = {"pa100k": [crops, 2, 2]}
    amount = replace(amounts(1, ["pa100k"], counts)["pa100k"], size=size)
    request = Request({"pa100k": amount}, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(Path(folder), request, workers=workers)
        return crops + 4, time.perf_counter() - start


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=200, help="of the larger run; the smaller has a fifth")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    size = (options.size[0], options.size[1])
    few, short = seconds(options.crops // 5, size, options.workers)
    many, long = seconds(options.crops, size, options.workers)
    # kilobytes on Linux, of the largest process
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{size[0]} x {size[1]} crops, {options.workers} processes")
    print(f"{(many - few) / (long - short):.1f} labelled crops/s ({many} in {long:.1f} s, {few} in {short:.1f} s)")
    print(f"peak memory of a process {peak:.0f} MB")


if __name__ == "__main__":
    main()
