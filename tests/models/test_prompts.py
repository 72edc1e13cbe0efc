"""Deep prompts: extra keys and values, computed another way; and what a frozen encoder keeps."""

import math

import pytest
import torch
from timm.models.vision_transformer import Block, ParallelScalingBlock
from torch import nn

from unihap.models.decoder import Decoder
from unihap.models.encoder import Encoder
from unihap.models.prompts import DeepPrompts, check_blocks, prompted_block
from unihap.models.queries import Queries
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit

SPEC = TaskSpec("pose", 5, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES)
SMALL = {"position_grid": (4, 4), "drop_path": 0.0, "width": 16, "num_heads": 2, "num_layers": 2, "feedforward": 8}


def images(batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, 32, 32), generator=generator, dtype=torch.uint8)


def attend(query, key, value, num_heads):
    """Softmax attention of projected (N, C) tokens, head by head."""
    heads = []
    for q, k, v in zip(*(part.chunk(num_heads, dim=1) for part in (query, key, value)), strict=True):
        score = (q @ k.T / math.sqrt(q.shape[1])).exp()
        heads.append(score @ v / score.sum(1, keepdim=True))
    return torch.cat(heads, dim=1)


def test_prompts_have_a_side_for_every_layer_and_none_of_length_zero():
    prompts = DeepPrompts(num_layers=3, width=8, length=4, num_blocks=2, encoder_width=6, encoder_length=5)
    assert prompts.decoder.shape == (3, 2, 2, 4, 8)
    assert prompts.encoder.shape == (2, 2, 5, 6)
    assert dict(DeepPrompts(3, 8, 0, 2, 6, 5).named_parameters()).keys() == {"encoder"}
    assert dict(DeepPrompts(3, 8, 4, 2, 6, 0).named_parameters()).keys() == {"decoder"}


def test_prompts_are_further_keys_and_values_of_an_encoder_block():
    torch.manual_seed(0)
    block = Block(8, num_heads=2, qkv_bias=True).double()
    x, prompts = torch.randn(1, 5, 8).double(), torch.randn(2, 3, 8).double()
    query, key, value = block.attn.qkv(block.norm1(x))[0].split(8, dim=1)
    attended = attend(query, torch.cat([prompts[0], key]), torch.cat([prompts[1], value]), num_heads=2)
    y = x[0] + block.attn.proj(attended)
    torch.testing.assert_close(prompted_block(block, x, prompts)[0], y + block.mlp(block.norm2(y)))


@pytest.mark.parametrize(
    "kinds", [{}, {"qkv_bias": True, "qk_norm": True, "init_values": 0.5, "scale_attn_norm": True}]
)
def test_without_prompts_a_block_gives_timm_s_own_numbers(kinds):
    torch.manual_seed(0)
    block = Block(32, num_heads=4, **kinds).eval()
    x = torch.randn(3, 9, 32)
    assert torch.equal(prompted_block(block, x, torch.zeros(2, 0, 32)), block(x))


def test_a_prompted_block_drops_whole_paths_as_timm_s_does():
    torch.manual_seed(0)
    block = Block(8, num_heads=2, drop_path=0.5).train()
    x = torch.randn(16, 3, 8)
    torch.manual_seed(1)
    ours = prompted_block(block, x, torch.zeros(2, 0, 8))
    torch.manual_seed(1)
    torch.testing.assert_close(ours, block(x))


def test_prompts_are_further_keys_and_values_of_both_attentions_of_a_decoder_layer():
    """In front of the projections, which are those of all other keys and values."""
    torch.manual_seed(0)
    layer = Decoder(8, 8, 2, 1, 16).double().layers[0]
    q, p, k, v = (torch.randn(n, 8).double() for n in (3, 3, 5, 5))
    prompts = torch.randn(2, 2, 4, 8).double()

    def attention(module, query, key, value):
        parts = zip((query, key, value), module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)
        return module.out_proj(attend(*(x @ weight.T + bias for x, weight, bias in parts), num_heads=2))

    x = layer.cross_norm(
        q + attention(layer.cross_attention, q + p, torch.cat([prompts[0, 0], k]), torch.cat([prompts[0, 1], v]))
    )
    keys, values = torch.cat([prompts[1, 0], x + p]), torch.cat([prompts[1, 1], x])
    x = layer.self_norm(x + attention(layer.self_attention, x + p, keys, values))
    x = layer.feedforward_norm(x + layer.feedforward(x))
    torch.testing.assert_close(layer(q[None], p[None], k[None], v[None], prompts)[0], x)


