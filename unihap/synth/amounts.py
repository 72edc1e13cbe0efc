"""How much of every dataset to render."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unihap.lookup import lookup
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.base import SPAN, Amount

# What 100 people give, at sizes that the configs train with; the others are multiples.  The units of the counts are
# those of the layout: market1501, prcc and cuhkpedes count people, threedpw sequences, the others pictures.
PER_100_PEOPLE: dict[str, Amount] = {
    "market1501": Amount({"train": 100, "test": 40}, (128, 64), images=6),
    "pa100k": Amount({"train": 700, "val": 50, "test": 200}, (192, 96)),
    "lip": Amount({"train": 600, "val": 120}, (256, 160)),
    "coco_keypoints": Amount({"train": 320, "val": 80}, (320, 400), people=(1, 5)),
    "crowdhuman": Amount({"train": 150, "val": 40}, (416, 640), people=(1, 15)),
    "prcc": Amount({"train": 25, "val": 5, "test": 12}, (192, 96), images=4),
    "luperson": Amount({"train": 1000}, (256, 128)),
    "cuhkpedes": Amount({"train": 100, "val": 10, "test": 30}, (192, 96), images=2),
    "threedpw": Amount({"train": 10, "val": 3, "test": 4}, (320, 400), images=10, people=(1, 2)),
}
PRESETS: dict[str, dict[str, Amount]] = {
    # small enough to travel with a repository: small pictures of the five kinds of task
    "mini": {
        "market1501": Amount({"train": 100, "test": 40}, (96, 48), images=6),
        "pa100k": Amount({"train": 1800, "val": 20, "test": 250}, (96, 48)),
        "lip": Amount({"train": 1400, "val": 140}, (96, 48)),
        "coco_keypoints": Amount({"train": 1000, "val": 140}, (96, 48)),
        "crowdhuman": Amount({"train": 900, "val": 80}, (80, 128), people=(1, 4)),
    },
    # crops to pre-train a small encoder on
    "crops": {"luperson": Amount({"train": 6000}, (128, 64))},
}
ALL = "all"


def amounts(
    people: int | None,
    datasets: Sequence[str] = (ALL,),
    counts: Mapping[str, Sequence[int]] | None = None,
    preset: str = "",
) -> dict[str, Amount]:
    """What to render.

    Args:
        people: people to train ReID on; everything else in proportion (``PER_100_PEOPLE``).
        datasets: keys of ``LAYOUTS``, or ``all``.
        counts: dataset -> (train, test) or one number for each of its splits, instead of the proportion.
        preset: key of ``PRESETS``, instead of ``people``.

    Raises:
        ValueError: unknown dataset or preset, nobody asked for, or counts that do not fit the dataset's splits.
    """
    if preset and people is not None:
        raise ValueError(f"the preset {preset} says how many people there are; leave the number of people out")
    if preset:
        table = lookup(PRESETS, preset, "preset")
    elif people is None:
        raise ValueError("how many people? give their number or a preset")
    elif people < 1:
        raise ValueError(f"{people} people make no dataset; ask for at least 1")
    else:
        table = {name: _scaled(amount, people / 100) for name, amount in PER_100_PEOPLE.items()}
    wanted = list(table) if ALL in datasets else list(dict.fromkeys(datasets))
    if not wanted:
        raise ValueError(f"no dataset asked for; name some of {', '.join(table)} or {ALL}")
    counts = dict(counts or {})
    for name in [*wanted, *counts]:
        lookup(LAYOUTS, name, "dataset")
    chosen = {}
    for name in (name for name in LAYOUTS if name in wanted):  # so that their order does not matter
        amount = lookup(table, name, f"dataset of the preset {preset}" if preset else "dataset")
        chosen[name] = replace(amount, counts=_counts(name, counts.pop(name))) if name in counts else amount
        check_amount(name, chosen[name])
    if counts:
        raise ValueError(f"a count is given for {next(iter(counts))}, which is not among the datasets asked for")
    return chosen


def check_amount(name: str, amount: Amount) -> None:
    """Refuses amounts that make no dataset.

    Raises:
        ValueError: a split without anything, too few crops to have queries and answers, or numbers without an end.
    """
    height, width = amount.size
    if min(height, width, amount.images) < 1 or not 0 <= amount.people[0] <= amount.people[1]:
        raise ValueError(f"{name}: sizes and numbers must be positive, got {amount}")
    for split in LAYOUTS[name].splits:
        count = amount.counts.get(split, 0)
        if count < 1:
            raise ValueError(f"{name}: its {split} split needs at least 1 of its {LAYOUTS[name].unit}, got {count}")
        if count * amount.images * max(1, amount.people[1]) * 3 > SPAN:
            raise ValueError(f"{name}: {count} {LAYOUTS[name].unit} are more than the {SPAN} numbers of a split")


def _scaled(amount: Amount, factor: float) -> Amount:
    # rounding up, with room for the error of the product
    return replace(amount, counts={split: math.ceil(count * factor - 1e-9) for split, count in amount.counts.items()})


def _counts(name: str, numbers: Sequence[int]) -> dict[str, int]:
    """Counts of the splits; a val split that is not named gets a quarter of test."""
    splits = LAYOUTS[name].splits
    if len(numbers) == 2 and len(splits) == 3:
        numbers = [numbers[0], math.ceil(numbers[1] / 4), numbers[1]]
    if len(numbers) != len(splits):
        raise ValueError(f"{name} has the splits {', '.join(splits)}; got the counts {', '.join(map(str, numbers))}")
    return dict(zip(splits, numbers, strict=True))
