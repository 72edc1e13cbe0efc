#!/usr/bin/env python
"""Time and memory of every kind of task against a bare ViT encoder of the same tokens, in one interleaved run.

    python benchmarks/model.py                    # every kind, forward and training step
    python benchmarks/model.py pose --rounds 9    # one kind, more rounds

Both sides run ViT-B in float32 on the same images with the same allocator settings.  The bare encoder is timm's own
VisionTransformer; its training step is forward and backward of the sum of its output.  Ours is the whole model with
loss, without activation checkpointing.  Peak memory is that of a process that does one thing only.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from unihap.build import build_task
from unihap.config import get_cfg
from unihap.engine.allocator import keep_heap
from unihap.engine.train import TaskLoss
from unihap.models.private import Private
from unihap.models.unihap import Architecture, UniHAP
from unihap.structures import Batch, Target
from unihap.tasks import Statistics, Task

# Real input sizes of the release: task, batch, height, width, targets of the forward and of the training ratio.
CASES = {
    "reid": ("general_reid", 4, 256, 128, 1.10),
    "attributes": ("pa100k_attributes", 4, 256, 192, 1.10),
    "pose": ("coco_pose", 4, 256, 192, 1.22),
    "parsing": ("lip_parsing", 4, 480, 480, 1.20),
    "detection": ("pedestrian_detection", 1, 800, 1088, 1.20),
}
TRAIN_TARGET = 1.30


def make_target(task: Task, batch: int, height: int, width: int) -> Target:
    """A plausible made-up truth: 16 people per image in detection, 12 classes per image in parsing."""
    random = torch.Generator().manual_seed(0)
    queries = task.spec.num_queries
    if task.kind == "reid":
        return Target(identity=torch.arange(batch) // 2)
    if task.kind == "attributes":
        return Target(probability=torch.randint(0, 2, (batch, queries), generator=random).float())
    if task.kind == "pose":
        maps = torch.rand(batch, queries, height // 4, width // 4, generator=random)
        return Target(heatmap=maps, heatmap_weight=torch.ones(batch, queries))
    if task.kind == "parsing":
        blocks = torch.randint(0, 12, (batch, height // 40, width // 40), generator=random, dtype=torch.uint8)
        return Target(label_map=blocks.repeat_interleave(40, 1).repeat_interleave(40, 2))
    boxes = [torch.rand(16, 4, generator=random) * 0.2 + 0.1 for _ in range(batch)]
    return Target(box=boxes, ignore_box=[torch.zeros(0, 4) for _ in range(batch)])


class Case:
    """The four things that are compared for one kind of task."""

    def __init__(self, kind: str) -> None:
        name, batch, height, width, _ = CASES[kind]
        torch.manual_seed(0)
        task = build_task(get_cfg(), name)
        self.model: UniHAP = Architecture(drop_path=0.0).make([task.spec])
        known = Statistics(torch.full((task.spec.num_queries,), 0.3), num_identities=751)
        private = self.model.private[name]
        assert isinstance(private, Private)
        self.loss = TaskLoss(private, task.criterion(known, 256), None, checkpoint_activations=False)
        self.name = name
        self.images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        self.items = 16.0 if kind == "detection" else 12.0 * batch
        self.batch = Batch(
            name, self.images, None, make_target(task, batch, height, width), [], np.zeros((batch, 2, 3)), []
        )
        self.encoder = VisionTransformer(
            img_size=(height, width), class_token=False, global_pool="", num_classes=0, drop_path_rate=0.0
        )
        self.floats = (self.images.float() - 120) / 58

    def encoder_forward(self) -> None:
        """The bare encoder, evaluating."""
        self.encoder.eval()
        with torch.inference_mode():
            self.encoder(self.floats)

    def model_forward(self) -> None:
        """The whole model, evaluating."""
        self.model.eval()
        with torch.inference_mode():
            self.model(self.images, self.name)

    def encoder_step(self) -> None:
        """The bare encoder, forward and backward."""
        self.encoder.train()
        self.encoder.zero_grad(set_to_none=True)
        self.encoder(self.floats).sum().backward()

    def model_step(self) -> None:
        """The whole model and its loss, forward and backward."""
        self.model.train()
        nn.Module.zero_grad(self.model, set_to_none=True)
        terms = self.loss(self.model.shared, self.batch, self.items)
        torch.stack([term.sum() for term in terms.values()]).sum().backward()


def time_in_turn(a: Callable[[], None], b: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Medians of both, and the median of the paired ratios b / a, after one warm-up each."""
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for which, function in enumerate((a, b)):
            start = time.perf_counter()
            function()
            if turn:
                times[which].append(time.perf_counter() - start)
    ratios = [y / x for x, y in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


def peak_mb(kind: str, what: str) -> float:
    """Peak memory of a fresh process that does one thing twice."""
    code = subprocess.run([sys.executable, __file__, "--alone", kind, what], capture_output=True, text=True, check=True)
    return float(json.loads(code.stdout.splitlines()[-1]))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after one warm-up")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory of single processes")
    parser.add_argument("--alone", nargs=2, metavar=("KIND", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kept = keep_heap()
    if arguments.alone:
        case = Case(arguments.alone[0])
        for _ in range(2):
            getattr(case, arguments.alone[1])()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, heap kept: {kept}, {arguments.rounds} rounds")
    print(
        f"{'kind':<11} {'what':<8} {'encoder s':>9} {'model s':>8} {'ratio':>6} {'target':>6} {'peak MB enc/model':>18}"
    )
    for kind in arguments.kinds:
        case = Case(kind)
        for what, a, b, target in (
            ("forward", "encoder_forward", "model_forward", CASES[kind][4]),
            ("train", "encoder_step", "model_step", TRAIN_TARGET),
        ):
            first, second, ratio = time_in_turn(getattr(case, a), getattr(case, b), arguments.rounds)
            memory = "" if arguments.no_memory else f"{peak_mb(kind, a):.0f} / {peak_mb(kind, b):.0f}"
            print(
                f"{kind:<11} {what:<8} {first:>9.3f} {second:>8.3f} {ratio:>6.3f} {target:>6.2f} {memory:>18}",
                flush=True,
            )


if __name__ == "__main__":
    main()
