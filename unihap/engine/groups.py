"""Which process trains which task, and how their gradients meet.  The one equation of the objective is here.

A plan gives every task t a number of *ranks* n_t (normally GPUs), a number of forward passes per rank a_t and a batch
size b_t; the n_t * a_t batches of an iteration are the task's *slots*.  With W processes of a plan of R ranks, each
process plays R / W neighbouring ranks in turn: one process may play them all, and no grouping changes the mathematics:

    gradient of a weight = sum over t of  w_t * mean over the slots of t  of  d loss_t / d weight

for shared weights, with only its own t for a private weight.  Every process scales each slot's loss by
w_t / (n_t * a_t), and gradients are *summed*, shared ones over all processes and private ones over the processes of
their task.  (The release does the same: it divides by the number of a task's GPUs and sums.)

By UniHCP's rule, w_t = lambda_t * B_t / sum over tasks of lambda * B, with B_t = b_t * n_t * a_t.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unihap.models.unihap import UniHAP

T = TypeVar("T")


@dataclass(frozen=True)
class TaskPlan:
    """How much of an iteration is one task's.

    Attributes:
        task: name.
        ranks: the ranks of the plan that train it.
        batch_size: samples per slot.
        accumulate: slots per rank.
        weight: w_t.
    """

    task: str
    ranks: tuple[int, ...]
    batch_size: int
    accumulate: int
    weight: float

    @property
    def num_slots(self) -> int:
        """Batches per iteration, over all ranks."""
        return len(self.ranks) * self.accumulate

    def slots_of(self, ranks: Iterable[int]) -> list[int]:
        """The slots that some ranks of the plan play."""
        return [
            self.ranks.index(rank) * self.accumulate + i
            for rank in ranks
            if rank in self.ranks
            for i in range(self.accumulate)
        ]


@dataclass(frozen=True)
class TaskShare:
    """What a config asks for one task; ``weight`` 0 means the rule lambda * B."""

    task: str
    gpus: int
    batch_size: int
    accumulate: int
    loss_lambda: float
    weight: float = 0.0


def make_plan(shares: Sequence[TaskShare]) -> list[TaskPlan]:
    """Deals ranks 0, 1, 2, ... to the tasks in their order and fixes their weights.

    Explicit weights stand as they are; the others follow the rule, normalised over the tasks that follow it.

    Raises:
        ValueError: no tasks, or a number below one.
    """
    if not shares:
        raise ValueError("TRAIN.TASKS is empty; name at least one task")
    for share in shares:
        for key, value in (
            ("GPUS", share.gpus),
            ("BATCH_SIZE", share.batch_size),
            ("ACCUMULATE", share.accumulate),
        ):
            if value < 1:
                raise ValueError(f"TASKS.{share.task}.{key} must be at least 1, got {value}")
    mass = {s.task: s.loss_lambda * s.batch_size * s.gpus * s.accumulate for s in shares if s.weight == 0}
    plans, first = [], 0
    for s in shares:
        weight = s.weight or mass[s.task] / sum(mass.values())
        plans.append(TaskPlan(s.task, tuple(range(first, first + s.gpus)), s.batch_size, s.accumulate, weight))
        first += s.gpus
    return plans


def ranks_of_process(num_ranks: int, process: int, num_processes: int) -> range:
    """The neighbouring ranks of the plan that one process plays.

    >>> [list(ranks_of_process(5, p, 2)) for p in range(2)]
    [[0, 1], [2, 3, 4]]

    Raises:
        ValueError: more processes than ranks.
    """
    if num_processes > num_ranks:
        raise ValueError(
            f"the plan has {num_ranks} ranks (the sum of TASKS.<name>.GPUS) but {num_processes} processes were "
            f"started; start at most {num_ranks} or raise GPUS"
        )
    return range(process * num_ranks // num_processes, (process + 1) * num_ranks // num_processes)


def describe(plans: Sequence[TaskPlan], num_processes: int) -> str:
    """A table of who trains what."""
    num_ranks = sum(len(plan.ranks) for plan in plans)
    lines = [f"{'task':<24} {'ranks':>8} {'batch':>6} {'slots':>6} {'B':>6} {'weight':>11}  processes"]
    for plan in plans:
        processes = [
            p for p in range(num_processes) if set(plan.ranks) & set(ranks_of_process(num_ranks, p, num_processes))
        ]
        ranks = f"{plan.ranks[0]}-{plan.ranks[-1]}" if len(plan.ranks) > 1 else str(plan.ranks[0])
        lines.append(
            f"{plan.task:<24} {ranks:>8} {plan.batch_size:>6} {plan.num_slots:>6} "
            f"{plan.batch_size * plan.num_slots:>6} {plan.weight:>11.4g}  {', '.join(map(str, processes))}"
        )
    return "\n".join(lines)


class Groups:
    """The process groups of a plan, seen from one process.

    Args:
        plans: the plan of every task.

    Attributes:
        ranks: ranks of the plan that this process plays.
        mine: the plans this process has slots of, in plan order.
    """

    def __init__(self, plans: Sequence[TaskPlan]) -> None:
        self.plans = list(plans)
        self.process = dist.get_rank() if dist.is_initialized() else 0
        self.num_processes = dist.get_world_size() if dist.is_initialized() else 1
        num_ranks = sum(len(plan.ranks) for plan in plans)
        played = [ranks_of_process(num_ranks, p, self.num_processes) for p in range(self.num_processes)]
        self.ranks = played[self.process]
        self.mine = [plan for plan in plans if set(plan.ranks) & set(self.ranks)]
        self.task_processes = {
            plan.task: [p for p in range(self.num_processes) if set(plan.ranks) & set(played[p])] for plan in plans
        }
        # Every process must take part in the making of every group, in the same order.
        self._task_group: dict[str, Any] = {
            task: dist.new_group(members) if self.num_processes > 1 else None
            for task, members in self.task_processes.items()
        }

    def wrap_shared(self, module: nn.Module) -> nn.Module:
        """Sums the gradients of ``module`` over all processes."""
        # A task leaves the units it does not open unused, and each task others: DDP has to look.
        return self._wrap(module, None, self.num_processes, find_unused=True)

    def wrap_private(self, module: nn.Module, task: str, *, find_unused: bool = False) -> nn.Module:
        """Sums the gradients of ``module`` over the processes of ``task``.

        Args:
            module: what the task owns.
            task: its name.
            find_unused: ``module`` leaves weights without gradient, as the closed units of an interpreter of its own.
        """
        return self._wrap(module, self._task_group[task], len(self.task_processes[task]), find_unused=find_unused)

    def _wrap(self, module: nn.Module, group: dist.ProcessGroup | None, size: int, *, find_unused: bool) -> nn.Module:
        if size == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        # Weights are equal by construction (one seed) or by loading; buffers are the task's own statistics.
        wrapped = DistributedDataParallel(
            module,
            process_group=group,
            broadcast_buffers=False,
            find_unused_parameters=find_unused,
            gradient_as_bucket_view=True,
        )
        wrapped.register_comm_hook(group, _sum_gradients)
        return wrapped

    def sum_counts(self, counts: dict[str, float]) -> dict[str, float]:
        """Sums a number per task over all processes; the one message a loss needs."""
        if self.num_processes == 1:
            return counts
        values = torch.tensor([counts.get(plan.task, 0.0) for plan in self.plans], dtype=torch.float64)
        values = values.to(communication_device())
        dist.all_reduce(values)
        return {plan.task: value for plan, value in zip(self.plans, values.tolist(), strict=True)}

    def share_private(self, model: UniHAP) -> None:
        """Gives every process the private weights of every task, from the first process that trains it."""
        if self.num_processes == 1:
            return
        for plan in self.plans:
            for tensor in model.private[plan.task].state_dict().values():
                dist.broadcast(tensor, self.task_processes[plan.task][0])

    def leads(self, task: str) -> bool:
        """Whether this process is the first that trains ``task``."""
        return self.task_processes[task][0] == self.process


def gather(value: T) -> list[T] | None:
    """The values of all processes on process 0, ``None`` elsewhere."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values


def _sum_gradients(group: dist.ProcessGroup | None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's message, without its division by the number of processes (see the equation above)."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def communication_device() -> torch.device:
    """Where tensors must live to be sent: the GPU with NCCL, the CPU with gloo."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
