"""Losses and gradients of one batch in three processes and in one.

usage: python gathered.py FOLDER    writes 1.pt and 3.pt there
"""

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist

from unihap.models.encoder import Encoder
from unihap.pretrain.alignment import Alignment
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder

GRID = (4, 2)
BATCH = 12
PROCESSES = 3


def learn(part: slice, gather: bool = True) -> dict[str, torch.Tensor]:
    """Loss terms and gradients of a part of the batch."""
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", GRID, drop_path=0.0)
    alignment = Alignment(weight=1.0, gather=gather)
    model = MaskedAutoencoder(
        encoder, GRID, decoder_width=32, decoder_layers=2, decoder_heads=4, alignment=alignment
    ).double()
    images = torch.randint(0, 256, (BATCH, 3, 64, 32))
    masks = torch.rand(BATCH, 2, 8).argsort(dim=2).lt(4).unflatten(2, GRID)
    terms = model(images[part], masks[part])
    sum(terms.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {**{f"loss.{name}": term.detach() for name, term in terms.items()}, **gradients}


def work(rank: int, folder: Path) -> None:
    """One of the processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    share = BATCH // PROCESSES
    part = slice(rank * share, (rank + 1) * share)
    learned = learn(part)
    learned["alone"] = learn(part, gather=False)["loss.alignment"]
    for value in learned.values():
        dist.all_reduce(value)
        value.div_(PROCESSES)
    dist.destroy_process_group()
    if rank == 0:
        torch.save(learned, folder / "3.pt")
        whole = learn(slice(None))
        torch.save({**whole, "alone": learned["alone"]}, folder / "1.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)  # no thread pool may exist when the process forks
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(number, Path(sys.argv[1]))
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
