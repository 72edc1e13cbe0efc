from types import SimpleNamespace

import pytest

from unihap.engine.cases import choose_cases
from unihap.structures import Dataset, Record


def choose(scores, count, numbers=None, **functions):
    """Cases of a dataset whose records of these numbers (all of them by default) have these scores."""
    numbers = list(range(len(scores))) if numbers is None else numbers
    rows = [{"id": str(number)} for number in numbers]
    data = Dataset("toy", "unheard_of", [Record(str(n), "", None) for n in range(max(numbers, default=-1) + 1)])
    evaluator = SimpleNamespace(scores=lambda rows, dataset: scores, **functions)
    return {
        cases.suffix: cases for cases in choose_cases(SimpleNamespace(evaluator=evaluator), data, rows, numbers, count)
    }


def test_best_and_worst_begin_with_the_extreme_and_break_ties_by_the_order_of_the_dataset():
    cases = choose([5.0, 1.0, 9.0, 1.0, 9.0, 5.0], 3)
    assert (cases["_best"].numbers, cases["_best"].scores) == ([2, 4, 0], [9, 9, 5])
    assert (cases["_worst"].numbers, cases["_worst"].scores) == ([1, 3, 5], [1, 1, 5])


@pytest.mark.parametrize("number", range(6))
def test_no_record_is_among_the_best_and_the_worst(number):
    cases = choose([1.0] * number, 9)
    best, worst = (list(cases[name].numbers) if name in cases else [] for name in ("_best", "_worst"))
    assert sorted(best + worst) == list(range(number))
    assert len(best) - len(worst) in (0, 1)


def test_records_without_a_score_are_neither():
    cases = choose([None, 3.0, None, 4.0], 9)
    assert cases["_best"].numbers == [3]
    assert cases["_worst"].numbers == [1]
    assert set(choose([None, None], 9)) == {""}


def test_numbers_are_those_of_records_not_of_rows():
    """Records 0 and 3 could not be read."""
    cases = choose([2.0, 8.0, 5.0], 9, numbers=[1, 2, 4], company=lambda chosen, rows, dataset: [chosen[0], 2])
    assert cases[""].numbers == [1, 2, 4]
    assert cases["_best"].numbers == [2, 4]
    assert cases["_best"].company == [2, 4]
    assert cases["_worst"].company == [1, 4]


def test_nothing_is_scored_when_nothing_is_to_be_shown():
    assert choose(None, 0, numbers=[0, 1]) == {}
    assert choose([], 4) == {}


def test_the_heading_says_what_the_score_is():
    cases = choose([1.0, 2.0], 1, conventions=lambda dataset: {"score": "OKS of the person, %"})
    assert cases["_best"].heading == "the best by OKS of the person, %"
    assert cases["_worst"].heading == "the worst by OKS of the person, %"
