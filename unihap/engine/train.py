"""The loop: every process trains its slots of the plan, gradients meet, one optimiser step.

The only state of a run is its weights, its optimiser and the number of finished iterations: which samples a slot
holds, how they are augmented and what drop path and point sampling draw are functions of (seed, iteration, slot).
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unihap.engine.checkpoint import Checkpoints
from unihap.engine.events import Events
from unihap.engine.groups import Groups, TaskPlan, gather
from unihap.engine.optimizer import set_rate, state_by_name
from unihap.models.private import Private
from unihap.models.unihap import UniHAP, task_forward
from unihap.structures import Batch
from unihap.tasks.task import Criterion, Task

logger = logging.getLogger(__name__)


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
class Run:
    """Everything a training run needs, as plain objects.

    Attributes:
        model: on its device.
        tasks: every task of the plan.
        criteria: of the tasks this process trains.
        batches: endless batches of the slots of this process, by task.
        groups: who trains what.
        optimizer: of the weights this process trains.
        schedule: multiplier of ``base_lr`` by progress.
        base_lr: rate of a group of scale 1.
        first_iteration: where to start.
        last_iteration: where to stop.
        autocast: see ``TaskLoss``.
        checkpoint_activations: tasks that recompute activations.
        clip_norm: largest gradient norm, of the shared weights and of each task's private ones; 0 does not clip.
        seed: of the run.
        output: ``OUTPUT_DIR``.
        card: what the checkpoints' cards say.
        checkpoints: where they go.
        checkpoint_period: iterations between two.
        log_period: iterations between two lines.
        log_layers: log the terms of every supervised layer as well.
    """

    model: UniHAP
    tasks: Mapping[str, Task]
    criteria: Mapping[str, Criterion]
    batches: Mapping[str, Iterator[Batch]]
    groups: Groups
    optimizer: torch.optim.Optimizer
    schedule: ParamScheduler
    base_lr: float
    first_iteration: int
    last_iteration: int
    autocast: torch.dtype | None
    checkpoint_activations: frozenset[str]
    clip_norm: float
    seed: int
    output: Path
    card: dict[str, Any]
    checkpoints: Checkpoints
    checkpoint_period: int
    log_period: int
    log_layers: bool

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def train(run: Run) -> None:
    """Trains from ``first_iteration`` to ``last_iteration``.

    Raises:
        FloatingPointError: a loss is not finite; the message names iteration, task and terms, and the batch is saved.
    """
    groups, device = run.groups, run.device
    run.model.train()
    shared = groups.wrap_shared(run.model.shared)
    losses = {
        task: groups.wrap_private(
            TaskLoss(_private(run.model, task), criterion, run.autocast, task in run.checkpoint_activations), task
        )
        for task, criterion in run.criteria.items()
    }
    events = Events(run.output if groups.process == 0 else None, run.first_iteration, run.last_iteration)
    images = 0
    for iteration in range(run.first_iteration, run.last_iteration):
        rate = run.base_lr * float(run.schedule(iteration / run.last_iteration))
        set_rate(run.optimizer, rate)
        work = [
            (plan, slot, next(run.batches[plan.task])) for plan in groups.mine for slot in plan.slots_of(groups.ranks)
        ]
        num_items = _items_per_batch(run, work)
        finished = []
        for number, (plan, slot, batch) in enumerate(work):
            last_of_all = number == len(work) - 1
            last_of_task = last_of_all or work[number + 1][0] is not plan
            seed_slot(run.seed, iteration, groups.plans.index(plan), slot)
            with _sync(shared, last_of_all), _sync(losses[plan.task], last_of_task):
                try:
                    terms = losses[plan.task](shared, move(batch, device), num_items[plan.task])
                except FloatingPointError as error:
                    raise _not_finite(run, iteration, plan.task, batch, str(error)) from error
                loss = torch.stack([term.sum() for term in terms.values()]).sum()
                (loss * (plan.weight / plan.num_slots)).backward()
            finished.append((plan.task, batch, terms, loss.detach()))
        _check_finite(run, iteration, finished)
        _clip(run)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

        images += sum(plan.num_slots * plan.batch_size for plan in groups.plans)
        for task, batch, terms, loss in finished:
            events.add(task, {**_log_values(terms, loss, run.log_layers), "unreadable_images": len(batch.skipped)})
        if (iteration + 1) % run.log_period == 0 or iteration + 1 == run.last_iteration:
            counted = gather(events.take())
            if counted is not None:
                events.merge(counted[1:])
            events.write(iteration, lr=rate, images=images, device=device)
            images = 0
        if (iteration + 1) % run.checkpoint_period == 0 or iteration + 1 == run.last_iteration:
            save_checkpoint(run, iteration + 1)
    events.close()


def seed_slot(seed: int, iteration: int, task_number: int, slot: int) -> None:
    """Seeds torch for one slot, so that no grouping of slots to processes changes what it draws."""
    state = np.random.SeedSequence([seed, iteration, task_number, slot]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) % 2**63)


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return replace(
        batch,
        images=batch.images.to(device, non_blocking=True),
        sizes=None if batch.sizes is None else batch.sizes.to(device, non_blocking=True),
        target=batch.target.to(device),
    )


def save_checkpoint(run: Run, iteration: int) -> None:
    """Writes a checkpoint after ``iteration`` finished iterations; all processes take part, the first one writes."""
    run.groups.share_private(run.model)
    state = state_by_name(run.optimizer)
    led = [task for task in run.criteria if run.groups.leads(task)]
    mine = {
        task: (
            {name: value.detach().cpu() for name, value in run.criteria[task].state_dict().items()},
            {name: value for name, value in state.items() if name.startswith(f"private.{task}.")},
        )
        for task in led
    }
    gathered = gather(mine)
    if gathered is None:
        return
    weights = dict(run.model.state_dict())
    optimizer = {name: value for name, value in state.items() if name.startswith("shared.")}
    for part in gathered:
        for task, (criterion, private) in part.items():
            weights |= {f"private.{task}.criterion.{name}": value for name, value in criterion.items()}
            optimizer |= private
    path = run.checkpoints.save(iteration, weights, {**run.card, "iteration": iteration}, {"optimizer": optimizer})
    logger.info("checkpoint %s", path)


def _private(model: UniHAP, task: str) -> Private:
    private = model.private[task]
    assert isinstance(private, Private)
    return private


def _items_per_batch(run: Run, work: Sequence[tuple[TaskPlan, int, Batch]]) -> dict[str, float]:
    """People or masks per batch, averaged over all slots of a task; at least one, so that empty batches are fine."""
    counts: dict[str, float] = {}
    for plan, _, batch in work:
        counts[plan.task] = counts.get(plan.task, 0.0) + run.tasks[plan.task].count_items(batch.target)
    total = run.groups.sum_counts(counts)
    return {plan.task: max(1.0, total[plan.task] / plan.num_slots) for plan in run.groups.mine}


def _sync(module: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients are summed over processes in the last backward pass of an iteration only."""
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


