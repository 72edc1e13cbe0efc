"""Linear probing: each unit is one linear map of the encoder's features, computed another way."""

import pytest
import torch
import torch.nn.functional as F

from unihap.models.readout import LinearReadout
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit

SMALL = {"position_grid": (4, 4), "drop_path": 0.0, "width": 16, "num_heads": 2, "num_layers": 2, "feedforward": 8}
POSE = TaskSpec("pose", 5, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES)
REID = TaskSpec("reid", 3, frozenset({Unit.FEATURE}), Supervision.LAST, feature_norm=True)
BOXES = TaskSpec("boxes", 3, frozenset({Unit.PROBABILITY, Unit.BOX}), Supervision.LAYERS, num_anchors=4)


def images():
    return torch.randint(0, 256, (2, 3, 32, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_a_heatmap_is_linear_in_features_upsampled_to_stride_4():
    torch.manual_seed(0)
    readout, features = LinearReadout(POSE, 6, 16).double(), torch.randn(2, 6, 3, 4).double()
    upsampled = F.interpolate(features, size=(12, 16), mode="bilinear", align_corners=False)
    weight, bias = readout.to_heatmap.weight[:, :, 0, 0], readout.to_heatmap.bias
    expected = torch.einsum("qd,bdhw->bqhw", weight, upsampled) + bias[:, None, None]
    torch.testing.assert_close(readout(features).heatmap, expected)


def test_probability_and_descriptor_are_linear_in_the_mean_feature_by_hand():
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2): means 2 and 2
    probability = LinearReadout(TaskSpec("t", 1, frozenset({Unit.PROBABILITY}), Supervision.LAST), 2, 4)
    feature = LinearReadout(TaskSpec("t", 2, frozenset({Unit.FEATURE}), Supervision.LAST), 2, 4)
    with torch.no_grad():
        probability.to_logit.weight.copy_(torch.tensor([[1.0, -3.0]]))
        probability.to_logit.bias.fill_(0.5)
        feature.to_feature.weight.fill_(1.0)
        feature.to_feature.bias.copy_(torch.arange(8.0))
    assert probability(features).logit.tolist() == [[-3.5]]
    assert feature(features).feature.tolist() == [[4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]]
    assert probability(features).heatmap is None


def test_a_linear_readout_predicts_once_and_has_no_queries():
    torch.manual_seed(0)
    model = Architecture("vit_pico_patch16", **SMALL, readout="linear").make([POSE, REID]).train()
    assert len(model(images(), "pose")) == 1
    assert model(images(), "pose")[-1].heatmap.shape == (2, 5, 8, 12)
    assert {name for name, _ in model.private["pose"].named_parameters()} == {
        f"readout.to_{unit}.{part}" for unit in ("heatmap", "logit") for part in ("weight", "bias")
    }
    reid = model(images(), "reid")[-1]
    assert reid.feature.shape == (2, 3 * 16)
    torch.testing.assert_close(reid.normed_feature.mean(0), torch.zeros(48), atol=1e-5, rtol=0)


def test_a_probe_has_the_shared_weights_of_the_model_it_probes():
    torch.manual_seed(0)
    trained = Architecture("vit_pico_patch16", **SMALL).make([POSE]).shared.state_dict()
    torch.manual_seed(0)
    probe = Architecture("vit_pico_patch16", **SMALL, readout="linear").make([POSE]).shared.state_dict()
    assert probe.keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in probe.items())


def test_a_probe_of_a_frozen_encoder_trains_its_own_weights_alone():
    model = Architecture("vit_pico_patch16", **SMALL, readout="linear").make([POSE])
    model.shared.requires_grad_(False)
    prediction = model(images(), "pose")[-1]
    (prediction.heatmap.sum() + prediction.logit.sum()).backward()
    assert all(p.grad is None for p in model.shared.parameters())
    assert all(p.grad is not None for p in model.private["pose"].parameters())


def test_the_encoder_of_a_probe_may_have_prompts():
    torch.manual_seed(0)
    model = Architecture("vit_pico_patch16", **SMALL, readout="linear", encoder_prompts=2).make([POSE])
    model(images(), "pose")[-1].logit.sum().backward()
    assert model.private["pose"].prompts.encoder.grad.abs().sum() > 0


def test_what_a_linear_readout_cannot_do_is_refused():
    with pytest.raises(ValueError, match="READOUT linear has no boxes: task boxes"):
        Architecture("vit_pico_patch16", **SMALL, readout="linear").make([BOXES])
    with pytest.raises(ValueError, match=r"READOUT linear has no decoder to prompt; set PROMPT\.DECODER_LENGTH 0"):
        Architecture("vit_pico_patch16", **SMALL, readout="linear", decoder_prompts=2).make([POSE])
    with pytest.raises(ValueError, match=r"unknown MODEL\.READOUT 'linaer'; did you mean linear"):
        Architecture("vit_pico_patch16", **SMALL, readout="linaer").make([POSE])
