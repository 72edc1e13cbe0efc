"""The model: shapes, gates, padding, and the arithmetic of its parts computed another way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unihap.models.decoder import Decoder
from unihap.models.encoder import Encoder, build_vit, patch_size
from unihap.models.interpreter import Interpreter
from unihap.models.position import PositionTable, sincos_table, sine_code, token_centres
from unihap.models.private import Private
from unihap.models.unihap import Architecture, UniHAP
from unihap.structures import Supervision, TaskSpec, Unit

P, F_, H, B = Unit.PROBABILITY, Unit.FEATURE, Unit.HEATMAP, Unit.BOX
SPECS = [
    TaskSpec("reid", 6, frozenset({F_}), Supervision.LAST, feature_norm=True),
    TaskSpec("attributes", 5, frozenset({P}), Supervision.LAST),
    TaskSpec("pose", 7, frozenset({P, H}), Supervision.LAYERS_AND_QUERIES),
    TaskSpec("detection", 3, frozenset({P, B}), Supervision.LAYERS, num_anchors=4),
]


@pytest.fixture(scope="module")
def model() -> UniHAP:
    torch.manual_seed(0)
    return Architecture("vit_pico_patch16", (8, 8), 0.0, width=32, num_heads=2, num_layers=2, feedforward=48).make(
        SPECS
    )


def images(batch=2, height=64, width=48):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("task", "shapes"),
    [
        ("reid", {"feature": (2, 192), "normed_feature": (2, 192)}),
        ("attributes", {"logit": (2, 5)}),
        ("pose", {"logit": (2, 7), "heatmap": (2, 7, 16, 12)}),
        ("detection", {"logit": (2, 12), "box": (2, 12, 4)}),
    ],
)
def test_a_task_gets_the_units_it_opens_and_no_other(model, task, shapes):
    prediction = model.eval()(images(), task)[-1]
    assert {name: tuple(value.shape) for name, value in vars(prediction).items() if value is not None} == shapes


@pytest.mark.parametrize(("task", "training", "evaluating"), [("reid", 1, 1), ("pose", 3, 1), ("detection", 2, 1)])
def test_every_supervised_layer_predicts_in_training_and_the_last_one_at_test(model, task, training, evaluating):
    assert len(model.train()(images(), task)) == training
    assert len(model.eval()(images(), task)) == evaluating


@pytest.mark.parametrize("task", ["attributes", "pose", "detection"])
def test_one_image_keeps_its_batch_axis_and_equals_its_place_in_a_batch(model, task):
    both, one = model.eval()(images(), task)[-1], model(images()[:1], task)[-1]
    torch.testing.assert_close(one.logit, both.logit[:1], atol=1e-5, rtol=1e-4)


def test_the_last_prediction_is_the_same_with_and_without_the_other_layers(model):
    model.eval()
    torch.testing.assert_close(
        model(images(), "pose", all_layers=True)[-1].heatmap, model(images(), "pose")[-1].heatmap, atol=1e-5, rtol=1e-4
    )


def test_unknown_task_is_refused_with_the_closest_name(model):
    with pytest.raises(ValueError, match="unknown task 'pos'; did you mean pose"):
        model(images(), "pos")


def test_images_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), got \(2, 64, 48\)"):
        model(images()[:, 0], "pose")


def test_closed_units_get_no_gradient(model):
    model.train().zero_grad()
    model(images(), "attributes")[-1].logit.sum().backward()
    interpreter = model.shared.interpreter
    assert interpreter.to_logit.weight.grad is not None
    assert interpreter.to_pixel.weight.grad is None
    assert interpreter.to_box[0].weight.grad is None
    assert model.private["pose"].content.grad is None


def test_padding_named_by_sizes_changes_nothing_but_the_mean_colour(model):
    """Padded pixels become zeros after the normalisation, whatever value they hold."""
    encoder = model.shared.encoder
    padded = images(1, 64, 64)
    sizes = torch.tensor([[50, 40]])
    x = encoder.normalise(padded, sizes)
    assert not x[..., 50:, :].any()
    assert not x[..., 40:].any()
    other = padded.clone()
    other[..., 40:] = 255
    torch.testing.assert_close(model(padded, "detection", sizes)[-1].box, model(other, "detection", sizes)[-1].box)


def test_sides_are_rounded_up_to_whole_patches_with_zeros(model):
    x = model.shared.encoder.normalise(images(1, 33, 16))
    assert x.shape == (1, 3, 48, 16)
    assert not x[..., 33:, :].any()


def test_pixels_are_normalised_with_the_imagenet_statistics(model):
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    x = model.shared.encoder.normalise(white)[0, :, 0, 0]
    torch.testing.assert_close(x, torch.tensor([131.325 / 58.395, 138.72 / 57.12, 151.47 / 57.375]))


# ----------------------------------------------------------------------------------------------- positions


def test_sine_code_of_a_point_by_hand():
    """UniHCP Eq. 3: x = 0.5 and y = 0.25; y comes first, and 2 pi y = pi / 2."""
    code = sine_code(torch.tensor([0.5, 0.25]), 256)
    torch.testing.assert_close(code[:2], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(code[128:130], torch.tensor([0.0, -1.0]), atol=1e-6, rtol=0)
    angle = 2 * math.pi * 0.25 / 10000 ** (10 / 128)
    torch.testing.assert_close(code[10:12], torch.tensor([math.sin(angle), math.cos(angle)]))


def test_token_centres_are_row_major_fractions():
    centres = token_centres((1, 2), torch.device("cpu"), torch.float32)
    assert centres.tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert token_centres((2, 1), torch.device("cpu"), torch.float32).tolist() == [[0.5, 0.25], [0.5, 0.75]]


def test_first_value_of_the_position_table_codes_x_then_y():
    table = sincos_table((3, 2), 8)  # (1, 8, 3, 2): sin x (2), cos x (2), sin y (2), cos y (2)
    assert table.shape == (1, 8, 3, 2)
    torch.testing.assert_close(table[0, 0, 0], torch.tensor([0.0, math.sin(1.0)]))
    torch.testing.assert_close(table[0, 4, :, 0], torch.tensor([0.0, math.sin(1.0), math.sin(2.0)]))


def test_the_position_table_is_stretched_over_every_grid():
    table = PositionTable(8, (6, 6))
    expected = F.interpolate(table.table, size=(3, 4), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(table((3, 4)), expected)


def test_a_cached_position_table_follows_its_weights():
    table = PositionTable(8, (6, 6))
    with torch.no_grad():
        before = table((3, 3))
        assert table((3, 3)) is before
        table.table.mul_(2)
        torch.testing.assert_close(table((3, 3)), 2 * before)


def test_a_table_met_without_gradients_still_trains_afterwards():
    table = PositionTable(8, (6, 6))
    with torch.no_grad():
        table((3, 3))
    table((3, 3)).sum().backward()
    assert table.table.grad is not None


# ------------------------------------------------------------------------------------------- encoder, decoder


def test_layer_norm_constants_are_the_release_s():
    """Wrong constants hide in outputs (2e-6 to 5e-6 here), so they are read directly."""
    encoder = Encoder("vit_pico_patch16", (4, 4))
    assert {m.eps for m in encoder.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.eps for m in Decoder(64, 32, 2, 1, 8).modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    assert Interpreter(64, 32).upsample[1].eps == 1e-6


def test_drop_path_rises_linearly_to_its_last_block():
    encoder = Encoder("vit_tiny_patch16", (4, 4), drop_path=0.22)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.blocks]
    assert rates == pytest.approx([0.02 * i for i in range(12)])


def test_residual_branches_start_smaller_the_deeper_they_are():
    """Standard deviation 0.02 / sqrt(2 l) in block l."""
    torch.manual_seed(0)
    encoder = Encoder("vit_tiny_patch16", (4, 4))
    for number in (1, 12):
        std = encoder.blocks[number - 1].mlp.fc2.weight.std().item()
        assert std == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.02)


def test_depths_order_the_parameters_of_the_encoder():
    encoder = Encoder("vit_pico_patch16", (4, 4))
    depths = {name: encoder.depth_of(name) for name, _ in encoder.named_parameters()}
    assert depths["patch_embed.proj.weight"] == 0
    assert depths["blocks.0.norm1.weight"] == 1
    assert depths["blocks.1.mlp.fc2.bias"] == 2
    assert depths["norm.weight"] == depths["position.table"] == 3


@pytest.mark.parametrize(("name", "side"), [("vit_micro_patch8", 8), ("vit_pico_patch16", 16)])
def test_an_encoder_has_a_cell_per_patch(name, side):
    assert patch_size(name) == side
    encoder = Encoder(name, (4, 4), 0.0)
    assert encoder(torch.zeros(1, 3, 2 * side, side + 1)).shape == (1, encoder.width, 2, 2)


def test_timm_s_names_have_their_patches():
    assert patch_size("vit_small_patch8_224") == 8
    with pytest.raises(ValueError, match="unknown encoder 'vit_minute'"):
        patch_size("vit_minute")


def test_any_plain_timm_vit_serves_as_encoder():
    encoder = Encoder("vit_tiny_patch16_224", (14, 14))
    assert encoder.width == 192
    assert encoder(images(1, 32, 64)).shape == (1, 192, 2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_bas_patch16", "unknown encoder 'vit_bas_patch16'; did you mean vit_base_patch16"),
        ("resnet18", "unknown encoder 'resnet18'.*must be a plain ViT"),
        ("vit_base_r50_s16_224", "is not a plain ViT .patches that are no single convolution"),
        ("vit_base_patch16_clip_224", "is not a plain ViT .a norm before the blocks"),
    ],
)
def test_other_encoders_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build_vit(name, 0.0)


def test_activation_checkpointing_gives_the_same_gradients():
    encoder = Encoder("vit_pico_patch16", (4, 4), drop_path=0.0)
    gradients = []
    for checkpoint in (False, True):
        encoder.zero_grad()
        encoder(images(), checkpoint_activations=checkpoint).square().sum().backward()
        gradients.append(encoder.blocks[0].attn.qkv.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_detection_query_i_is_pattern_i_div_a_at_anchor_i_mod_a(model):
    """The states before the first layer are the patterns, each repeated for every anchor."""
    private = model.private["detection"]
    features = model.shared.encoder(images())
    states = model.shared.decoder(features, private())[0]
    assert torch.equal(states[0, 5], private.content[1])  # query 5 of 3 x 4: pattern 1, anchor 1
    boxes = model.shared.interpreter.boxes(torch.zeros(1, 1, 12, 32), private.anchor)
    difference = torch.logit(boxes[0, 0, :, :2]) - torch.logit(private.anchor, eps=1e-5).repeat(3, 1)
    torch.testing.assert_close(difference, difference[:1].expand(12, 2), atol=1e-4, rtol=1e-4)


def test_boxes_are_the_sigmoid_of_offsets_from_the_anchor():
    """UniHCP Eq. 6, by hand: no offset at anchor (0.25, 0.5) gives its place and half the image."""
    interpreter = Interpreter(8, 4)
    for p in interpreter.to_box.parameters():
        nn.init.zeros_(p)
    box = interpreter.boxes(torch.zeros(1, 1, 1, 4), torch.tensor([[0.25, 0.5]]))
    torch.testing.assert_close(box[0, 0, 0], torch.tensor([0.25, 0.5, 0.5, 0.5]))


@pytest.mark.parametrize("num_queries", [2, 40])
def test_heatmaps_are_inner_products_with_the_stride_4_map(num_queries):
    """Few kernels are folded into the transposed convolution, many meet the map itself: the same numbers."""
    torch.manual_seed(0)
    interpreter = Interpreter(32, 8)
    features, kernels = torch.randn(2, 32, 3, 4), torch.randn(2, num_queries, 8)
    expected = torch.einsum("bqc,bchw->bqhw", kernels, interpreter.pixel_features(features))
    assert expected.shape == (2, num_queries, 12, 16)
    torch.testing.assert_close(interpreter.heatmaps(kernels, features), expected, atol=1e-4, rtol=1e-4)


def test_one_decoder_layer_is_cross_attention_then_self_attention_then_feedforward():
    """The same numbers from single-head attention written out."""
    torch.manual_seed(0)
    decoder = Decoder(8, 8, 1, 1, 16)
    layer = decoder.layers[0]
    q, p, k, v = torch.randn(1, 3, 8), torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8)

    def attend(module, query, key, value):
        wq, wk, wv = module.in_proj_weight.chunk(3)
        bq, bk, bv = module.in_proj_bias.chunk(3)
        weight = ((query @ wq.T + bq) @ (key @ wk.T + bk).transpose(1, 2) / math.sqrt(8)).softmax(-1)
        return module.out_proj(weight @ (value @ wv.T + bv))

    x = layer.cross_norm(q + attend(layer.cross_attention, q + p, k, v))
    x = layer.self_norm(x + attend(layer.self_attention, x + p, x + p, x))
    x = layer.feedforward_norm(x + layer.feedforward(x))
    torch.testing.assert_close(layer(q, p, k, v), x, atol=1e-5, rtol=1e-4)


def test_private_weights_start_as_the_release_draws_them():
    torch.manual_seed(0)
    private = Private(TaskSpec("t", 500, frozenset({P}), Supervision.LAST), 64)
    assert private.content.std().item() == pytest.approx(1.0, rel=0.02)
    assert private.position.min() >= 0
    assert private.position.max() <= 1
    assert private.position.mean().item() == pytest.approx(0.5, rel=0.02)


def test_the_feature_norm_keeps_its_bias_at_zero():
    private = Private(SPECS[0], 32)
    assert not private.feature_norm.bias.requires_grad
    assert not private.feature_norm.bias.any()


def test_decoder_widths_must_suit_heads_and_sine_codes():
    with pytest.raises(ValueError, match="decoder width 30 must be divisible by 4 x 2 heads"):
        Decoder(8, 30, 2)
