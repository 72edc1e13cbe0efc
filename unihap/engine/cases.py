"""Which records an evaluation shows: a spread over the dataset, the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass

from unihap.structures import Dataset
from unihap.tasks.task import Row, Task


@dataclass(frozen=True)
class Cases:
    """The records of one picture sheet.

    Attributes:
        suffix: of the sheet's file: "", ``_best`` or ``_worst``.
        heading: what the sheet says about itself.
        numbers: record numbers in the order of the sheet.
        scores: one for each record, or none at all.
        company: further record numbers that the pictures need.
    """

    suffix: str
    heading: str
    numbers: Sequence[int]
    scores: Sequence[float] = ()
    company: Sequence[int] = ()


def choose_cases(task: Task, dataset: Dataset, rows: list[Row], numbers: Sequence[int], count: int) -> list[Cases]:
    """Records to show, from what is left of a whole evaluation: its rows.

    The spread is even over the dataset, whose neighbours are often alike (ReID: all queries).  Best and worst are there
    where the evaluator scores rows; no record is in both, and equal scores are in the order of the dataset.

    Args:
        task: with its evaluator.
        dataset: what was evaluated.
        rows: of all readable records, in their order.
        numbers: the record number of every row.
        count: records on each sheet, at most; 0 shows none.
    """
    total = len(dataset.records)
    count = min(count, total)
    readable = set(numbers)
    spread = [number for i in range(count) if (number := i * total // count) in readable]
    chosen = [Cases("", "", spread)]
    score = getattr(task.evaluator, "scores", None)
    if score is None or not count:
        return [cases for cases in chosen if cases.numbers]
    scored = [(value, place) for place, value in enumerate(score(rows, dataset)) if value is not None]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    half = (len(scored) + 1) // 2
    worst = sorted(scored[half:], key=lambda pair: (pair[0], pair[1]))
    meaning = task.evaluator.conventions(dataset)["score"] if hasattr(task.evaluator, "conventions") else "score"
    find_company = getattr(task.evaluator, "company", None)
    for name, pairs in (("best", scored[: min(count, half)]), ("worst", worst[:count])):
        places = [place for _, place in pairs]
        company = find_company(places, rows, dataset) if find_company and places else []
        chosen.append(
            Cases(
                f"_{name}",
                f"the {name} by {meaning}",
                [numbers[place] for place in places],
                [value for value, _ in pairs],
                [numbers[place] for place in company],
            )
        )
    return [cases for cases in chosen if cases.numbers]
