import torch

from unihap.losses.boxes import intersection_over_own_area


def test_share_of_a_box_inside_a_region_is_not_symmetric():
    small, large = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 4, 4]])
    assert intersection_over_own_area(small, large).item() == 1.0
    assert intersection_over_own_area(large, small).item() == 0.25


def test_every_box_meets_every_region():
    boxes = torch.tensor([[0.0, 0, 4, 2], [10, 10, 12, 12]])
    regions = torch.tensor([[1.0, 1, 3, 9], [-5, -5, 0, 0], [11, 10, 20, 12]])
    expected = torch.tensor([[2 / 8, 0, 0], [0, 0, 0.5]])
    torch.testing.assert_close(intersection_over_own_area(boxes, regions), expected)


def test_a_box_without_area_lies_in_nothing():
    assert intersection_over_own_area(torch.tensor([[1.0, 1, 1, 3]]), torch.tensor([[0.0, 0, 4, 4]])).item() == 0


def test_no_boxes_or_no_regions_give_an_empty_table():
    assert intersection_over_own_area(torch.zeros(0, 4), torch.zeros(2, 4)).shape == (0, 2)
    assert intersection_over_own_area(torch.zeros(2, 4), torch.zeros(0, 4)).shape == (2, 0)
