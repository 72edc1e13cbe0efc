import pytest
import torch

from unihap.losses.heatmap import heatmap_mse


def test_hand_computed_mean_over_all_joints_and_cells():
    heatmap = torch.zeros(1, 2, 2, 3)
    target = torch.zeros(1, 2, 2, 3)
    heatmap[0, 0, 0, 0], target[0, 0, 1, 2] = 3.0, 1.0  # squared errors 9 + 1 in joint 0
    heatmap[0, 1] = 2.0  # 6 cells of 4 in joint 1
    assert heatmap_mse(heatmap, target, torch.tensor([[1.0, 1.0]])).item() == pytest.approx((10 + 24) / 12)


def test_an_unlabelled_joint_costs_nothing_but_still_counts_in_the_mean():
    heatmap, target = torch.full((1, 2, 2, 3), 2.0), torch.zeros(1, 2, 2, 3)
    assert heatmap_mse(heatmap, target, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(24 / 12)


def test_the_weight_multiplies_the_square_and_is_not_squared():
    heatmap, target = torch.full((1, 1, 2, 3), 2.0), torch.zeros(1, 1, 2, 3)
    assert heatmap_mse(heatmap, target, torch.tensor([[0.5]])).item() == pytest.approx(2.0)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weight \(1, 2, 1\)"):
        heatmap_mse(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 1))
