import json
import math

import numpy as np
import pytest
import torch

from unihap.losses.triplet import soft_margin_triplet


def on_a_line(*positions):
    return torch.tensor(positions, dtype=torch.float64)[:, None]


def soft_margin(positive, negative):
    return math.log1p(math.exp(positive - negative))


def test_hand_computed_batch_takes_the_farthest_positive_and_the_nearest_negative():
    # person 0 at 0, 1 and 4, person 1 at 6 and 9
    loss = soft_margin_triplet(on_a_line(0, 1, 4, 6, 9), torch.tensor([0, 0, 0, 1, 1]))
    pairs = [(4, 6), (3, 5), (4, 2), (3, 2), (3, 5)]
    assert loss.item() == pytest.approx(sum(soft_margin(p, n) for p, n in pairs) / 5)


def test_an_anchor_without_another_image_is_its_own_positive():
    loss = soft_margin_triplet(on_a_line(0, 3), torch.tensor([7, 8]))
    assert loss.item() == pytest.approx(soft_margin(1e-6, 3), rel=1e-9)


def test_equal_features_give_log_2_and_a_finite_gradient():
    feature = torch.ones(4, 3, requires_grad=True)
    loss = soft_margin_triplet(feature, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert torch.equal(feature.grad, torch.zeros_like(feature))


def test_close_features_far_from_the_origin_keep_their_distances_in_float32():
    # inner products alone would lose distances of 1 beside norms of 1e5
    feature = (on_a_line(0, 1, 4, 6, 9) + 1e5).float()
    near = soft_margin_triplet(on_a_line(0, 1, 4, 6, 9), torch.tensor([0, 0, 0, 1, 1]))
    far = soft_margin_triplet(feature, torch.tensor([0, 0, 0, 1, 1]))
    assert far.item() == pytest.approx(near.item(), rel=1e-6)


def test_value_and_gradient_equal_those_of_all_distances():
    torch.manual_seed(0)
    feature = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    identity = torch.arange(4).repeat(3)
    same = identity[:, None] == identity
    distance = (feature[:, None] - feature).square().sum(dim=2).clamp(min=1e-12).sqrt()
    farthest = distance.where(same, distance.new_tensor(-math.inf)).amax(dim=1)
    nearest = distance.where(~same, distance.new_tensor(math.inf)).amin(dim=1)
    expected = torch.log1p((farthest - nearest).exp()).mean()
    loss = soft_margin_triplet(feature, identity)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, feature)[0] for value in (loss, expected)))


def test_the_hardest_images_are_chosen_in_full_precision_under_autocast():
    feature, identity = on_a_line(0, 0.5, 10.03, 10.01, 10.02), torch.tensor([0, 0, 1, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_margin_triplet(feature.float(), identity)
    assert loss.item() == pytest.approx(soft_margin_triplet(feature, identity).item(), rel=1e-5)


def test_large_gaps_do_not_overflow():
    loss = soft_margin_triplet(on_a_line(0, 5000, 1).float(), torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((4999 + soft_margin(5000, 4999) + soft_margin(0, 1)) / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("identity", "reason"), [([3, 3], "only identity 3"), ([5], "only identity 5"), ([], "no image")]
)
def test_a_batch_without_a_negative_is_refused(identity, reason):
    with pytest.raises(ValueError, match=f"two identities in a batch.*{reason}"):
        soft_margin_triplet(torch.zeros(len(identity), 4), torch.tensor(identity, dtype=torch.int64))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"are not \(B, F\) and \(B,\)"):
        soft_margin_triplet(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_of_the_original(golden, dtype):
    arrays = np.load(golden / "unihcp" / "reid.npz")
    expected = json.loads((golden / "unihcp" / "reid_losses.json").read_text())["losses"]["tri_loss"]
    loss = soft_margin_triplet(
        torch.from_numpy(arrays["feature"]).to(dtype), torch.from_numpy(arrays["target_identity"])
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # the original subtracts inner products in float32
