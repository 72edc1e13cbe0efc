import argparse
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import convert_checkpoint

from unihap.checkpoints.encoder_file import load_encoder, read_encoder
from unihap.checkpoints.encoders import convert_encoder, from_cae, from_hap, from_timm, from_vitpose
from unihap.checkpoints.hap import to_hap
from unihap.engine.checkpoint import base_card, read_weights, save_weights
from unihap.engine.pretrain import load_pretraining, weights_of
from unihap.models.encoder import PIXEL_MEAN, PIXEL_STD, Encoder
from unihap.models.unihap import Architecture
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder
from unihap.structures import Supervision, TaskSpec, Unit

WIDTH, DEPTH, HEADS = 64, 2, 2  # of vit_pico_patch16
GRID = (4, 2)  # of 64 x 32 pixels
PIXELS = torch.randint(0, 256, (2, 3, 64, 32), generator=torch.Generator().manual_seed(1)).float()


def random_state(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def plain_shapes(tokens, width=WIDTH, depth=DEPTH):
    """Keys of a MAE encoder, written down from the description of its files."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, tokens, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        shapes |= block_shapes(f"blocks.{i}.", width)
    return shapes


def block_shapes(prefix, width):
    return {
        f"{prefix}{part}.{leaf}": (rows, columns) if leaf == "weight" and columns else (rows,)
        for part, rows, columns in (
            ("norm1", width, 0),
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("norm2", width, 0),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        )
        for leaf in ("weight", "bias")
    }


def decoder_shapes(tokens, width=WIDTH, decoder_width=32):
    shapes = {
        "mask_token": (1, 1, decoder_width),
        "decoder_pos_embed": (1, tokens, decoder_width),
        "decoder_embed.weight": (decoder_width, width),
        "decoder_embed.bias": (decoder_width,),
        "decoder_norm.weight": (decoder_width,),
        "decoder_norm.bias": (decoder_width,),
        "decoder_pred.weight": (768, decoder_width),
        "decoder_pred.bias": (768,),
    }
    return shapes | block_shapes("decoder_blocks.0.", decoder_width)


def timm_vit(**options):
    """A tiny timm ViT with a class token and random weights."""
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0, "global_pool": ""}
    model = VisionTransformer(img_size=(64, 32), patch_size=16, **{**size, **options}).eval()
    state = random_state({name: value.shape for name, value in model.state_dict().items()})
    model.load_state_dict(state)
    return model, state


def normalised(pixels=PIXELS, mean=PIXEL_MEAN, std=PIXEL_STD):
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def our_encoder(converted, grid=GRID):
    encoder = Encoder("vit_pico_patch16", grid, drop_path=0.0).eval()
    encoder.load_state_dict(
        {k.removeprefix("shared.encoder."): v for k, v in converted.weights.items() if k.startswith("shared.encoder.")}
    )
    return encoder


@torch.no_grad()
def with_class_token(converted, pixels=PIXELS):
    """(B, 1 + N, D) tokens of our encoder behind the converted class token, as pre-training runs it."""
    encoder = our_encoder(converted)
    x, _ = encoder.embed(pixels)
    x = torch.cat([converted.weights["pretrain.cls_token"].expand(len(x), -1, -1), x], dim=1)
    for block in encoder.blocks:
        x = block(x)
    return encoder.norm(x)


def attend(state, name, x, qkv_bias):
    qkv = F.linear(x, state[f"{name}.qkv.weight"], qkv_bias)
    query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    weight = (query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(3)
    return F.linear(
        (weight @ value).transpose(1, 2).flatten(2), state[f"{name}.proj.weight"], state[f"{name}.proj.bias"]
    )


def norm(state, name, x):
    return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


# sources


def cae_state(grid=GRID):
    shapes = {f"encoder.{name}": shape for name, shape in plain_shapes(1 + grid[0] * grid[1]).items()}
    for i in range(DEPTH):
        del shapes[f"encoder.blocks.{i}.attn.qkv.bias"]
        for name in ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2"):
            shapes[f"encoder.blocks.{i}.{name}"] = (WIDTH,)
    beside = {"mask_token": (1, 1, WIDTH), "pretext_neck.norm.weight": (WIDTH,), "teacher.norm.weight": (WIDTH,)}
    return random_state(shapes | beside)


@torch.no_grad()
def cae_output(state):
    state = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    x = F.conv2d(normalised(), state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = torch.cat([state["cls_token"].expand(2, -1, -1), x.flatten(2).transpose(1, 2)], dim=1) + state["pos_embed"]
    for i in range(DEPTH):
        b = f"blocks.{i}"
        bias = torch.cat([state[f"{b}.attn.q_bias"], torch.zeros(WIDTH), state[f"{b}.attn.v_bias"]])
        x = x + state[f"{b}.gamma_1"] * attend(state, f"{b}.attn", norm(state, f"{b}.norm1", x), bias)
        hidden = F.gelu(linear(state, f"{b}.mlp.fc1", norm(state, f"{b}.norm2", x)))
        x = x + state[f"{b}.gamma_2"] * linear(state, f"{b}.mlp.fc2", hidden)
    return norm(state, "norm", x)


def vitpose_state(experts=0):
    shapes = plain_shapes(1 + GRID[0] * GRID[1])
    del shapes["cls_token"]
    for leaf in ("weight", "bias"):
        shapes[f"last_norm.{leaf}"] = shapes.pop(f"norm.{leaf}")
    if experts:
        for i in range(DEPTH):
            rows = {"weight": (48, 4 * WIDTH), "bias": (48,)}
            for leaf, shape in rows.items():
                shapes[f"blocks.{i}.mlp.fc2.{leaf}"] = shape
                for k in range(experts):
                    shapes[f"blocks.{i}.mlp.experts.{k}.{leaf}"] = (16, *shape[1:])
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    return random_state(shapes | {"keypoint_head.final_layer.weight": (17, 8, 1, 1)})


@torch.no_grad()
def vitpose_output(state, expert=None):
    state = {name.removeprefix("backbone."): value for name, value in state.items()}
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(normalised(), kernel, bias, stride=16, padding=2).flatten(2).transpose(1, 2)
    x = x + state["pos_embed"][:, 1:] + state["pos_embed"][:, :1]
    for i in range(DEPTH):
        b = f"blocks.{i}"
        x = x + attend(state, f"{b}.attn", norm(state, f"{b}.norm1", x), state[f"{b}.attn.qkv.bias"])
        hidden = F.gelu(linear(state, f"{b}.mlp.fc1", norm(state, f"{b}.norm2", x)))
        parts = [linear(state, f"{b}.mlp.fc2", hidden)]
        if expert is not None:
            parts.append(linear(state, f"{b}.mlp.experts.{expert}", hidden))
        x = x + torch.cat(parts, dim=2)
    return norm(state, "last_norm", x).transpose(1, 2).unflatten(2, GRID)


# outputs of the source equal outputs of ours


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


def test_a_hap_encoder_computes_what_a_timm_vit_of_these_weights_computes():
    model, state = timm_vit()
    state["pos_embed"][:, 0] = 0  # as in HAP and MAE
    model.load_state_dict(state)
    converted = convert_encoder(from_hap({f"module.{name}": value for name, value in state.items()}), GRID)
    with torch.no_grad():
        close(with_class_token(converted), model(normalised()))
    assert converted.unfilled == []
    assert converted.used["module.pos_embed"] == ["pretrain.cls_token", "shared.encoder.position.table"]


def test_timm_layer_scale_and_the_class_tokens_position_are_folded():
    model, state = timm_vit(init_values=1.0)
    assert state["pos_embed"][:, 0].abs().max() > 0
    converted = convert_encoder(from_timm(state | {"head.weight": torch.zeros(5, WIDTH)}), GRID)
    with torch.no_grad():
        close(with_class_token(converted), model(normalised()))
    assert converted.folded == ["LayerScale into attn.proj and mlp.fc2"]
    assert converted.dropped == {"head.weight": "a head, not the encoder"}
    expected = state["blocks.1.mlp.fc2.weight"] * state["blocks.1.ls2.gamma"][:, None]
    assert torch.equal(converted.weights["shared.encoder.blocks.1.mlp.fc2.weight"], expected)


def test_a_timm_vit_whose_class_token_has_no_position_and_whose_attention_has_no_bias_is_exact():
    model, state = timm_vit(no_embed_class=True, qkv_bias=False)
    converted = convert_encoder(from_timm(state), GRID)
    with torch.no_grad():
        close(with_class_token(converted), model(normalised()))


def test_a_timm_vit_without_class_token_is_what_joint_mode_runs():
    model, state = timm_vit(class_token=False)
    converted = convert_encoder(from_timm(state), GRID)
    with torch.no_grad():
        close(our_encoder(converted)(PIXELS).flatten(2).transpose(1, 2), model(normalised()))
    assert "pretrain.cls_token" not in converted.weights
    assert converted.encoder["class_token"] == "none"
    assert converted.notes == []


def test_the_norm_behind_timms_mean_becomes_the_final_norm():
    _, state = timm_vit(global_pool="avg", num_classes=3)
    assert "norm.weight" not in state
    converted = convert_encoder(from_timm(state), GRID)
    assert torch.equal(converted.weights["shared.encoder.norm.weight"], state["fc_norm.weight"])
    assert "fc_norm" in converted.notes[0]


def test_the_distillation_token_leaves_with_its_position():
    _, state = timm_vit()
    extra = torch.full((1, 1, WIDTH), 7.0)
    position = torch.cat([state["pos_embed"][:, :1], extra, state["pos_embed"][:, 1:]], dim=1)
    plain = convert_encoder(from_timm(state), GRID)
    distilled = convert_encoder(from_timm(state | {"pos_embed": position, "dist_token": extra}), GRID)
    assert all(torch.equal(distilled.weights[name], value) for name, value in plain.weights.items())
    assert "slot 1" in distilled.dropped["dist_token"]


def test_other_pixel_statistics_are_folded_into_the_patches():
    model, state = timm_vit(class_token=False)
    vit = from_timm(state)
    vit.fold_pixels((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    ours = our_encoder(convert_encoder(vit, GRID))(PIXELS)
    with torch.no_grad():
        theirs = model(normalised(mean=(127.5,) * 3, std=(127.5, 63.75, 127.5)))
    close(ours.flatten(2).transpose(1, 2), theirs)


def test_a_cae_encoder_is_exact():
    state = cae_state()
    converted = convert_encoder(from_cae(state), GRID)
    close(with_class_token(converted), cae_output(state))
    assert converted.folded == ["q_bias, 0, v_bias into attn.qkv.bias", "LayerScale into attn.proj and mlp.fc2"]
    assert set(converted.dropped) == {"mask_token", "pretext_neck.norm.weight", "teacher.norm.weight"}
    assert set(converted.used) | set(converted.dropped) == set(state)
    assert "shared.encoder.blocks.0.attn.qkv.bias" in converted.used["encoder.blocks.0.attn.v_bias"]


@pytest.mark.parametrize(("experts", "expert"), [(0, None), (3, 1)])
def test_a_vitpose_encoder_is_exact_on_images_moved_by_its_padding(experts, expert):
    state = vitpose_state(experts)
    converted = convert_encoder(from_vitpose(state), GRID, expert=expert)
    # Zeros after the normalisation stand for the padding; ours pads nothing, so its image moves by 2 pixels.
    moved = F.pad(normalised(), (2, 0, 2, 0))[..., :64, :32]
    raw = moved * torch.tensor(PIXEL_STD)[:, None, None] + torch.tensor(PIXEL_MEAN)[:, None, None]
    with torch.no_grad():
        close(our_encoder(converted)(raw), vitpose_output(state, expert))
    assert converted.encoder["patch_padding"] == 2
    assert any("2 pixels further up and left" in note for note in converted.notes)
    assert converted.dropped["keypoint_head.final_layer.weight"] == "a head, not the encoder"


def test_experts_of_other_data_sets_are_dropped_and_one_must_be_chosen():
    converted = convert_encoder(from_vitpose(vitpose_state(3)), GRID, expert=2)
    assert converted.dropped["backbone.blocks.0.mlp.experts.0.bias"] == "another data set's expert"
    with pytest.raises(ValueError, match=r"the file has experts 0 \.\.\. 2, one a data set; --expert is missing"):
        convert_encoder(from_vitpose(vitpose_state(3)), GRID)
    with pytest.raises(ValueError, match="the file has no experts; --expert is 1"):
        convert_encoder(from_vitpose(vitpose_state()), GRID, expert=1)


# position tables


def test_the_table_is_resized_bicubically_from_the_given_grid():
    state = random_state(plain_shapes(13))
    converted = convert_encoder(from_hap(state), (3, 4), (6, 2))
    assert converted.interpolation == "bicubic"
    image = state["pos_embed"][0, 1:].T.reshape(1, WIDTH, 3, 4)
    expected = F.interpolate(image, size=(6, 2), mode="bicubic", align_corners=False)
    assert torch.equal(converted.weights["shared.encoder.position.table"], expected)
    # 2 x 6 cells are as many as 3 x 4, and still another table
    other = convert_encoder(from_hap(state), (3, 4), (2, 6)).weights["shared.encoder.position.table"]
    assert not torch.equal(other, image.reshape(1, WIDTH, 2, 6))


def test_a_grid_that_the_table_does_not_have_is_refused_with_both():
    with pytest.raises(ValueError, match=r"pos_embed has shape \(1, 129, 64\), and a 14 x 14 grid makes 197 tokens"):
        convert_encoder(from_hap(random_state(plain_shapes(129))), (14, 14))
    with pytest.raises(ValueError, match=r"a 4 x 2 grid makes 8 or 9 tokens; .* --grid H W"):
        convert_encoder(from_timm(random_state(plain_shapes(10))), GRID)
    state = random_state(plain_shapes(9) | decoder_shapes(10))
    with pytest.raises(ValueError, match=r"decoder_pos_embed has shape \(1, 10, 32\)"):
        convert_encoder(from_hap(state), GRID, with_decoder=True)


# refusals and gaps


def test_a_network_with_more_than_a_plain_vit_is_refused():
    registers = random_state(plain_shapes(9)) | {"reg_token": torch.zeros(1, 4, WIDTH)}
    with pytest.raises(ValueError, match="'reg_token' is not a key of a plain ViT as timm stores it"):
        convert_encoder(from_timm(registers), GRID)
    bias = cae_state() | {"encoder.rel_pos_bias.relative_position_bias_table": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"'encoder\.rel_pos_bias\.relative_position_bias_table' is not a key"):
        convert_encoder(from_cae(bias), GRID)


def test_another_size_is_refused_with_key_and_shapes():
    state = random_state(plain_shapes(9, depth=3))
    with pytest.raises(ValueError, match="no encoder has width 64 and depth 3; name one with --encoder NAME"):
        convert_encoder(from_hap(state), GRID)
    state = random_state(plain_shapes(9)) | {"blocks.0.mlp.fc1.bias": torch.zeros(128)}
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.fc1\.bias has shape \(128,\), but .* has shape \(256,\)"):
        convert_encoder(from_hap(state), GRID)


def test_a_weight_that_a_fold_needs_must_be_there():
    state = cae_state()
    del state["encoder.blocks.1.attn.proj.bias"]
    with pytest.raises(ValueError, match=r"the CAE file has no blocks\.1\.attn\.proj\.bias"):
        from_cae(state)


def test_what_the_source_lacks_is_listed():
    state = random_state(plain_shapes(9))
    del state["blocks.1.norm1.bias"], state["norm.weight"]
    unfilled = convert_encoder(from_hap(state), GRID).unfilled
    assert unfilled == ["shared.encoder.blocks.1.norm1.bias", "shared.encoder.norm.weight"]
    part = random_state(plain_shapes(9) | decoder_shapes(9))
    del part["decoder_pred.bias"]
    assert convert_encoder(from_hap(part), GRID, with_decoder=True).unfilled == ["pretrain.decoder.predict.bias"]


def test_the_final_norm_may_stay_at_its_first_value():
    converted = convert_encoder(from_hap(random_state(plain_shapes(9))), GRID, final_norm=False)
    assert torch.equal(converted.weights["shared.encoder.norm.weight"], torch.ones(WIDTH))
    assert torch.equal(converted.weights["shared.encoder.norm.bias"], torch.zeros(WIDTH))
    assert converted.encoder["final_norm"] == "1 and 0"
    assert converted.dropped["norm.weight"] == "the final norm is left at 1 and 0"


# the way back


def test_hap_comes_back_bit_by_bit_with_its_decoder():
    state = random_state(plain_shapes(9) | decoder_shapes(9))
    state["pos_embed"][:, 0] = 0
    converted = convert_encoder(from_hap(state), GRID, with_decoder=True)
    back = to_hap(converted.weights)
    assert back.state.keys() == state.keys()
    assert all(torch.equal(back.state[name], value) for name, value in state.items())
    assert back.unfilled == []
    assert back.notes == ["the position grid is 4 x 2; HAP's own tools expect 16 x 8"]


@pytest.mark.parametrize(("translate", "make"), [(from_cae, cae_state), (from_timm, lambda: timm_vit()[1])])
def test_other_encoders_survive_the_way_through_haps_file(translate, make):
    first = convert_encoder(translate(make()), GRID)
    file = to_hap(first.weights)
    assert file.unfilled == []
    second = convert_encoder(from_hap(file.state), GRID)
    assert second.weights.keys() == first.weights.keys()
    assert all(torch.equal(second.weights[name], value) for name, value in first.weights.items())


def test_what_hap_does_not_have_stays_behind():
    weights = convert_encoder(from_hap(random_state(plain_shapes(9))), GRID).weights
    others = [
        "pretrain.decoder.norm.weight",
        "pretrain.regressor.mask_token",
        "private.a.content",
    ]  # CAE's form, a task
    file = to_hap(weights | {name: torch.zeros(1) for name in others})
    assert file.state.keys() == plain_shapes(9).keys()
    assert list(file.dropped) == others
    assert any("the file holds the encoder alone" in note for note in file.notes)


def test_the_way_back_resizes_both_tables():
    state = random_state(plain_shapes(9) | decoder_shapes(9))
    weights = convert_encoder(from_hap(state), GRID, with_decoder=True).weights
    file = to_hap(weights, (2, 3)).state
    assert file["pos_embed"].shape == (1, 7, WIDTH)
    assert file["decoder_pos_embed"].shape == (1, 7, 32)
    assert torch.equal(file["decoder_pos_embed"][:, 0], state["decoder_pos_embed"][:, 0])
    image = state["decoder_pos_embed"][:, 1:].mT.reshape(1, 32, 4, 2)
    resized = F.interpolate(image, size=(2, 3), mode="bicubic", align_corners=False).flatten(2).mT
    assert torch.equal(file["decoder_pos_embed"][:, 1:], resized)
    again = convert_encoder(from_hap(state), GRID, (2, 3), with_decoder=True).weights
    assert torch.equal(again["pretrain.decoder.position"], file["decoder_pos_embed"])


def test_hap_needs_a_class_token():
    assert to_hap(convert_encoder(from_vitpose(vitpose_state()), GRID).weights).unfilled == ["cls_token"]


def test_our_pre_training_model_goes_to_hap_and_back_unchanged():
    def model(seed):
        torch.manual_seed(seed)
        encoder = Encoder("vit_pico_patch16", GRID)
        return MaskedAutoencoder(encoder, GRID, decoder_width=32, decoder_layers=1, decoder_heads=2)

    first, second = model(0), model(1)
    file = to_hap(weights_of(first))
    assert file.state.keys() == (plain_shapes(9) | decoder_shapes(9)).keys()
    assert {name: tuple(value.shape) for name, value in file.state.items()} == plain_shapes(9) | decoder_shapes(9)
    converted = convert_encoder(from_hap(file.state), GRID, with_decoder=True)
    load_pretraining(second, converted.weights, "the test")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_the_keys_of_the_released_file_are_ours_and_back(golden):
    rows = (golden / "hap" / "keys.tsv").read_text().splitlines()
    rows = [row.split("\t") for row in rows if row.startswith("S\t")]
    shapes = {name: tuple(map(int, shape.split(","))) for _, name, shape in rows}
    assert len(shapes) == 254
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    converted = convert_encoder(from_hap(state), (16, 8), with_decoder=True)
    assert converted.encoder["name"] == "vit_base_patch16"
    assert converted.unfilled == []
    with torch.device("meta"):
        model = MaskedAutoencoder(Encoder("vit_base_patch16", (16, 8)), (16, 8))
    mine = {name: tuple(value.shape) for name, value in weights_of(model).items()}
    assert {name: tuple(value.shape) for name, value in converted.weights.items()} == mine
    back = to_hap(weights_of(model))
    assert {name: tuple(value.shape) for name, value in back.state.items()} == shapes


# files of ours


def saved_joint(path, grid=(5, 3)):
    torch.manual_seed(0)
    architecture = Architecture("vit_pico_patch16", grid, 0.0, width=16, num_heads=2, num_layers=1, feedforward=16)
    spec = TaskSpec("somebodys_pose", 3, frozenset({Unit.FEATURE}), Supervision.LAST)
    model = architecture.make([spec])
    save_weights(path, model.state_dict(), base_card(architecture, {}))
    return model


def test_the_encoder_of_a_joint_checkpoint_is_read_and_its_table_resized(tmp_path):
    model = saved_joint(tmp_path / "joint.safetensors")
    tensors, card = read_encoder(tmp_path / "joint.safetensors")
    assert tensors.keys() == model.shared.encoder.state_dict().keys()
    assert card["architecture"]["encoder"] == "vit_pico_patch16"
    encoder = Encoder("vit_pico_patch16", GRID)
    assert load_encoder(encoder, tmp_path / "joint.safetensors") == []
    table = model.shared.encoder.position.table
    expected = F.interpolate(table, size=GRID, mode="bicubic", align_corners=False)
    assert torch.equal(encoder.position.table, expected)
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, model.shared.encoder.blocks[1].mlp.fc2.weight)


def test_the_encoder_of_a_pre_training_checkpoint_is_read(tmp_path):
    model = MaskedAutoencoder(Encoder("vit_pico_patch16", GRID), GRID, decoder_width=32, decoder_heads=2)
    save_weights(tmp_path / "weights.safetensors", weights_of(model), {"format": 1})
    encoder = Encoder("vit_pico_patch16", GRID)
    assert load_encoder(encoder, tmp_path) == []
    assert torch.equal(encoder.patch_embed.proj.weight, model.encoder.patch_embed.proj.weight)


def test_another_encoder_is_refused_with_key_and_shapes(tmp_path):
    saved_joint(tmp_path / "joint.safetensors")
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.proj\.bias has shape \(64,\), the model \(128,\)"):
        load_encoder(Encoder("vit_nano_patch16", GRID), tmp_path / "joint.safetensors")
    encoder = Encoder("vit_pico_patch16", GRID)
    encoder.blocks = encoder.blocks[:1]
    with pytest.raises(ValueError, match=r"unexpected blocks\.1\."):
        load_encoder(encoder, tmp_path / "joint.safetensors")
    save_weights(tmp_path / "prompt.safetensors", {"private.a.content": torch.zeros(1)}, {"format": 1})
    with pytest.raises(ValueError, match="holds no encoder"):
        read_encoder(tmp_path / "prompt.safetensors")


def test_another_number_of_heads_is_refused(tmp_path):
    weights = Encoder("vit_pico_patch16", GRID).state_dict()
    card = {"encoder": {"name": "vit_pico_patch16", "num_heads": 4}}
    save_weights(tmp_path / "e.safetensors", {f"shared.encoder.{name}": v for name, v in weights.items()}, card)
    with pytest.raises(ValueError, match="is for 4 attention heads, this model's encoder has 2"):
        load_encoder(Encoder("vit_pico_patch16", GRID), tmp_path / "e.safetensors")


def test_a_weight_that_the_file_lacks_keeps_its_value_and_is_told(tmp_path, caplog):
    weights = Encoder("vit_pico_patch16", GRID).state_dict()
    del weights["norm.bias"]
    save_weights(tmp_path / "e.safetensors", {f"shared.encoder.{n}": v for n, v in weights.items()}, {"format": 1})
    assert load_encoder(Encoder("vit_pico_patch16", GRID), tmp_path / "e.safetensors") == ["norm.bias"]
    assert "leaves 1 weights of the encoder as they were: norm.bias" in caplog.text


# the command


def run(*words):
    return convert_checkpoint.main([str(word) for word in words])


def test_the_command_converts_hap_and_back(tmp_path, capsys):
    state = random_state(plain_shapes(129) | decoder_shapes(129))
    state["pos_embed"][:, 0] = 0
    torch.save({"epoch": 3, "arch": "x", "model": state, "optimizer": {"state": {}}, "scaler": {}}, tmp_path / "h.pth")
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    assert run("--from", "hap", "--with-decoder", "--out", ours, tmp_path / "h.pth") == 0
    said = capsys.readouterr().out
    assert "used      blocks.1.mlp.fc2.bias -> shared.encoder.blocks.1.mlp.fc2.bias" in said
    assert "used      pos_embed -> pretrain.cls_token, shared.encoder.position.table" in said
    assert "50 keys used, 0 dropped, 0 unfilled" in said
    assert "joint mode has no class token" in said
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["encoder"]["position_grid"] == [16, 8]
    assert card["source"]["format"] == "hap"
    assert card["source"]["position_grid"] == [16, 8]
    assert card["source"]["interpolation"] == "none"
    assert re.fullmatch(r"[0-9a-f]{64}", card["source"]["sha256"])
    assert run("--to", "hap", "--out", back, ours) == 0
    returned = torch.load(back, weights_only=True)["model"]
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[name], value) for name, value in state.items())


def test_without_the_decoder_the_file_is_the_encoder_and_loads(tmp_path, capsys):
    state = random_state(plain_shapes(197) | decoder_shapes(197))
    torch.save({"model": state, "args": argparse.Namespace(blr=1.0)}, tmp_path / "m.pth")
    ours = tmp_path / "ours.safetensors"
    assert run("--from", "mae", "--position-grid", 16, 8, "--out", ours, tmp_path / "m.pth") == 0
    assert "dropped   mask_token (the pre-training decoder; --with-decoder keeps it)" in capsys.readouterr().out
    weights, card = read_weights(ours)
    assert sum(name.startswith("pretrain.") for name in weights) == 1
    assert card["source"]["position_grid"] == [14, 14]
    assert card["source"]["interpolation"] == "bicubic"
    encoder = Encoder("vit_pico_patch16", (16, 8))
    assert load_encoder(encoder, ours) == []
    assert torch.equal(encoder.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_a_timm_file_of_safetensors_and_a_vitpose_file_convert(tmp_path, caplog):
    save_file(timm_vit()[1], tmp_path / "t.safetensors")
    assert run("--from", "timm", "--grid", 4, 2, "--out", tmp_path / "a.safetensors", tmp_path / "t.safetensors") == 0
    torch.save({"meta": {}, "state_dict": vitpose_state()}, tmp_path / "v.pth")
    assert run("--from", "vitpose", "--grid", 4, 2, "--out", tmp_path / "b.safetensors", tmp_path / "v.pth") == 0
    assert load_encoder(Encoder("vit_pico_patch16", GRID), tmp_path / "b.safetensors") == []
    assert "padded patch convolution" in caplog.text


def test_a_cae_file_with_its_arguments_is_read(tmp_path):
    torch.save({"model": cae_state((14, 14)), "args": argparse.Namespace(lr=1.0)}, tmp_path / "c.pth")
    assert run("--from", "cae", "--out", tmp_path / "o.safetensors", tmp_path / "c.pth") == 0


def test_a_gap_ends_with_status_1_and_no_file(tmp_path, capsys):
    state = random_state(plain_shapes(129))
    del state["norm.bias"]
    torch.save({"model": state}, tmp_path / "h.pth")
    assert run("--from", "hap", "--out", tmp_path / "o.safetensors", tmp_path / "h.pth") == 1
    assert "unfilled  shared.encoder.norm.bias" in capsys.readouterr().out
    assert not (tmp_path / "o.safetensors").exists()
    saved_joint(tmp_path / "joint.safetensors")
    assert run("--to", "hap", "--out", tmp_path / "o.pth", tmp_path / "joint.safetensors") == 1
    assert "unfilled  cls_token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "timm"], "give it with --grid H W"),
        (["--from", "hap", "--grid", "0", "8"], "a grid has at least one row and one column, got 0 x 8"),
        (["--from", "hap", "--grid", "14", "14"], "pos_embed has shape (1, 129, 64), and a 14 x 14 grid"),
        (["--from", "hap", "--with-decoder"], "the HAP file has no decoder to keep"),
        (["--from", "hap", "--expert", "1"], "the file has no experts"),
        (["--from", "hap", "--encoder", "vit_picco_patch16"], "did you mean vit_pico_patch16?"),
        (["--from", "hap", "--task", "a=b"], "takes the file to convert and no --task"),
        (["--from", "hap", "--mean", "0.5", "0.5", "0.5"], "--mean and --std go together"),
        (["--from", "vitpose", "--grid", "16", "8"], "has no state_dict of tensors"),
        (["--to", "hap"], "is not a readable .safetensors file"),
        (["--to", "unihcp", "--grid", "1", "1"], "are for encoders"),
    ],
)
def test_mistakes_of_the_command_are_one_line_and_status_2(words, message, tmp_path, capsys):
    torch.save({"model": random_state(plain_shapes(129))}, tmp_path / "h.pth")
    assert run(*words, "--out", tmp_path / "o.safetensors", tmp_path / "h.pth") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "o.safetensors").exists()


def test_objects_that_could_run_code_are_not_loaded(tmp_path, capsys):
    torch.save({"model": random_state(plain_shapes(129)), "args": argparse.Namespace()}, tmp_path / "h.pth")
    assert run("--from", "hap", "--out", tmp_path / "o.safetensors", tmp_path / "h.pth") == 2
    assert "holds a argparse.Namespace, and loading it could run code" in capsys.readouterr().err
    torch.save(nn.Linear(1, 1), tmp_path / "m.pth")
    assert run("--from", "timm", "--grid", 1, 1, "--out", tmp_path / "o.safetensors", tmp_path / "m.pth") == 2
    assert "could run code" in capsys.readouterr().err
