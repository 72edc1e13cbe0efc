"""Metrics, and the evaluator of each kind of task.

An evaluator is a module with three functions and a name:

    row(result, record, dataset) -> dict          what a summary needs of one result, made in any process
    summary(rows, dataset) -> dict[str, float]    the dataset's metrics, computed once
    chance(dataset) -> dict[str, float]           the main metric of a guess that sees no pixel
    scores(rows, dataset) -> list                 how good each row is by itself, 0-100 or None; higher is better
    conventions(dataset) -> dict                  the choices that the metrics depend on, as plain values
    MAIN_METRIC                                   the number to compare by, a key of the summary

``scores`` takes the rows of some records once each, in their order, and answers in the same order.

Metrics are percentages unless their docstring says otherwise.
"""

from types import ModuleType

from unihap.evaluation import attributes, detection, parsing, pose, reid
from unihap.structures import Dataset

EVALUATORS: dict[str, ModuleType] = {
    "reid": reid,
    "attributes": attributes,
    "pose": pose,
    "parsing": parsing,
    "detection": detection,
}

LOWER_IS_BETTER = frozenset({"MR-2", "EPE"})


def main_metric(dataset: Dataset) -> str:
    """The number that stands for a dataset: its kind's, or that of the dataset's own metric (pose)."""
    evaluator = EVALUATORS[dataset.kind]
    by_metric: dict[str, str] = getattr(evaluator, "MAIN_METRICS", {})
    return by_metric.get(dataset.metric, evaluator.MAIN_METRIC)
