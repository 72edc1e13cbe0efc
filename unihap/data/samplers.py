"""Which records go into which batch.

Training batches are numbered 0, 1, 2, ... over all processes of a task, and the content of a batch is a function
of (seed, number) alone.  So any number of processes and workers sees the same batches, and a run that resumes
starts at its next number without having saved anything.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler


class Batches(Protocol):
    """An endless, numbered sequence of batches."""

    batch_size: int

    def batch(self, number: int) -> list[int]:
        """Record numbers of one batch."""


class ShuffledBatches:
    """Shuffles the records again for every epoch; a batch may begin in one epoch and end in the next.

    Every epoch holds each record once.  Only one permutation is in memory.

    Args:
        num_records: records to draw from.
        batch_size: records in a batch.
        seed: of the shuffles.

    Raises:
        ValueError: no records, or an empty batch.
    """

    def __init__(self, num_records: int, batch_size: int, seed: int) -> None:
        if num_records < 1 or batch_size < 1:
            raise ValueError(f"cannot draw batches of {batch_size} from {num_records} records; both must be positive")
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> list[int]:
        """Record numbers of one batch."""
        position, end = number * self.batch_size, (number + 1) * self.batch_size
        indices: list[int] = []
        while position < end:
            epoch, start = divmod(position, self.num_records)
            stop = min(self.num_records, start + end - position)
            indices += self._shuffled(epoch)[start:stop].tolist()
            position += stop - start
        return indices

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order = _generator(self.seed, epoch).permutation(self.num_records)
            self._epoch = epoch
        return self._order


class IdentityBatches:
    """Batches of P people with K images each, which the triplet loss needs (Hermans et al. 2017, arXiv:1703.07737).

    An epoch takes the people in random order, P at a time; the fewer than P who remain are left out of that epoch.
    A person's images are drawn without repetition when there are K, else with.

    Args:
        identities: of every record.
        num_people: P.
        images_per_person: K.
        seed: of all draws.

    Raises:
        ValueError: fewer than P people, or P or K is not positive.
    """

    def __init__(self, identities: Sequence[int], num_people: int, images_per_person: int, seed: int) -> None:
        if num_people < 1 or images_per_person < 1:
            raise ValueError(f"cannot draw {num_people} people with {images_per_person} images; both must be positive")
        numbers, inverse = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
        if len(numbers) < num_people:
            raise ValueError(
                f"a batch needs {num_people} people but the dataset has {len(numbers)}; lower BATCH_SIZE to at most "
                f"{len(numbers) * images_per_person} ({images_per_person} images per person) or raise IMAGES_PER_PERSON"
            )
        self.num_people = num_people
        self.images_per_person = images_per_person
        self.batch_size = num_people * images_per_person
        self.seed = seed
        counts = np.bincount(inverse)
        self._images = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])  # records by person
        self._epoch = -1
        self._people = np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> list[int]:
        """Record numbers of one batch, person by person."""
        epoch, place = divmod(number, len(self._images) // self.num_people)
        if epoch != self._epoch:
            self._people = _generator(self.seed, epoch).permutation(len(self._images))
            self._epoch = epoch
        rng = _generator(self.seed, epoch, place)
        indices: list[int] = []
        for person in self._people[place * self.num_people : (place + 1) * self.num_people]:
            images = self._images[person]
            repeat = len(images) < self.images_per_person
            indices += rng.choice(images, self.images_per_person, replace=repeat).tolist()
        return indices


def _generator(seed: int, *position: int) -> np.random.Generator:
    # The length comes first because numpy takes [seed, 3] and [seed, 3, 0] for the same seed; the samples' own
    # generators are seeded with two numbers.
    return np.random.default_rng([seed, len(position), *position, 1])


class SlotSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one process, for ``DataLoader(batch_sampler=...)``.

    A step of a task takes ``num_slots`` batches, one for every forward pass of every process; a slot is one of
    them.  Batch number = step * num_slots + slot.

    Args:
        batches: all batches of the task.
        slots: the slots that this process fills, in this order.
        num_slots: slots of all processes together.
        first_step: the step to start at; not 0 when a run resumes.
        last_step: the step to stop before.

    Raises:
        ValueError: a slot is out of range, or the steps run backwards.
    """

    def __init__(self, batches: Batches, slots: Sequence[int], num_slots: int, first_step: int, last_step: int) -> None:
        if not slots or any(not 0 <= slot < num_slots for slot in slots):
            raise ValueError(f"slots {list(slots)} must be numbers from 0 to {num_slots - 1}")
        if not 0 <= first_step <= last_step:
            raise ValueError(f"cannot run from step {first_step} to step {last_step}")
        self.batches = batches
        self.slots = tuple(slots)
        self.num_slots = num_slots
        self.first_step = first_step
        self.last_step = last_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yields batches of (draw, record number); a draw number never occurs twice in a run."""
        for step in range(self.first_step, self.last_step):
            for slot in self.slots:
                number = step * self.num_slots + slot
                first_draw = number * self.batches.batch_size
                yield list(enumerate(self.batches.batch(number), start=first_draw))

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.slots)


class EvaluationSampler(Sampler[list[int]]):
    """One process's share of an evaluation, for ``DataLoader(batch_sampler=...)``.

    The batches are those of a single process, dealt out whole: which records a batch holds, and with that how a matrix
    product rounds, does not depend on the number of processes.  Every record is in exactly one share and none is
    repeated to fill up; shares differ by one batch at most and may be empty.  A share is a run of neighbours.

    Args:
        num_records: records of the dataset.
        batch_size: records in a batch; the last batch may be smaller.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        ValueError: no such process, or an empty batch.
    """

    def __init__(self, num_records: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"cannot give process {rank} of {world_size} batches of {batch_size}")
        num_batches = -(-num_records // batch_size)
        self.batches = range(num_batches * rank // world_size, num_batches * (rank + 1) // world_size)
        self.num_records = num_records
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yields batches of record numbers, in order."""
        for number in self.batches:
            start = number * self.batch_size
            yield list(range(start, min(start + self.batch_size, self.num_records)))

    def __len__(self) -> int:
        return len(self.batches)
