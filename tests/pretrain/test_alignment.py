import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unihap.pretrain.alignment import Alignment, SimSiamAlignment, info_nce, negative_cosine


def random_pair(seed=0, batch=5, width=8):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, dtype=torch.float64, generator=generator) for _ in range(2)]


def test_orthonormal_features_give_the_known_loss():
    """Logits 5 on the diagonal, 0 elsewhere: ln(e^5 + 3) - 5 in each direction, times 2 tau = 0.4."""
    features = torch.eye(4, dtype=torch.float64)
    assert info_nce(features, features, scale=False).item() == pytest.approx(0.020012, abs=1e-6)
    assert Alignment(weight=1.0)(features, features).item() == pytest.approx(0.016010, abs=1e-6)
    assert Alignment()(features, features).item() == pytest.approx(0.05 * 0.016010, abs=1e-7)


def test_equal_features_leave_a_guess_among_the_batch():
    features = torch.ones(4, 6)
    assert info_nce(features, features, scale=False).item() == pytest.approx(math.log(4), abs=1e-6)
    assert Alignment(weight=1.0)(features, features).item() == pytest.approx(1.109035, abs=1e-6)


def test_rows_are_queries_and_the_temperature_divides():
    """Logits (2, 0) and (2, 0) with labels 0 and 1: ln(1 + e^-2) and ln(1 + e^2)."""
    query = torch.tensor([[3.0, 0.0], [5.0, 0.0]])
    key = torch.tensor([[0.5, 0.0], [0.0, 7.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert info_nce(query, key, tau=0.5, scale=False).item() == pytest.approx(expected, rel=1e-6)
    assert info_nce(query, key, tau=0.5).item() == pytest.approx(expected, rel=1e-6)  # 2 tau = 1
    # columns as queries: logits (2, 2) and (0, 0)
    assert info_nce(key, query, tau=0.5).item() == pytest.approx(math.log(2), rel=1e-6)
    assert Alignment(1.0, 0.5)(query, key).item() == pytest.approx(expected + math.log(2), rel=1e-6)
    assert Alignment(1.0, 0.5, symmetric=False)(query, key).item() == pytest.approx(expected, rel=1e-6)


def test_the_length_of_a_feature_does_not_matter():
    first, second = random_pair()
    scaled = info_nce(first * 17, second / 3)
    torch.testing.assert_close(scaled, info_nce(first, second))


def test_keys_get_no_gradient():
    first, second = (x.requires_grad_() for x in random_pair())
    info_nce(first, second).backward()
    assert first.grad.abs().max() > 0
    assert second.grad is None


def test_each_view_learns_as_a_query_only():
    first, second = (x.requires_grad_() for x in random_pair())
    Alignment(weight=1.0)(first, second).backward()
    as_query = first.detach().clone().requires_grad_()
    info_nce(as_query, second).backward()
    torch.testing.assert_close(first.grad, as_query.grad)
    as_query = second.detach().clone().requires_grad_()
    info_nce(as_query, first).backward()
    torch.testing.assert_close(second.grad, as_query.grad)


def test_half_precision_is_computed_in_float32():
    first, second = (x.bfloat16() for x in random_pair())
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(first, second)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(first.float(), second.float()), rtol=0, atol=0)


def test_negative_cosine_of_known_angles():
    prediction = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    target = torch.tensor([[5.0, 0.0], [4.0, 0.0], [-1.0, -1.0]])
    assert negative_cosine(prediction[:1], target[:1]).item() == pytest.approx(-1)
    assert negative_cosine(prediction[1:2], target[1:2]).item() == pytest.approx(0)
    assert negative_cosine(prediction, target).item() == pytest.approx(0, abs=1e-6)  # mean of -1, 0 and 1


def test_simsiam_predicts_each_view_from_the_other_and_stops_the_targets_gradient():
    first, second = (x.float().requires_grad_() for x in random_pair())
    module = SimSiamAlignment(8, weight=0.5)
    module(first, second).backward()
    expected = first.detach().clone().requires_grad_()
    loss = 0.25 * negative_cosine(module.predictor(expected), second.detach())
    torch.testing.assert_close(first.grad, torch.autograd.grad(loss, expected)[0])
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.zero_grad()
    second.grad = None
    SimSiamAlignment(8, symmetric=False)(first, second).backward()
    assert second.grad is None


def test_simsiam_of_a_perfect_predictor_is_minus_its_weight():
    module = SimSiamAlignment(8, weight=0.05)
    module.predictor = torch.nn.Identity()
    features = random_pair()[0]
    assert module(features, 2 * features).item() == pytest.approx(-0.05)


@pytest.mark.parametrize("function", [info_nce, negative_cosine])
def test_features_that_do_not_pair_up_are_refused(function):
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(5, 3\)"):
        function(torch.ones(4, 3), torch.ones(5, 3))
    with pytest.raises(ValueError, match=r"must both be \(B, D\)"):
        function(torch.ones(4, 1, 3), torch.ones(4, 1, 3))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="tau must be above 0, got 0"):
        Alignment(tau=0)


@pytest.mark.dist
def test_three_processes_learn_what_one_learns_from_the_whole_batch(tmp_path):
    """Mean losses and mean gradients of three thirds of a batch, in float64, against the batch in one process."""
    script = Path(__file__).with_name("gathered.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    one, three = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (1, 3))
    assert one.keys() == three.keys()
    assert {"loss.reconstruction", "loss.alignment", "cls_token"} < one.keys()
    for name, value in one.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(three[name], value, rtol=0, atol=1e-9, msg=name)
    assert one["encoder.blocks.0.attn.qkv.weight"].abs().max() > 1e-6
    # Negatives of the other processes matter: without them the loss is another.
    assert abs(three["alone"] - three["loss.alignment"]) > 1e-3
