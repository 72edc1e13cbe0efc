import math

import pytest
import torch
import torch.nn.functional as F

from unihap.losses.masks import (
    _LabelSampler,
    count_masks,
    mask_losses,
    point_mask_losses,
    present_classes,
    sample_maps,
    sample_points,
)


def label_map(*rows):
    """One image, written as it looks; ``.`` is an ignored pixel."""
    return torch.tensor([[[255 if c == "." else int(c) for c in row] for row in rows]], dtype=torch.uint8)


def constant_logits(labels, *values):
    """(B, Q, 2, 2) logits, one value per class."""
    return torch.tensor(values)[None, :, None, None].repeat(len(labels), 1, 2, 2)


def losses(logit, labels, num_points=2000, num_masks=1.0, **options):
    generator = torch.Generator().manual_seed(0)
    return point_mask_losses(logit, labels, num_masks=num_masks, num_points=num_points, generator=generator, **options)


def test_present_classes_are_those_with_a_pixel_and_ignored_pixels_are_no_class():
    labels = torch.cat([label_map("00.", "002"), label_map("111", "..."), label_map("...", "...")])
    assert present_classes(labels, 4).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert count_masks(labels, 4) == 3


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match=r"contains \[3, 7\], but the task has classes 0 to 2"):
        present_classes(label_map("012", "73."), 3)


def test_a_label_map_of_another_type_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        present_classes(torch.zeros(1, 2, 2, dtype=torch.int64), 3)


def test_masks_read_from_the_label_map_equal_bilinear_sampling_of_binary_masks():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 7, 9)).to(torch.uint8)
    labels[1, 2:5, 3:] = 255
    image, category = torch.tensor([0, 0, 1, 1]), torch.tensor([4, 0, 2, 3])
    points = torch.rand(4, 500, 2)
    points[:, :6] = torch.tensor([[0, 0], [1, 1], [0, 1], [1 / 18, 1 / 14], [2 / 9, 3 / 7], [1, 0.5]])  # edges, centres
    binary = (labels[image] == category[:, None, None]).float()
    expected = F.grid_sample(binary[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]
    torch.testing.assert_close(_LabelSampler(labels).masks(image, category, points), expected, atol=2e-6, rtol=0)


def test_a_point_is_labelled_when_none_of_its_four_pixels_is_ignored():
    labels = label_map("000.", "0000")  # the ignored pixel reaches one pixel centre to the left and one down
    x, y = torch.tensor([0.4, 1.4, 2.4, 2.6, 3.6, 3.4]), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 1.6])
    points = torch.stack([x / 4, y / 2], dim=1)[None]
    labelled = _LabelSampler(labels).labelled(torch.tensor([0]), points)
    assert labelled.tolist() == [[True, True, True, False, False, True]]