def test_without_prompts_the_decoder_gives_its_own_numbers():
    torch.manual_seed(0)
    decoder = Decoder(12, 8, 2, 2, 16)
    queries = Queries(torch.randn(3, 8), torch.randn(3, 8), None)
    features = torch.randn(2, 12, 2, 3)
    none = DeepPrompts(2, 8, 0, 2, 12, 0)
    empty = DeepPrompts(2, 8, 1, 2, 12, 0)
    empty.decoder = nn.Parameter(torch.zeros(2, 2, 2, 0, 8))
    for prompts in (none, empty):
        prompted = Queries(queries.content, queries.position, None, prompts)
        for mine, plain in zip(decoder(features, prompted), decoder(features, queries), strict=True):
            assert torch.equal(mine, plain)


def test_every_layer_and_block_has_prompts_of_its_own():
    """Each prompt, moved alone, moves the output; and no other task's."""
    torch.manual_seed(0)
    other = TaskSpec("other", 5, SPEC.units, SPEC.supervision)
    model = Architecture("vit_pico_patch16", **SMALL, decoder_prompts=1, encoder_prompts=1).make([SPEC, other]).eval()
    assert {name for name, _ in model.private["pose"].named_parameters() if name.startswith("prompts")} == {
        "prompts.decoder",
        "prompts.encoder",
    }
    with torch.no_grad():
        plain, untouched = model(images(), "pose")[-1].heatmap, model(images(), "other")[-1].heatmap
        for parameter in model.private["pose"].prompts.parameters():
            for prompt in parameter.flatten(0, -2):
                kept = prompt.clone()
                prompt += torch.randn(len(prompt))
                assert not torch.equal(model(images(), "pose")[-1].heatmap, plain)
                prompt.copy_(kept)
            parameter += 1
        assert torch.equal(model(images(), "other")[-1].heatmap, untouched)


def packed_bytes(function):
    """What autograd keeps for the backward pass of a function, and its result."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        result = function()
    return sum(kept), result


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_encoder_keeps_no_activations(training):
    encoder = Encoder("vit_pico_patch16", (4, 4)).requires_grad_(False).train(training)
    kept, features = packed_bytes(lambda: encoder(images()))
    assert kept == 0
    assert not features.requires_grad
    assert features.grad_fn is None
    assert packed_bytes(lambda: encoder.requires_grad_(True)(images()))[0] > 0


def test_below_the_first_prompt_a_frozen_encoder_keeps_nothing_and_gets_no_gradients():
    torch.manual_seed(0)
    model = Architecture("vit_pico_patch16", **SMALL, decoder_prompts=2, encoder_prompts=2).make([SPEC])
    model.shared.requires_grad_(False)
    sum(p.heatmap.square().mean() for p in model(images(), "pose", all_layers=True)).backward()
    assert all(p.grad is None for p in model.shared.parameters())
    gradients = {name: p.grad for name, p in model.private["pose"].named_parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
    model.private["pose"].zero_grad()
    features = model.shared.encoder(images(), prompts=model.private["pose"].prompts.encoder)
    assert features.requires_grad


def test_recomputed_activations_give_prompts_the_same_gradients():
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", (4, 4), drop_path=0.0).requires_grad_(False)
    prompts = DeepPrompts(1, 8, 0, 2, 64, 3).encoder
    gradients = []
    for recompute in (False, True):
        features = encoder(images(), prompts=prompts, checkpoint_activations=recompute)
        gradients += torch.autograd.grad(features.square().sum(), prompts)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_prompts_follow_the_dtype_of_mixed_precision():
    model = Architecture("vit_pico_patch16", **SMALL, decoder_prompts=2, encoder_prompts=2).make([SPEC]).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = model(images(), "pose")[-1].logit
    with torch.no_grad():
        torch.testing.assert_close(mixed.float(), model(images(), "pose")[-1].logit, atol=0.1, rtol=0.1)


def test_a_task_with_prompts_joins_a_model_without_and_leaves_the_others_alone():
    torch.manual_seed(0)
    model = Architecture("vit_pico_patch16", **SMALL).make([SPEC]).eval()
    before = model(images(), "pose")[-1].heatmap
    new = TaskSpec("new", 3, SPEC.units, SPEC.supervision)
    model.private["new"] = model.make_private(new, decoder_prompts=2, encoder_prompts=3).eval()
    assert model.tasks == ["pose", "new"]
    assert model(images(), "new")[-1].heatmap.shape == (2, 3, 8, 8)
    assert model.private["new"].prompts.decoder.shape == (2, 2, 2, 2, 16)
    assert model.private["new"].prompts.encoder.shape == (2, 2, 3, 64)
    assert torch.equal(model(images(), "pose")[-1].heatmap, before)


@pytest.mark.parametrize("block", [ParallelScalingBlock(8, 2), nn.Identity()])
def test_prompts_for_blocks_of_another_kind_are_refused(block):
    with pytest.raises(ValueError, match=f"encoder of {type(block).__name__} .*set PROMPT.ENCODER_LENGTH 0"):
        check_blocks([Block(8, 2), block])
