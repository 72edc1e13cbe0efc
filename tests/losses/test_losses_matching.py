import itertools
import math

import numpy as np
import pytest
import torch

from unihap.losses.matching import match, matching_cost

LEFT, RIGHT = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]  # the halves of the image


def test_hand_computed_cost():
    # p = 1/2, the box is the left half and the person the whole image: L1 0.25 + 0.5, GIoU 0.5
    cost = matching_cost(torch.zeros(1), torch.tensor([LEFT]), torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    positive, negative = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    assert cost.item() == pytest.approx(2 * (positive - negative) + 5 * 0.75 - 2 * 0.5, rel=1e-6)


def test_boxes_that_do_not_touch_cost_more_the_farther_they_are():
    # GIoU of two slivers at the outer edges: -(enclosing - union) / enclosing = -0.8
    box, person = torch.tensor([[0.05, 0.5, 0.1, 1.0]]), torch.tensor([[0.95, 0.5, 0.1, 1.0]])
    assert matching_cost(torch.zeros(1), box, person, weights=(0, 0, 1)).item() == pytest.approx(0.8)


def test_each_person_gets_the_query_that_lies_on_it():
    query, person = match(
        torch.zeros(3), torch.tensor([RIGHT, [0.1, 0.1, 0.1, 0.1], LEFT]), torch.tensor([LEFT, RIGHT])
    )
    assert (query.tolist(), person.tolist()) == ([0, 2], [1, 0])
    assert query.dtype == person.dtype == torch.int64


def test_of_equal_boxes_the_surest_query_is_matched():
    query, person = match(torch.tensor([-1.0, 2.0, 0.0]), torch.tensor([LEFT] * 3), torch.tensor([LEFT]))
    assert (query.tolist(), person.tolist()) == ([1], [0])


def test_the_total_cost_is_the_least_of_all_assignments():
    torch.manual_seed(0)
    logit, box, truth = torch.randn(5), torch.rand(5, 4) * 0.5 + 0.25, torch.rand(3, 4) * 0.5 + 0.25
    cost = matching_cost(logit, box, truth)
    query, person = match(logit, box, truth)
    least = min(sum(cost[q, n] for n, q in enumerate(chosen)) for chosen in itertools.permutations(range(5), 3))
    assert cost[query, person].sum().item() == pytest.approx(least.item())


def test_an_image_without_people_matches_nothing():
    query, person = match(torch.zeros(3), torch.tensor([LEFT] * 3), torch.zeros(0, 4))
    assert query.shape == person.shape == (0,)
    assert query.dtype == torch.int64


def test_more_people_than_queries_leave_people_without_a_query():
    query, person = match(torch.zeros(1), torch.tensor([RIGHT]), torch.tensor([LEFT, RIGHT]))
    assert (query.tolist(), person.tolist()) == ([0], [1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_refused(value):
    box = torch.tensor([LEFT, RIGHT, [value, 0.5, 0.5, 1.0]])
    with pytest.raises(FloatingPointError, match="not finite for 1 of 3 queries and 2 of 2 people"):
        match(torch.zeros(3), box, torch.tensor([LEFT, RIGHT]))


def test_a_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"are not \(Q,\), \(Q, 4\) and \(N, 4\)"):
        match(torch.zeros(1, 3), torch.zeros(1, 3, 4), torch.zeros(2, 4))


def test_assignment_of_the_original(golden):
    arrays = {name: torch.from_numpy(array) for name, array in np.load(golden / "unihcp" / "peddet.npz").items()}
    people = arrays["target_box"][~arrays["target_ignore"]]
    query, person = match(arrays["logit"][0, :, 0], arrays["box"][0], people)
    assert torch.equal(query, arrays["match_final_query"])
    assert torch.equal(person, arrays["match_final_truth"])
