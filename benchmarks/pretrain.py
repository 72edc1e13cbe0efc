#!/usr/bin/env python
"""Time of one HAP pre-training step against a bare ViT of the same tokens, in one interleaved run.

    python benchmarks/pretrain.py
    python benchmarks/pretrain.py --rounds 9 --batch 8
    python benchmarks/pretrain.py --precision bfloat16

Both sides run ViT-B on the same crops with the same allocator settings and matrix products of the same precision.  The
bare one is timm's VisionTransformer with its class token (129 tokens), forward and backward of the sum of its output.
Ours is the whole step: two masked views of every crop, reconstruction and alignment, forward and backward.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unihap.engine.allocator import keep_heap
from unihap.models.encoder import Encoder
from unihap.pretrain.alignment import Alignment
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder

GRID = (16, 8)
TARGET = 1.45


class Case:
    """The two things that are compared."""

    def __init__(self, batch: int, precision: str) -> None:
        self.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bfloat16")
        random = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (batch, 3, 256, 128), dtype=torch.uint8, generator=random)
        self.floats = (self.images.float() - 120) / 58
        self.masks = torch.rand(batch, 2, *GRID, generator=random).flatten(2).argsort(2).lt(64).unflatten(2, GRID)
        encoder = Encoder("vit_base_patch16", GRID, drop_path=0.0)
        self.model = MaskedAutoencoder(encoder, GRID, alignment=Alignment())
        self.bare = VisionTransformer(img_size=(256, 128), global_pool="", num_classes=0)

    def bare_step(self) -> None:
        """The bare ViT, forward and backward."""
        self.bare.zero_grad(set_to_none=True)
        with self.autocast():
            output = self.bare(self.floats)
        output.float().sum().backward()

    def step(self) -> None:
        """HAP, forward and backward."""
        nn.Module.zero_grad(self.model, set_to_none=True)
        with self.autocast():
            terms = self.model(self.images, self.masks)
        torch.stack(list(terms.values())).sum().backward()


def multiplications(step: Callable[[], None]) -> int:
    """Floating-point operations of a step's matrix products and convolutions (those inside fused attention are not)."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds after one warm-up")
    parser.add_argument("--batch", type=int, default=8, help="crops of 256 x 128")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    arguments = parser.parse_args()
    kept = keep_heap()
    torch.manual_seed(0)
    case = Case(arguments.batch, arguments.precision)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.precision}, heap kept: {kept}, "
        f"{arguments.rounds} rounds"
    )
    work = [multiplications(step) for step in (case.bare_step, case.step)]  # also warms up
    seconds: list[list[float]] = [[], []]  # elapsed
    busy: list[list[float]] = [[], []]  # of the processor: the fairer measure on a machine that others use
    for _ in range(arguments.rounds):
        for side, step in enumerate((case.bare_step, case.step)):
            start, start_busy = time.perf_counter(), time.process_time()
            step()
            seconds[side].append(time.perf_counter() - start)
            busy[side].append(time.process_time() - start_busy)
    for name, times in (("elapsed", seconds), ("processor", busy)):
        bare, ours = (statistics.median(side) for side in times)
        ratio = statistics.median(y / x for x, y in zip(*times, strict=True))
        print(f"{name:<10} bare ViT-B {bare:7.3f} s   HAP step {ours:7.3f} s   ratio {ratio:.3f} (target {TARGET:.2f})")
    bare, ours = (count / 1e9 for count in work)
    print(f"{'GFLOP':<10} bare ViT-B {bare:7.1f}     HAP step {ours:7.1f}     ratio {ours / bare:.3f}")


if __name__ == "__main__":
    main()
