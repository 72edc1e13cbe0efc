"""Which records a few-shot training set holds: per class some that show it, drawn at random (UniHCP, Table 9)."""

from collections.abc import Collection, Sequence

import numpy as np


def select_shots(presence: Sequence[Collection[int]], num_classes: int, shots: int, seed: int) -> list[int]:
    """Draws ``shots`` records for every class from those that show it, uniformly and without repetition.

    Classes draw independently of each other, so a record may serve several of them and the set may be smaller than
    ``num_classes * shots``.  A class draws from a generator of its own: what it gets does not depend on which other
    classes there are.  A class that fewer records show takes all of them, one that no record shows takes none.

    Args:
        presence: the classes that each record shows.
        num_classes: classes are 0 ... num_classes - 1; others are overlooked.
        shots: records per class.
        seed: of the draws.

    Returns:
        Numbers of the chosen records, each once, ascending.

    Raises:
        ValueError: fewer than one record per class is wanted, or no record shows any class.
    """
    if shots < 1:
        raise ValueError(f"a few-shot training set needs at least one record per class, got {shots}")
    holders: list[list[int]] = [[] for _ in range(num_classes)]
    for record, classes in enumerate(presence):
        for number in set(classes):
            if 0 <= number < num_classes:
                holders[number].append(record)
    chosen: set[int] = set()
    for number, records in enumerate(holders):
        rng = np.random.default_rng([seed, number])
        chosen.update(rng.permutation(records)[:shots].astype(int).tolist())
    if not chosen:
        raise ValueError(f"none of the {len(presence)} records shows any of the {num_classes} classes")
    return sorted(chosen)


def absent_classes(presence: Sequence[Collection[int]], num_classes: int) -> list[int]:
    """The classes that no record shows."""
    return sorted(set(range(num_classes)).difference(*presence))
