"""The loop of every kind of training: each process trains its slots of the plan, gradients meet, one optimiser step.

What is trained, and on which batches, is an ``Objective``: the tasks of joint training (``engine/train.py``) or the
encoder alone (``engine/pretrain.py``).

The only state of a run is its weights, its optimiser and the number of finished iterations: which samples a slot
holds, how they are augmented and what drop path and point sampling draw are functions of (seed, iteration, slot).
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unihap.engine.checkpoint import Checkpoints
from unihap.engine.events import Events
from unihap.engine.groups import Groups, TaskPlan, gather
from unihap.engine.optimizer import set_rate, state_by_name

logger = logging.getLogger(__name__)

Work = Sequence[tuple[TaskPlan, int, Any]]  # plan, slot and batch of every forward pass of an iteration
Parameters = Iterable[nn.Parameter]


class Objective(Protocol):
    """What a run trains.

    Attributes:
        batches: endless batches of the slots of this process, by task.
        rate_key: the config key of the learning rate, for messages.
    """

    batches: Mapping[str, Iterator[Any]]
    rate_key: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def start(self, groups: Groups) -> None:
        """Puts the weights into training mode and wraps them for distribution."""

    def modules(self, task: str) -> tuple[nn.Module, nn.Module]:
        """The wrapped modules whose gradients meet once an iteration, and once a task."""

    def prepare(self, iteration: int, work: Work) -> None:
        """Looks at all batches of an iteration before the first of them is used."""

    def terms(self, task: str, batch: Any) -> dict[str, Tensor]:
        """Loss terms of one batch, of any shape; the sum of all their elements is the loss."""

    def clipped(self) -> list[Parameters]:
        """Parameters whose gradients are clipped to one norm together."""

    def log_values(self, terms: Mapping[str, Tensor], loss: Tensor, batch: Any) -> dict[str, float]:
        """What is logged of one batch."""

    def log_progress(self, iteration: int) -> dict[str, float]:
        """What is logged once a line, after ``iteration`` finished iterations."""

    def on_cpu(self, batch: Any) -> tuple[Any, list[str]]:
        """A batch with its tensors on the CPU, and the names of its images."""

    def collect(
        self, groups: Groups, optimizer: dict[str, dict[str, object]]
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]] | None:
        """All weights and the optimiser's whole state on process 0, ``None`` elsewhere; every process takes part."""


@dataclass
class Run:
    """Everything a training run needs, as plain objects.

    Attributes:
        objective: what is trained.
        groups: who trains what.
        optimizer: of the weights this process trains.
        schedule: multiplier of ``base_lr`` by progress.
        base_lr: rate of a group of scale 1.
        first_iteration: where to start.
        last_iteration: where to stop.
        clip_norm: largest norm of each gradient of ``Objective.clipped``; 0 does not clip.
        seed: of the run.
        output: ``OUTPUT_DIR``.
        card: what the checkpoints' cards say.
        checkpoints: where they go.
        checkpoint_period: iterations between two.
        log_period: iterations between two lines.
    """

    objective: Objective
    groups: Groups
    optimizer: torch.optim.Optimizer
    schedule: ParamScheduler
    base_lr: float
    first_iteration: int
    last_iteration: int
    clip_norm: float
    seed: int
    output: Path
    card: dict[str, Any]
    checkpoints: Checkpoints
    checkpoint_period: int
    log_period: int


def train(run: Run) -> None:
    """Trains from ``first_iteration`` to ``last_iteration``.

    Raises:
        FloatingPointError: a loss is not finite; the message names iteration, task and terms, and the batch is saved.
    """
    groups, objective = run.groups, run.objective
    objective.start(groups)
    events = Events(run.output if groups.process == 0 else None, run.first_iteration, run.last_iteration)
    images = 0
    for iteration in range(run.first_iteration, run.last_iteration):
        rate = run.base_lr * float(run.schedule(iteration / run.last_iteration))
        set_rate(run.optimizer, rate)
        work = [
            (plan, slot, next(objective.batches[plan.task]))
            for plan in groups.mine
            for slot in plan.slots_of(groups.ranks)
        ]
        for task, values in _step(run, iteration, work):
            events.add(task, values)
        images += sum(plan.num_slots * plan.batch_size for plan in groups.plans)
        done = iteration + 1
        if done % run.log_period == 0 or done == run.last_iteration:
            counted = gather(events.take())
            if counted is not None:
                events.merge(counted[1:])
            progress = objective.log_progress(done)
            events.write(iteration, lr=rate, images=images, device=objective.device, progress=progress)
            images = 0
        if done % run.checkpoint_period == 0 or done == run.last_iteration:
            save_checkpoint(run, done)
    events.close()


