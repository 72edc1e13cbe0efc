import json
import math

import numpy as np
import pytest
import torch

from unihap.losses.masks import present_classes
from unihap.losses.probability import positive_ratio_weight, weighted_bce

# Positive ratios of the released training configuration.
PA100K = """0.04354444 0.17997778 0.5834 0.4166 0.04947778 0.15104444 0.10775556 0.04191111 0.00472222 0.01688889
0.03241111 0.71171111 0.17344444 0.11484444 0.006 0.185 0.19273333 0.1601 0.00952222 0.01345556 0.92437778 0.06216667
0.46044444 0.35266667 0.29462222 0.35271111"""
COCO = """0.38647058 0.33721068 0.33721068 0.29444878 0.29444878 0.49926847 0.49926847 0.3977959 0.3977959 0.36479149
0.36479149 0.43401597 0.43401597 0.33046311 0.33046311 0.27734555 0.27734555"""
LIP = """1 0.23064802 0.69115619 0.078918 0.05449412 0.76045565 0.03942617 0.26859694 0.07149892 0.53259799 0.01493664
0.01700479 0.02081282 0.80158886 0.63311667 0.63311667 0.1574913 0.1574913 0.26741514 0.26741514"""


def ratios(text):
    return torch.tensor([float(ratio) for ratio in text.split()])


def test_weight_is_the_exponential_of_the_share_of_the_other_answer():
    weight = positive_ratio_weight(torch.tensor([[1.0], [0.0]]), torch.tensor([0.9]))
    assert weight.flatten().tolist() == pytest.approx([1.1052, 2.4596], abs=1e-4)  # e^0.1, e^0.9


def test_above_one_half_is_positive_and_one_half_is_not():
    weight = positive_ratio_weight(torch.tensor([[0.51, 0.5]]), torch.tensor([0.2, 0.2]))
    assert weight.flatten().tolist() == pytest.approx([math.exp(0.8), math.exp(0.2)])


def test_hand_computed_losses():
    # logit log 3 is p = 3/4: a positive costs e^(1-0.25) log 4/3, a negative e^0.25 log 4
    logit = torch.full((2, 1), math.log(3))
    loss = weighted_bce(logit, torch.tensor([[1.0], [0.0]]), torch.tensor([0.25]))
    expected = [math.exp(0.75) * math.log(4 / 3), math.exp(0.25) * math.log(4)]
    assert loss.flatten().tolist() == pytest.approx(expected)


def test_integer_targets_are_as_good_as_floating_point_ones():
    logit, ratio = torch.tensor([[0.3, -0.7]]), torch.tensor([0.1, 0.6])
    as_integer = weighted_bce(logit, torch.tensor([[1, 0]], dtype=torch.int8), ratio)
    assert torch.equal(as_integer, weighted_bce(logit, torch.tensor([[1.0, 0.0]]), ratio))


@pytest.mark.parametrize("value", [5.0, math.inf, -math.inf, math.nan])
def test_unknown_elements_cost_nothing_and_have_no_gradient_whatever_their_logit(value):
    logit = torch.tensor([[0.5, value]], requires_grad=True)
    loss = weighted_bce(logit, torch.tensor([[1.0, -1.0]]), torch.tensor([0.3, 0.3]))
    loss.sum().backward()
    assert loss[0, 1] == 0
    assert logit.grad[0, 1] == 0
    assert logit.grad[0, 0] != 0


def test_one_ratio_per_query_is_demanded():
    with pytest.raises(ValueError, match=r"one positive ratio per query, got \(3,\)"):
        weighted_bce(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(3))


def test_logits_and_targets_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        weighted_bce(torch.zeros(2, 2, 1), torch.zeros(2, 2), torch.ones(2))


def test_attribute_loss_of_the_original(golden):
    arrays = np.load(golden / "unihcp" / "pedattr.npz")
    expected = json.loads((golden / "unihcp" / "pedattr_losses.json").read_text())["losses"]["loss"]
    loss = weighted_bce(
        torch.from_numpy(arrays["logit"]), torch.from_numpy(arrays["target_attributes"]), ratios(PA100K)
    )
    assert loss.sum().item() / len(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("array", "suffix"), [("logit", ""), ("logit_initial", "_0"), ("logit_layer4", "_4")])
def test_pose_presence_loss_of_the_original(golden, array, suffix):
    arrays = np.load(golden / "unihcp" / "pose.npz")
    losses = json.loads((golden / "unihcp" / "pose_losses.json").read_text())["losses"]
    target = torch.from_numpy(arrays["target_weight"]).squeeze(2)
    loss = 0.001 * weighted_bce(torch.from_numpy(arrays[array]), target, ratios(COCO)).mean()
    assert loss.item() == pytest.approx(losses[f"loss_bce_pos{suffix}"], rel=1e-5)


@pytest.mark.parametrize(("array", "suffix"), [("logit", ""), ("logit_initial", "_0"), ("logit_layer4", "_4")])
def test_parsing_presence_loss_of_the_original(golden, array, suffix):
    arrays = np.load(golden / "unihcp" / "parsing.npz")
    losses = json.loads((golden / "unihcp" / "parsing_losses.json").read_text())["losses"]
    present = present_classes(torch.from_numpy(arrays["target_labels_every40"]), 20)  # the blocks suffice here
    loss = 0.25 * weighted_bce(torch.from_numpy(arrays[array]), present.float(), ratios(LIP)).mean()
    assert loss.item() == pytest.approx(losses[f"loss_bce{suffix}"], rel=1e-5)
