"""What every metric refuses, and how rows find their records again."""

from typing import Any

import numpy as np

from unihap.structures import Dataset, Record


def finite(name: str, values: Any, ndim: int) -> np.ndarray:
    """``values`` as a floating-point array without NaN or infinity.

    Float32 stays float32, everything else becomes float64.

    Args:
        name: what to call the values in an error.
        values: anything numpy turns into an array.
        ndim: number of axes they must have.

    Raises:
        ValueError: not numbers, another number of axes, nothing inside, NaN or infinity.
    """
    try:
        array = np.asarray(values)
        array = array if array.dtype == np.float32 else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are not a rectangular array of numbers: {error}") from error
    if array.ndim != ndim:
        raise ValueError(f"{name} have shape {array.shape}; expected {ndim} axes")
    if array.size == 0:
        raise ValueError(f"{name} are empty: shape {array.shape}")
    good = np.isfinite(array)
    if not good.all():
        where = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{name} hold {array[where]} at {where}; {array.size - int(good.sum())} values are not finite")
    return array


def integers(name: str, values: Any, ndim: int) -> np.ndarray:
    """``values`` as int64; whole numbers stored as floats are accepted.

    Raises:
        ValueError: as ``finite``, or a fraction among the values.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        array = finite(name, values, ndim)
    whole = array.astype(np.int64)
    if array.ndim != ndim:
        raise ValueError(f"{name} have shape {array.shape}; expected {ndim} axes")
    if array.size == 0:
        raise ValueError(f"{name} are empty: shape {array.shape}")
    if not np.array_equal(whole, array):
        raise ValueError(f"{name} hold {array[whole != array][0]}, which is not a whole number")
    return whole


def same_shape(**arrays: np.ndarray) -> None:
    """Refuses arrays that differ in shape, naming each.

    Raises:
        ValueError: the shapes differ.
    """
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"shapes differ: {shapes}")


def paired_rows(rows: list[dict], dataset: Dataset) -> list[tuple[Record, dict]]:
    """Records and their rows, in the dataset's order.

    Distributed samplers repeat samples to fill the last batch, so a second row of the same record is dropped.  In the
    dataset's order a summary does not depend on the order in which processes delivered their rows.  A record without a
    row (its image could not be read) is left out here; who gathers the rows must report it.

    Raises:
        ValueError: a row of an unknown record, or no row at all.
    """
    first: dict[str, dict] = {}
    for row in rows:
        first.setdefault(row["id"], row)
    pairs = [(record, first.pop(record.id)) for record in dataset.records if record.id in first]
    if first:
        raise ValueError(f"{len(first)} results belong to no record of {dataset.name}, e.g. {next(iter(first))!r}")
    if not pairs:
        raise ValueError(f"none of the {len(dataset.records)} records of {dataset.name} has a result")
    return pairs


def defined(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that have a value; NaN marks an undefined one and is no JSON number."""
    return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}
