"""What joint training trains: the shared weights and the private ones of every task, in the loop of ``loop.py``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unihap.engine.groups import Groups, gather
from unihap.engine.loop import Parameters, Work, term_values
from unihap.engine.parts import SHARED_PARTS, freeze, release, set_modes
from unihap.models.private import Private
from unihap.models.unihap import UniHAP, task_forward
from unihap.structures import Batch
from unihap.tasks.task import Criterion, Task


class TaskLoss(nn.Module):
    """One task's private weights: queries and criterion, as one module for DDP.

    Args:
        private: the task's part of the model.
        criterion: its loss.
        autocast: dtype of the model's matrix products, or ``None``; losses run in full precision.
        checkpoint_activations: recompute the encoder's activations in the backward pass.
    """

    def __init__(
        self, private: Private, criterion: Criterion, autocast: torch.dtype | None, checkpoint_activations: bool
    ) -> None:
        super().__init__()
        self.private = private
        self.criterion = criterion
        self.autocast = autocast
        self.checkpoint_activations = checkpoint_activations

    def forward(self, shared: nn.Module, batch: Batch, num_items: float) -> dict[str, Tensor]:
        """Loss terms (L,) of one batch, see ``Criterion``; ``shared`` holds the shared weights."""
        with torch.autocast(batch.images.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            predictions = task_forward(
                shared,
                self.private,
                batch.images,
                batch.sizes,
                all_layers=True,
                checkpoint_activations=self.checkpoint_activations,
            )
        return self.criterion(predictions, batch.target, num_items)


@dataclass
class JointObjective:
    """All tasks of a plan, of which this process trains some (see ``Objective``).

    Attributes:
        model: on its device.
        tasks: every task of the plan.
        criteria: of the tasks this process trains.
        batches: endless batches of the slots of this process, by task.
        autocast: see ``TaskLoss``.
        checkpoint_activations: tasks that recompute activations.
        log_layers: log the terms of every supervised layer as well.
        freeze_iterations: the shared weights have no gradients before this iteration.
        private_alone: checkpoints leave the shared weights out, which did not change.
    """

    model: UniHAP
    tasks: Mapping[str, Task]
    criteria: Mapping[str, Criterion]
    batches: Mapping[str, Iterator[Batch]]
    autocast: torch.dtype | None
    checkpoint_activations: frozenset[str]
    log_layers: bool
    freeze_iterations: int = 0
    private_alone: bool = False
    rate_key: str = "SOLVER.BASE_LR"
    _shared: nn.Module = field(init=False)
    _frozen: list[nn.Parameter] = field(init=False)
    _losses: dict[str, nn.Module] = field(init=False)
    _groups: Groups = field(init=False)
    _num_items: dict[str, float] = field(init=False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def start(self, groups: Groups) -> None:
        """Wraps the shared weights for all processes and the private ones of each task for its own."""
        self._groups = groups
        self._frozen = freeze(self.model, SHARED_PARTS) if self.freeze_iterations else []
        self._wrap_shared()
        self._losses = {
            task: groups.wrap_private(
                TaskLoss(_private(self.model, task), criterion, self.autocast, task in self.checkpoint_activations),
                task,
                find_unused=_private(self.model, task).interpreter is not None,
            )
            for task, criterion in self.criteria.items()
        }

    def _wrap_shared(self) -> None:
        set_modes(self.model)
        self._shared = self._groups.wrap_shared(self.model.shared)

    def modules(self, task: str) -> tuple[nn.Module, nn.Module]:
        """The shared weights and the task's private ones."""
        return self._shared, self._losses[task]

    def prepare(self, iteration: int, work: Work) -> None:
        """People or masks per batch, averaged over all slots of a task; at least one, so that empty batches are fine.

        Weights that were frozen until now are released first, in all processes at the same iteration.
        All slots of all processes take part, because each must divide by the same number.
        """
        if self._frozen and iteration >= self.freeze_iterations:
            release(self._frozen)
            self._frozen = []
            self._wrap_shared()
        counts: dict[str, float] = {}
        for plan, _, batch in work:
            counts[plan.task] = counts.get(plan.task, 0.0) + self.tasks[plan.task].count_items(batch.target)
        total = self._groups.sum_counts(counts)
        self._num_items = {plan.task: max(1.0, total[plan.task] / plan.num_slots) for plan in self._groups.mine}

    def terms(self, task: str, batch: Batch) -> dict[str, Tensor]:
        """Loss terms, one value for each supervised layer."""
        terms: dict[str, Tensor] = self._losses[task](self._shared, move(batch, self.device), self._num_items[task])
        return terms

    def clipped(self) -> list[Parameters]:
        """Shared and private weights apart: no process sees every private gradient, and all must clip alike."""
        return [
            self.model.shared.parameters(),
            *(
                [*self.model.private[task].parameters(), *criterion.parameters()]
                for task, criterion in self.criteria.items()
            ),
        ]

    def log_values(self, terms: Mapping[str, Tensor], loss: Tensor, batch: Batch) -> dict[str, float]:
        """The loss, its terms, on request those of every layer, and how many images could not be read."""
        values = term_values(terms, loss)
        if self.log_layers:
            for name, term in terms.items():
                values |= {f"loss_{name}_{i}": float(value) for i, value in enumerate(term.detach())}
        return {**values, "unreadable_images": len(batch.skipped)}

    def log_progress(self, iteration: int) -> dict[str, float]:
        """Nothing: tasks have epochs of different lengths."""
        return {}

    def on_cpu(self, batch: Batch) -> tuple[Batch, list[str]]:
        """A batch with its tensors on the CPU, and the ids of its records."""
        return move(batch, torch.device("cpu")), [record.id for record in batch.records]

    def collect(
        self, groups: Groups, optimizer: dict[str, dict[str, object]]
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]] | None:
        """Private weights and their optimiser state come from the first process of each task."""
        groups.share_private(self.model)
        mine = {
            task: (
                {name: value.detach().cpu() for name, value in criterion.state_dict().items()},
                {name: value for name, value in optimizer.items() if name.startswith(f"private.{task}.")},
            )
            for task, criterion in self.criteria.items()
            if groups.leads(task)
        }
        gathered: list[dict[str, Any]] | None = gather(mine)
        if gathered is None:
            return None
        saved = tuple(f"private.{task}." for task in self.tasks) if self.private_alone else ("",)
        weights = {name: value for name, value in self.model.state_dict().items() if name.startswith(saved)}
        state = {name: value for name, value in optimizer.items() if name.startswith("shared.")}
        for part in gathered:
            for task, (criterion, private) in part.items():
                weights |= {f"private.{task}.criterion.{name}": value for name, value in criterion.items()}
                state |= private
        return weights, state


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return replace(
        batch,
        images=batch.images.to(device, non_blocking=True),
        sizes=None if batch.sizes is None else batch.sizes.to(device, non_blocking=True),
        target=batch.target.to(device),
    )


def _private(model: UniHAP, task: str) -> Private:
    private = model.private[task]
    assert isinstance(private, Private)
    return private
