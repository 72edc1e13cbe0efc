import json
import math

import numpy as np
import pytest
import torch

from unihap.losses.detection import detection_losses

LEFT, RIGHT, NONE = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], torch.zeros(0, 4)
# A query at p = 1/2: focal loss as a positive and as a negative.
POSITIVE, NEGATIVE = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)


def losses(boxes, truth, ignore=NONE, num_boxes=1.0, **options):
    """One image whose queries all have p = 1/2."""
    box = torch.tensor([boxes], requires_grad=True)
    logit = torch.zeros(box.shape[:2], requires_grad=True)
    result = detection_losses(logit, box, [truth], [ignore], num_boxes=num_boxes, **options)
    return {name: value.item() for name, value in result.items()}


def test_a_perfect_box_costs_only_its_doubt():
    result = losses([LEFT, RIGHT], torch.tensor([LEFT]))
    assert result["class"] == pytest.approx(POSITIVE + NEGATIVE)
    assert result["l1"] == 0
    assert result["giou"] == pytest.approx(0, abs=1e-6)


def test_hand_computed_box_losses_are_sums_over_people_divided_by_num_boxes():
    # a box over the whole image for a person in its left half: |cx| 0.25 + |w| 0.5, IoU 0.5
    result = losses([[0.5, 0.5, 1.0, 1.0]], torch.tensor([LEFT]), num_boxes=4.0)
    assert result["l1"] == pytest.approx(0.75 / 4)
    assert result["giou"] == pytest.approx(0.5 / 4)


@pytest.mark.parametrize(("covered", "kept"), [(0.69, True), (0.71, False)])
def test_an_unmatched_query_seven_tenths_inside_an_ignore_region_is_left_out(covered, kept):
    region = torch.tensor([[0.5 + 0.25 * covered, 0.5, 0.5 * covered, 1.0]])  # from the middle to the right
    result = losses([LEFT, RIGHT], torch.tensor([LEFT]), region)
    assert result["class"] == pytest.approx(POSITIVE + NEGATIVE * kept)


def test_the_share_is_that_of_the_box_not_of_the_region():
    # the region lies in the box and fills a quarter of it
    result = losses([LEFT, RIGHT], torch.tensor([LEFT]), torch.tensor([[0.75, 0.5, 0.25, 0.5]]))
    assert result["class"] == pytest.approx(POSITIVE + NEGATIVE)


def test_a_matched_query_counts_even_inside_an_ignore_region():
    result = losses([LEFT], torch.tensor([LEFT]), torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    assert result["class"] == pytest.approx(POSITIVE)


def test_without_people_every_query_is_a_negative_and_boxes_have_no_gradient():
    box = torch.tensor([[LEFT, RIGHT]], requires_grad=True)
    result = detection_losses(torch.zeros(1, 2), box, [NONE], [NONE], num_boxes=1.0)
    (result["l1"] + result["giou"]).backward()
    assert result["class"].item() == pytest.approx(2 * NEGATIVE)
    assert (result["l1"].item(), result["giou"].item()) == (0, 0)
    assert torch.equal(box.grad, torch.zeros_like(box))


def test_a_batch_costs_the_sum_of_its_images():
    logit = torch.tensor([[0.3, -0.2], [1.0, 0.5]])
    box = torch.tensor([[LEFT, [0.6, 0.4, 0.3, 0.2]], [[0.5, 0.5, 0.9, 0.9], RIGHT]])
    truth = [torch.tensor([RIGHT]), torch.tensor([RIGHT, LEFT])]
    ignore = [NONE, torch.tensor([LEFT])]
    together = detection_losses(logit, box, truth, ignore, num_boxes=2.0)
    for name, value in together.items():
        alone = sum(
            detection_losses(logit[b : b + 1], box[b : b + 1], [truth[b]], [ignore[b]], num_boxes=2.0)[name]
            for b in range(2)
        )
        torch.testing.assert_close(value, alone)


def test_lists_of_another_length_are_refused():
    with pytest.raises(ValueError, match="1 truth and 2 ignore lists"):
        detection_losses(torch.zeros(1, 2), torch.zeros(1, 2, 4), [NONE], [NONE, NONE], num_boxes=1.0)


@pytest.mark.parametrize("num_boxes", [0.0, -1.0, math.nan])
def test_a_divisor_that_is_not_positive_is_refused(num_boxes):
    with pytest.raises(ValueError, match="num_boxes must be positive"):
        losses([LEFT], NONE, num_boxes=num_boxes)


@pytest.mark.parametrize(("array", "suffix"), [("", ""), ("_layer0", "_0")])
def test_losses_of_the_original(golden, array, suffix):
    arrays = {name: torch.from_numpy(array) for name, array in np.load(golden / "unihcp" / "peddet.npz").items()}
    expected = json.loads((golden / "unihcp" / "peddet_losses.json").read_text())["losses"]
    ignored = arrays["target_ignore"]
    result = detection_losses(
        arrays[f"logit{array}"].squeeze(2),
        arrays[f"box{array}"],
        [arrays["target_box"][~ignored]],
        [arrays["target_box"][ignored]],
        num_boxes=float((~ignored).sum()),
    )
    # the original returns its terms weighted
    assert 2 * result["class"].item() == pytest.approx(expected[f"loss_ce{suffix}"], rel=1e-6)
    assert 5 * result["l1"].item() == pytest.approx(expected[f"loss_bbox{suffix}"], rel=1e-6)
    assert 2 * result["giou"].item() == pytest.approx(expected[f"loss_giou{suffix}"], rel=1e-6)
