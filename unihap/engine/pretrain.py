"""What pre-training trains: the encoder with what it needs beside it, in the loop of ``loop.py``.

Pre-training is one task of a plan over all processes, so its gradients meet as every task's do.  In a checkpoint the
encoder has the names of the joint model's, ``shared.encoder.*``, and the rest of the model (class token, decoder,
heads) is ``pretrain.*``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unihap.engine.groups import Groups
from unihap.engine.loop import Parameters, Work, term_values
from unihap.engine.optimizer import ENCODER
from unihap.pretrain.structures import PretrainBatch

TASK = "pretrain"  # its name in the plan, in metrics.jsonl and before the names of its own weights
OWN = f"{TASK}."
MODEL_ENCODER = "encoder."  # the encoder's prefix inside a pre-training model


class PretrainLoss(nn.Module):
    """A pre-training model as one module for DDP.

    Args:
        model: ``(images, masks) -> loss terms``, whose sum is the loss.
        autocast: dtype of the matrix products, or ``None``.
    """

    def __init__(self, model: nn.Module, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast

    def forward(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Loss terms of (B, 3, H, W) images and (B, V, gh, gw) masks."""
        with torch.autocast(images.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            terms: dict[str, Tensor] = self.model(images, masks)
        return terms


@dataclass
class PretrainObjective:
    """Masked image modelling on all processes (see ``Objective``).

    Attributes:
        model: on its device.
        batches: endless batches of the slots of this process, by task.
        autocast: see ``PretrainLoss``.
        samples_per_iteration: of all processes.
        samples_per_epoch: images of the training set.
        constants: tensors of no module that a resumed run must find again, by name.
    """

    model: nn.Module
    batches: Mapping[str, Iterator[PretrainBatch]]
    autocast: torch.dtype | None
    samples_per_iteration: int
    samples_per_epoch: int
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    rate_key: str = "PRETRAIN.BLR"
    _wrapped: nn.Module = field(init=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def start(self, groups: Groups) -> None:
        """Wraps the model for all processes."""
        self.model.train()
        self._wrapped = groups.wrap_private(PretrainLoss(self.model, self.autocast), TASK)

    def modules(self, task: str) -> tuple[nn.Module, nn.Module]:
        """The model, twice: all its weights meet at the same time."""
        return self._wrapped, self._wrapped

    def prepare(self, iteration: int, work: Work) -> None:
        """Nothing: a loss is a mean over its own batch."""

    def terms(self, task: str, batch: PretrainBatch) -> dict[str, Tensor]:
        """Loss terms, scalars."""
        moved = batch.to(self.device)
        terms: dict[str, Tensor] = self._wrapped(moved.images, moved.masks)
        return terms

    def clipped(self) -> list[Parameters]:
        """All weights together."""
        return [self.model.parameters()]

    def log_values(self, terms: Mapping[str, Tensor], loss: Tensor, batch: PretrainBatch) -> dict[str, float]:
        """The loss, its terms, and how many images were replaced or show nobody that masks could know of."""
        return {
            **term_values(terms, loss),
            "unreadable_images": len(batch.skipped),
            "images_without_keypoints": batch.num_without_keypoints,
        }

    def log_progress(self, iteration: int) -> dict[str, float]:
        """How many times every image was seen."""
        return {"epoch": iteration * self.samples_per_iteration / self.samples_per_epoch}

    def on_cpu(self, batch: PretrainBatch) -> tuple[PretrainBatch, list[str]]:
        """A batch with its tensors on the CPU, and the paths of its images."""
        return batch.to(torch.device("cpu")), list(batch.paths)

    def collect(
        self, groups: Groups, optimizer: dict[str, dict[str, object]]
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]] | None:
        """Everything is equal on all processes; the first one writes it."""
        if groups.process != 0:
            return None
        return {**weights_of(self.model), **self.constants}, optimizer


def file_name(name: str) -> str:
    """Name in a checkpoint of a pre-training model's weight."""
    if name.startswith(MODEL_ENCODER):
        return ENCODER + name.removeprefix(MODEL_ENCODER)
    return OWN + name


def named_parameters(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Every parameter of a pre-training model with its name in a checkpoint."""
    return ((file_name(name), parameter) for name, parameter in model.named_parameters())


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A pre-training model's state by its names in a checkpoint."""
    return {file_name(name): value for name, value in model.state_dict().items()}


def load_pretraining(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copies a pre-training checkpoint into a model.

    Args:
        model: where to.
        weights: by name in a checkpoint; those that the model lacks must belong to no module of it.
        source: where they come from, for messages.

    Raises:
        ValueError: another model: missing, unexpected or differently shaped weights.
    """
    mine = weights_of(model)
    problems = [f"missing {name}" for name in mine if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in mine]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, the model {tuple(value.shape)}"
        for name, value in mine.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        raise ValueError(
            f"{source} holds another pre-training model ({len(problems)} differences: {'; '.join(problems[:3])}); "
            f"check MODEL.ENCODER, PRETRAIN.FRAMEWORK and PRETRAIN.DECODER, or take its encoder alone with "
            f"MODEL.ENCODER.WEIGHTS"
        )
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(weights[name])