def _check_finite(run: Run, iteration: int, finished: Sequence[tuple[str, Batch, dict[str, Tensor], Tensor]]) -> None:
    """Looks at all losses of an iteration at once, so that a GPU is waited for once."""
    if bool(torch.stack([loss for *_, loss in finished]).isfinite().all()):
        return
    for task, batch, terms, loss in finished:
        if not bool(loss.isfinite()):
            values = ", ".join(f"{name}={float(term.detach().sum()):.4g}" for name, term in terms.items())
            raise _not_finite(run, iteration, task, batch, values)


def _not_finite(run: Run, iteration: int, task: str, batch: Batch, what: str) -> FloatingPointError:
    """Saves the batch and makes the error that names it."""
    path = run.output / f"bad_batch_{task}.pth"
    torch.save({"iteration": iteration, "task": task, "batch": move(batch, torch.device("cpu"))}, path)
    records = ", ".join(record.id for record in batch.records[:8])
    return FloatingPointError(
        f"loss is not finite at iteration {iteration}: task {task}, {what}; the batch ({records}) is saved to {path}; "
        f"lower SOLVER.BASE_LR or look at these images"
    )


def _clip(run: Run) -> None:
    if run.clip_norm <= 0:
        return
    # Shared and private weights apart: no process sees every private gradient, and all must clip alike.
    nn.utils.clip_grad_norm_(run.model.shared.parameters(), run.clip_norm)
    for task, criterion in run.criteria.items():
        nn.utils.clip_grad_norm_([*run.model.private[task].parameters(), *criterion.parameters()], run.clip_norm)


def _log_values(terms: Mapping[str, Tensor], loss: Tensor, layers: bool) -> dict[str, float]:
    values = {"loss": float(loss)}
    for name, term in terms.items():
        values[f"loss_{name}"] = float(term.detach().sum())
        if layers:
            values |= {f"loss_{name}_{i}": float(value) for i, value in enumerate(term.detach())}
    return values