def _step(run: Run, iteration: int, work: Work) -> list[tuple[str, dict[str, float]]]:
    """One iteration: the gradients of all slots, then one step of the optimiser; returns what is logged by task."""
    objective = run.objective
    objective.prepare(iteration, work)
    finished = []
    for number, (plan, slot, batch) in enumerate(work):
        last_of_all = number == len(work) - 1
        last_of_task = last_of_all or work[number + 1][0] is not plan
        seed_slot(run.seed, iteration, run.groups.plans.index(plan), slot)
        shared, private = objective.modules(plan.task)
        with _sync(shared, last_of_all), _sync(private, last_of_task):
            try:
                terms = objective.terms(plan.task, batch)
            except FloatingPointError as error:
                raise _not_finite(run, iteration, plan.task, batch, str(error)) from error
            loss = torch.stack([term.sum() for term in terms.values()]).sum()
            (loss * (plan.weight / plan.num_slots)).backward()
        finished.append((plan.task, batch, terms, loss.detach()))
    _check_finite(run, iteration, finished)
    if run.clip_norm > 0:
        for parameters in objective.clipped():
            nn.utils.clip_grad_norm_(parameters, run.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return [(task, objective.log_values(terms, loss, batch)) for task, batch, terms, loss in finished]


def seed_slot(seed: int, iteration: int, task_number: int, slot: int) -> None:
    """Seeds torch for one slot, so that no grouping of slots to processes changes what it draws."""
    state = np.random.SeedSequence([seed, iteration, task_number, slot]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) % 2**63)


def save_checkpoint(run: Run, iteration: int) -> None:
    """Writes a checkpoint after ``iteration`` finished iterations; all processes take part, the first one writes."""
    collected = run.objective.collect(run.groups, state_by_name(run.optimizer))
    if collected is None:
        return
    weights, optimizer = collected
    path = run.checkpoints.save(iteration, weights, {**run.card, "iteration": iteration}, {"optimizer": optimizer})
    logger.info("checkpoint %s", path)


def term_values(terms: Mapping[str, Tensor], loss: Tensor) -> dict[str, float]:
    """The loss and each of its terms, as they are logged."""
    return {"loss": float(loss), **{f"loss_{name}": float(term.detach().sum()) for name, term in terms.items()}}


def _sync(module: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients are summed over processes in the last backward pass of an iteration only."""
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


def _check_finite(run: Run, iteration: int, finished: Sequence[tuple[str, Any, dict[str, Tensor], Tensor]]) -> None:
    """Looks at all losses of an iteration at once, so that a GPU is waited for once."""
    if bool(torch.stack([loss for *_, loss in finished]).isfinite().all()):
        return
    for task, batch, terms, loss in finished:
        if not bool(loss.isfinite()):
            values = ", ".join(f"{name}={float(term.detach().sum()):.4g}" for name, term in terms.items())
            raise _not_finite(run, iteration, task, batch, values)


def _not_finite(run: Run, iteration: int, task: str, batch: Any, what: str) -> FloatingPointError:
    """Saves the batch and makes the error that names it."""
    path = run.output / f"bad_batch_{task}.pth"
    saved, names = run.objective.on_cpu(batch)
    torch.save({"iteration": iteration, "task": task, "batch": saved}, path)
    return FloatingPointError(
        f"loss is not finite at iteration {iteration}: task {task}, {what}; the batch ({', '.join(names[:8])}) is "
        f"saved to {path}; lower {run.objective.rate_key} or look at these images"
    )