def test_hand_computed_mask_losses():
    # p = 3/4, 1/4 for truth 1, 0: cross entropy log 4/3; dice 1 - (2 * 3/4 + 1) / (1 + 1 + 1)
    bce, dice = mask_losses(torch.tensor([[math.log(3), -math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    assert bce.item() == pytest.approx(math.log(4 / 3))
    assert dice.item() == pytest.approx(1 - 2.5 / 3)


def test_points_that_are_not_known_are_as_good_as_absent():
    logit, truth = torch.tensor([[1.0, -2.0, 30.0]]), torch.tensor([[0.7, 0.0, 0.0]])
    with_unknown = mask_losses(logit, truth, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(with_unknown, mask_losses(logit[:, :2], truth[:, :2]))


def test_a_mask_without_known_points_costs_nothing():
    bce, dice = mask_losses(torch.ones(1, 3), torch.ones(1, 3), torch.zeros(1, 3))
    assert (bce.item(), dice.item()) == (0, 0)


def test_every_present_class_is_one_mask_and_sums_are_divided_by_num_masks():
    # one class everywhere at p = 3/4 in every point, but for a little at the border
    labels = torch.zeros(1, 256, 256, dtype=torch.uint8)
    logit = torch.full((1, 2, 256, 256), math.log(3))
    bce, dice = losses(logit, labels, num_masks=4.0, importance=0.0)
    bce_once, dice_once = losses(logit.repeat(3, 1, 1, 1), labels.repeat(3, 1, 1), num_masks=12.0, importance=0.0)
    assert bce.item() == pytest.approx(math.log(4 / 3) / 4, rel=0.02)
    assert dice.item() == pytest.approx((1 - 2 * 0.75 / (0.75 + 1)) / 4, rel=0.02)
    assert bce_once.item() == pytest.approx(bce.item(), rel=0.02)
    assert dice_once.item() == pytest.approx(dice.item(), rel=0.02)


def test_absent_classes_get_no_gradient():
    labels = label_map("00", "22")
    logit = constant_logits(labels, 0.1, 0.2, 0.3).requires_grad_()
    sum(losses(logit, labels)).backward()
    assert logit.grad.abs().sum(dim=(0, 2, 3)).gt(0).tolist() == [True, False, True]


def test_ignored_pixels_are_left_out_by_default_and_negatives_in_the_release():
    # class 0 everywhere it is known and predicted everywhere: right by default, half wrong in the release
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[:, 32:] = 255
    logit = torch.full((1, 1, 64, 64), 20.0)
    bce, dice = losses(logit, labels, importance=0.0)
    assert bce.item() == pytest.approx(0, abs=0.2)  # what is left comes from the border, where maps fade to 0
    assert dice.item() == pytest.approx(0, abs=0.02)
    bce, dice = losses(logit, labels, importance=0.0, ignore="release")
    assert bce.item() == pytest.approx(10, rel=0.1)  # half of the points cost 20
    assert dice.item() == pytest.approx(1 - 2 * 0.5 / (1 + 0.5), abs=0.03)


def test_logits_on_ignored_pixels_get_no_gradient_by_default():
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, 4:] = 255
    logit = torch.zeros(1, 1, 8, 8, requires_grad=True)
    sum(losses(logit, labels)).backward()
    assert logit.grad[0, 0, :4].ne(0).all()
    assert torch.equal(logit.grad[0, 0, 4:], torch.zeros(4, 8))


def test_without_ignored_pixels_both_rules_agree():
    labels = label_map("0011", "0221")
    logit = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    assert losses(logit, labels) == losses(logit, labels, ignore="release")


def test_importance_takes_the_least_certain_candidates_and_leaves_the_rest_uniform():
    # certainty grows from left to right: of 4 * 100 candidates the leftmost 75 are the least certain
    logit = torch.arange(1.0, 101.0).expand(1, 1, 4, 100)
    one = torch.tensor([0])
    generator = torch.Generator().manual_seed(0)
    points = sample_points(logit, one, one, 100, oversample=4.0, importance=0.75, generator=generator)
    x = points[0, :, 0]
    assert points.shape == (1, 100, 2)
    assert x[:75].max() < 0.3  # 75 of 400 candidates: about 0.19
    assert x[75:].max() > 0.8


def test_candidates_that_are_not_usable_are_taken_last():
    logit = torch.zeros(1, 1, 4, 4)
    one = torch.tensor([0])
    points = sample_points(logit, one, one, 60, importance=1.0, usable=lambda p: p[..., 0] > 0.5)
    assert (points[0, :, 0] > 0.5).all()


def test_the_generator_decides_the_points():
    labels, logit = label_map("01", "10"), torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    again = losses(logit, labels, num_points=50)
    assert losses(logit, labels, num_points=50) == again
    assert point_mask_losses(logit, labels, num_masks=1.0, num_points=50) != again


def test_logits_and_labels_cover_the_same_extent_whatever_their_sizes():
    # the same halves at two sizes; the boundary between cells (0.5) is where both change
    fine = torch.zeros(1, 64, 64, dtype=torch.uint8)
    fine[:, :, 32:] = 1
    logit = torch.full((1, 2, 64, 64), -10.0)
    logit[:, 0, :, :32] = logit[:, 1, :, 32:] = 10.0
    same = losses(logit, fine, importance=0.0)
    coarser = losses(F.avg_pool2d(logit, 2), fine, importance=0.0)
    shifted = losses(logit.roll(16, dims=3), fine, importance=0.0)
    assert same[1].item() < 0.05
    assert coarser[1].item() < 0.05
    assert shifted[1].item() > 0.5


def test_values_between_cells_are_bilinear_and_fade_to_zero_beyond_the_border():
    maps = torch.tensor([[[[1.0, 3.0]]]])  # one row of two cells with centres at x = 1/4 and 3/4
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.75, 0.5], [1.0, 0.5], [0.25, 0.0]]])
    assert sample_maps(maps, points).flatten().tolist() == pytest.approx([1.0, 2.0, 3.0, 1.5, 0.5])


def test_a_batch_without_classes_costs_nothing_and_has_a_zero_gradient():
    labels = label_map("..", "..")
    logit = constant_logits(labels, 0.1, 0.2).requires_grad_()
    bce, dice = losses(logit, labels)
    (bce + dice).backward()
    assert (bce.item(), dice.item()) == (0, 0)
    assert torch.equal(logit.grad, torch.zeros_like(logit))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_masks": 0.0}, "num_masks must be positive, got 0.0"),
        ({"num_points": 0}, "num_points 0"),
        ({"importance": 1.5}, "importance 1.5"),
        ({"oversample": 0.5}, "oversample 0.5"),
        ({"ignore": "paper"}, "'ignore' or 'release', got 'paper'"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    labels = label_map("01")
    with pytest.raises(ValueError, match=message):
        losses(constant_logits(labels, 0.0, 0.0), labels, **options)


def test_logits_and_labels_of_different_batches_are_refused():
    with pytest.raises(ValueError, match="not of one batch"):
        losses(torch.zeros(2, 2, 4, 4), label_map("01"))
