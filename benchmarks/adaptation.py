#!/usr/bin/env python
"""Memory and time of prompt tuning against full fine-tuning on the same batch, in one interleaved run.

    python benchmarks/adaptation.py               # pose, ViT-B
    python benchmarks/adaptation.py parsing --encoder vit_small_patch16 --rounds 9

A step is forward, loss, backward and AdamW's update, with the parts frozen as ``TRAIN.MODE`` finetune and prompt freeze
them.  Peak memory is that of a process that takes two steps of one kind and nothing else.
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

import numpy as np
import torch
from model import CASES, make_target

from unihap.build import build_task
from unihap.config import get_cfg
from unihap.engine.allocator import keep_heap
from unihap.engine.optimizer import build_optimizer, parameter_groups
from unihap.engine.parts import SHARED_PARTS, freeze, set_modes
from unihap.engine.train import TaskLoss
from unihap.models.private import Private
from unihap.models.unihap import Architecture
from unihap.structures import Batch
from unihap.tasks import Statistics

# What is frozen, and the lengths of the prompts in decoder and encoder.
WAYS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "full fine-tuning": ((), 0, 0),
    "prompt: queries": (SHARED_PARTS, 0, 0),
    "prompt: deep, decoder": (SHARED_PARTS, 16, 0),
    "prompt: deep, both": (SHARED_PARTS, 16, 16),
}
MEMORY_TARGET, TIME_TARGET = 0.6, 0.7


class Steps:
    """Training steps of one way to adapt.

    Args:
        way: a key of ``WAYS``.
        kind: a key of ``CASES``.
        encoder: name of the encoder.
    """

    def __init__(self, way: str, kind: str, encoder: str) -> None:
        frozen, decoder_prompts, encoder_prompts = WAYS[way]
        name, batch, height, width, _ = CASES[kind]
        torch.manual_seed(0)
        task = build_task(get_cfg(), name)
        architecture = Architecture(encoder, decoder_prompts=decoder_prompts, encoder_prompts=encoder_prompts)
        self.model = architecture.make([task.spec])
        freeze(self.model, frozen)
        set_modes(self.model)
        private = self.model.private[name]
        assert isinstance(private, Private)
        known = Statistics(torch.full((task.spec.num_queries,), 0.3), num_identities=751)
        self.loss = TaskLoss(private, task.criterion(known, architecture.width), None, checkpoint_activations=False)
        named = [
            *self.model.shared.named_parameters(prefix="shared"),
            *private.named_parameters(prefix=f"private.{name}"),
        ]
        groups = parameter_groups(named, self.model.shared.encoder, weight_decay=0.05, layer_decay=0.75)
        self.optimizer = build_optimizer("adamw", groups, lr=1e-4, beta1=0.9, beta2=0.999)
        self.items = 16.0 if kind == "detection" else 12.0 * batch
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        target = make_target(task, batch, height, width)
        self.batch = Batch(name, images, None, target, [], np.zeros((batch, 2, 3)), [])

    @property
    def num_trained(self) -> int:
        """Parameters that train, without the criterion's."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def step(self) -> float:
        """One step; returns its seconds."""
        start = time.perf_counter()
        terms = self.loss(self.model.shared, self.batch, self.items)
        torch.stack([term.sum() for term in terms.values()]).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def peak_mb(way: str, kind: str, encoder: str) -> float:
    """Peak memory of a fresh process that takes two steps."""
    words = [sys.executable, __file__, kind, "--encoder", encoder, "--alone", way]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", default="pose", choices=list(CASES), help="kind of task")
    parser.add_argument("--encoder", default="vit_base_patch16", help="name of the encoder")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after one warm-up")
    parser.add_argument("--alone", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_heap()
    if arguments.alone:
        steps = Steps(arguments.alone, arguments.kind, arguments.encoder)
        for _ in range(2):
            steps.step()
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))
        return
    memory = {way: peak_mb(way, arguments.kind, arguments.encoder) for way in WAYS}
    ways = {way: Steps(way, arguments.kind, arguments.encoder) for way in WAYS}
    rounds = [{way: steps.step() for way, steps in ways.items()} for _ in range(arguments.rounds + 1)][1:]
    base = next(iter(WAYS))
    shape = " x ".join(map(str, CASES[arguments.kind][1:4]))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.encoder}, {arguments.kind} {shape}"
    )
    print(f"targets of prompt tuning: memory {MEMORY_TARGET}, time {TIME_TARGET} of {base}")
    print(f"{'way':<22} {'trained':>12} {'peak MB':>8} {'ratio':>6} {'step s':>7} {'ratio':>6}")
    for way, steps in ways.items():
        seconds = statistics.median(r[way] for r in rounds)
        ratio = statistics.median(r[way] / r[base] for r in rounds)
        print(
            f"{way:<22} {steps.num_trained:>12,} {memory[way]:>8.0f} {memory[way] / memory[base]:>6.2f} "
            f"{seconds:>7.2f} {ratio:>6.2f}"
        )


if __name__ == "__main__":
    main()
