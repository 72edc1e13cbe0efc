import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unihap.models.encoder import ENCODERS, Encoder
from unihap.pretrain.alignment import Alignment
from unihap.pretrain.context_autoencoder import ContextAutoencoder, LatentRegressor, RegressorBlock
from unihap.pretrain.tokenizers import RandomProjection

GRID = (4, 4)
N = 16
VOCABULARY = 24


def build(views: str = "masked_masked", alignment: nn.Module | None = None, **options: object) -> ContextAutoencoder:
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", GRID, drop_path=0.0)
    options.setdefault("drop_path", 0.0)
    return ContextAutoencoder(
        encoder,
        GRID,
        RandomProjection(vocabulary=VOCABULARY),
        regressor_layers=2,
        decoder_layers=2,
        views=views,
        alignment=alignment,
        **options,
    )


def some_images(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, 64, 64), generator=generator, dtype=torch.uint8)


def some_masks(batch: int = 3, views: int = 2, num_masked: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    order = torch.rand(batch, views, N, generator=generator).argsort(-1)
    return (order < num_masked).unflatten(2, GRID)


def scatter_parameters(module: nn.Module) -> None:
    """Gives every parameter a random value, so that no norm, scale or bias is an identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]) + (p.ndim == 1))


# the regressor


def layer_norm(x: Tensor, norm: nn.Module) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias


def regressor_block_by_hand(
    block: RegressorBlock,
    heads: int,
    hidden: Tensor,
    visible: Tensor,
    hidden_position: Tensor,
    visible_position: Tensor,
) -> Tensor:
    """One image, token by token and head by head; all tensors without a batch axis."""
    width = hidden.shape[1]
    matrices = block.attention.in_proj_weight.split(width)
    biases = block.attention.in_proj_bias.split(width)
    values = torch.cat([visible, hidden])
    keys = torch.cat([visible + visible_position, hidden + hidden_position])
    q = layer_norm(hidden + hidden_position, block.query_norm) @ matrices[0].T + biases[0]
    k = layer_norm(keys, block.key_norm) @ matrices[1].T  # CAE's keys have no bias: the softmax cannot see one
    v = layer_norm(values, block.value_norm) @ matrices[2].T + biases[2]
    size = width // heads
    rows = []
    for i in range(len(hidden)):
        parts = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            weight = torch.tensor([float(q[i, columns] @ k[j, columns]) / math.sqrt(size) for j in range(len(k))])
            weight = weight.double().exp() / weight.double().exp().sum()
            parts.append(weight @ v[:, columns])
        rows.append(torch.cat(parts) @ block.attention.out_proj.weight.T + block.attention.out_proj.bias)
    x = hidden + block.attention_scale.gamma * torch.stack(rows)
    x = layer_norm(x, block.mlp_norm)
    y = x @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    return x + block.mlp_scale.gamma * (y @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)


def test_the_regressor_is_cross_attention_whose_feed_forward_norm_is_on_the_stream():
    regressor = LatentRegressor(8, heads=2, layers=2).double()
    scatter_parameters(regressor)
    visible, visible_position = torch.randn(2, 1, 3, 8).double()
    hidden_position = torch.randn(1, 4, 8).double()
    with torch.no_grad():
        result = regressor(visible, visible_position, hidden_position)[0]
        x = regressor.mask_token[0].expand(4, -1)
        for block in regressor.blocks:
            x = regressor_block_by_hand(block, 2, x, visible[0], hidden_position[0], visible_position[0])
        expected = layer_norm(x, regressor.norm)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_visible_latents_reach_every_block_as_the_encoder_left_them():
    regressor = LatentRegressor(8, heads=2, layers=3)
    seen = []
    for block in regressor.blocks:
        block.value_norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    visible = torch.randn(2, 5, 8)
    regressor(visible, torch.randn(2, 5, 8), torch.randn(2, 4, 8))
    assert len(seen) == 3
    for values in seen:
        assert values.shape == (2, 9, 8)
        assert torch.equal(values[:, :5], visible)
    assert not torch.equal(seen[1][:, 5:], seen[0][:, 5:])  # the hidden ones are updated


def test_positions_are_in_queries_and_keys_but_not_in_values():
    block = RegressorBlock(8, 2)
    inputs = {}
    for name in ("query_norm", "key_norm", "value_norm"):
        getattr(block, name).register_forward_hook(lambda _, x, __, name=name: inputs.update({name: x[0]}))
    hidden, hidden_position = torch.randn(2, 1, 2, 8)
    visible, visible_position = torch.randn(2, 1, 3, 8)
    block(hidden, visible, hidden_position, visible_position)
    assert torch.equal(inputs["query_norm"], hidden + hidden_position)
    assert torch.equal(inputs["key_norm"], torch.cat([visible + visible_position, hidden + hidden_position], 1))
    assert torch.equal(inputs["value_norm"], torch.cat([visible, hidden], 1))


def test_the_regressor_never_sees_the_class_token():
    model = build().eval()
    latent, visible, hidden = torch.randn(1, 10, 64), torch.arange(9)[None], torch.arange(9, 16)[None]
    other = torch.cat([torch.randn(1, 1, 64), latent[:, 1:]], 1)
    for first, second in zip(
        model._predict(latent, visible, hidden), model._predict(other, visible, hidden), strict=True
    ):
        assert torch.equal(first, second)


def test_the_decoder_adds_positions_to_the_predicted_latents_of_the_hidden_patches():
    model = build().eval()
    hidden = torch.tensor([[1, 5, 14]])
    latent, visible = torch.randn(1, 5, 64), torch.tensor([[0, 2, 3, 4]])
    position = model.encoder.position.table.flatten(2)[0].T
    with torch.no_grad():
        predicted, logits = model._predict(latent, visible, hidden)
        x = predicted + position[[1, 5, 14]]
        for block in model.decoder.blocks:
            x = x + 0.1 * block.attn(block.norm1(x))
            x = x + 0.1 * block.mlp(block.norm2(x))
        expected = layer_norm(x, model.decoder.norm) @ model.decoder.head.weight.T + model.decoder.head.bias
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_new_blocks_scale_their_branches_by_a_tenth_and_the_encoders_have_no_scale():
    model = build()
    scales = {name: p for name, p in model.named_parameters() if "gamma" in name or "scale" in name}
    assert len(scales) == 2 * 2 + 2 * 2
    assert not any(name.startswith("encoder.") for name in scales)
    assert all((p == 0.1).all() for p in scales.values())


def test_every_norm_has_the_encoders_epsilon():
    assert {part.eps for part in build().modules() if isinstance(part, nn.LayerNorm)} == {1e-6}


def test_stochastic_depth_rises_linearly_in_regressor_and_decoder():
    model = build(drop_path=0.3)
    assert isinstance(model.regressor.blocks[0].drop_path, nn.Identity)
    assert model.regressor.blocks[1].drop_path.drop_prob == pytest.approx(0.3)
    assert model.decoder.blocks[1].drop_path2.drop_prob == pytest.approx(0.3)


# the target


def test_the_target_is_what_the_encoder_says_about_the_complement_alone():
    model = build().eval()
    images, mask = some_images(), some_masks(views=1)[:, 0].flatten(1)
    hidden = torch.stack([row.nonzero()[:, 0] for row in mask])
    target = model.target_latent(model.tokens(images), hidden)
    assert not target.requires_grad
    tokens = model.tokens(images)
    for i in range(len(images)):
        x = torch.cat([model.cls_token[0], tokens[i, mask[i]]])[None]
        for block in model.encoder.blocks:
            x = block(x)
        torch.testing.assert_close(target[i], model.encoder.norm(x)[0, 1:], atol=1e-5, rtol=1e-5)


def encoder_gradients(model: ContextAutoencoder, loss: Tensor) -> list[Tensor]:
    trained = [p for p in model.encoder.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, trained))


def test_the_latent_term_has_no_gradient_through_its_target():
    model = build("none")
    images, masks = some_images(), some_masks(views=1)
    mask = masks.flatten(1)
    visible, hidden = (torch.stack([row.nonzero()[:, 0] for row in rows]) for rows in (~mask, mask))

    def by_hand(detach: bool) -> Tensor:
        tokens = model.tokens(images)
        rows = torch.arange(3)[:, None]
        latent = model.encode(tokens[rows, visible])
        target = model.encode(tokens[rows, hidden])[:, 1:]
        predicted, _ = model._predict(latent, visible, hidden)
        return 2 * ((predicted - (target.detach() if detach else target)) ** 2).mean()

    term = model(images, masks)["latent"]
    assert term.item() == pytest.approx(by_hand(True).item(), rel=1e-5)
    gradients = encoder_gradients(model, term)
    for ours, expected in zip(gradients, encoder_gradients(model, by_hand(True)), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)
    leaking = encoder_gradients(model, by_hand(False))
    assert max((a - b).abs().max() for a, b in zip(gradients, leaking, strict=True)) > 1e-3


def test_there_is_one_encoder_and_no_tokenizer_in_the_state():
    model = build()
    names = set(model.state_dict())
    assert {name.split(".")[0] for name in names} == {"cls_token", "encoder", "regressor", "decoder"}
    assert {name.removeprefix("encoder.") for name in names if name.startswith("encoder.")} == set(
        Encoder("vit_pico_patch16", GRID).state_dict()
    )


# the terms


def term_by_hand(model: ContextAutoencoder, images: Tensor, mask: Tensor) -> float:
    """Mean of -log p(code) over the hidden patches of one view."""
    codes = model.tokenizer(images).flatten(1)
    logits = model.predict(images, mask)
    losses = []
    for i, row in enumerate(mask.flatten(1)):
        for n, patch in enumerate(row.nonzero()[:, 0].tolist()):
            losses.append(-torch.log_softmax(logits[i, n], 0)[codes[i, patch]].item())
    return sum(losses) / len(losses)


def test_the_token_term_is_the_cross_entropy_of_hidden_patches_averaged_over_both_views():
    model = build().eval()
    images, masks = some_images(), some_masks()
    with torch.no_grad():
        term = model(images, masks)["token"].item()
        expected = [term_by_hand(model, images, masks[:, view]) for view in (0, 1)]
    assert expected[0] != pytest.approx(expected[1], rel=1e-4)
    assert term == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_the_latent_term_is_averaged_over_views_and_weighted():
    images, masks = some_images(), some_masks()
    with torch.no_grad():
        both = build().eval()(images, masks)["latent"]
        first, second = (build("none").eval()(images, masks[:, view : view + 1])["latent"] for view in (0, 1))
        heavier = build(align_weight=6.0).eval()(images, masks)["latent"]
    assert both.item() == pytest.approx((first + second).item() / 2, rel=1e-5)
    assert heavier.item() == pytest.approx(3 * both.item(), rel=1e-5)


def test_the_alignment_is_of_the_class_tokens_of_both_views():
    alignment = Alignment(weight=0.05, tau=0.2)
    model = build(alignment=alignment).eval()
    images, masks = some_images(), some_masks()
    with torch.no_grad():
        term = model(images, masks)["alignment"]
        tokens = model.tokens(images)
        features = []
        for view in (0, 1):
            kept = torch.stack([tokens[i, ~masks[i, view].flatten()] for i in range(3)])
            features.append(F.normalize(model.encode(kept)[:, 0], dim=1))
        product = features[0] @ features[1].T / 0.2
        directions = [F.cross_entropy(p, torch.arange(3)) for p in (product, product.T)]
    assert term.item() == pytest.approx(0.05 * 0.4 * sum(directions).item(), rel=1e-4)


@pytest.mark.parametrize(("views", "num_masks"), [("masked_global", 1), ("masked_visible", 1), ("masked_masked", 2)])
def test_every_kind_of_two_views_gives_three_terms(views, num_masks):
    model = build(views, Alignment())
    terms = model(some_images(), some_masks(views=num_masks))
    assert set(terms) == {"token", "latent", "alignment"}
    assert all(term.ndim == 0 and torch.isfinite(term) and term > 0 for term in terms.values())


def test_one_view_gives_two_terms_and_nothing_to_align():
    assert set(build("none")(some_images(), some_masks(views=1))) == {"token", "latent"}
    with pytest.raises(ValueError, match="nothing to align"):
        build("none", Alignment())


def test_masks_by_attention_hide_what_the_class_token_attends_to():
    model = build("none", guidance_by_attention=True).eval()
    images, masks = some_images(), some_masks(views=1)
    attention = model.attention(images)[:, :, 0, 1:].mean(1)
    hidden = torch.zeros(3, N, dtype=torch.bool).scatter(1, attention.topk(7, dim=1).indices, True)
    with torch.no_grad():
        guided = model(images, masks)["token"].item()
        assert guided == pytest.approx(term_by_hand(model, images, hidden), rel=1e-5)


# training


@pytest.fixture(name="small_encoder")
def _small_encoder(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(ENCODERS, "vit_atom_patch16", {"embed_dim": 32, "depth": 2, "num_heads": 2})
    return "vit_atom_patch16"


def test_all_losses_fall_on_a_batch_that_is_learnt_by_heart(small_encoder):
    torch.manual_seed(0)
    model = ContextAutoencoder(
        Encoder(small_encoder, GRID, drop_path=0.0),
        GRID,
        RandomProjection(vocabulary=VOCABULARY),
        regressor_layers=1,
        decoder_layers=1,
        alignment=Alignment(weight=0.5),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    images, masks = some_images(8), some_masks(8)
    history = []
    for _ in range(30):
        terms = model(images, masks)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
    first, last = history[0], history[-1]
    assert first["token"] == pytest.approx(math.log(VOCABULARY), rel=0.3)  # nothing is known yet
    assert last["token"] < 0.7 * first["token"]
    assert last["latent"] < 0.7 * first["latent"]
    assert last["alignment"] < 0.7 * first["alignment"]


def test_everything_but_positions_gets_a_gradient():
    model = build(alignment=Alignment())
    sum(model(some_images(), some_masks()).values()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"encoder.position.table"}


def test_mixed_precision_keeps_the_encoders_gradient():
    model = build("none", guidance_by_attention=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(some_images(), some_masks(views=1))
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.blocks.parameters())


def test_the_encoder_that_is_trained_is_the_one_that_was_given():
    encoder = Encoder("vit_pico_patch16", GRID, drop_path=0.0)
    model = ContextAutoencoder(encoder, GRID, RandomProjection(vocabulary=VOCABULARY))
    assert model.encoder is encoder


# refusals


def test_a_tokenizer_of_other_patches_is_refused():
    model = ContextAutoencoder(
        Encoder("vit_pico_patch16", GRID), GRID, RandomProjection(vocabulary=VOCABULARY, patch=8)
    )
    with pytest.raises(ValueError, match=r"gives \(8, 8\) codes where the model has \(4, 4\) patches.*patch=16"):
        model(some_images(), some_masks())


def test_masks_that_hide_different_numbers_are_refused():
    masks = some_masks()
    masks[0, 0] = True
    with pytest.raises(ValueError, match="same number of patches"):
        build()(some_images(), masks)


@pytest.mark.parametrize("layers", [{"regressor_layers": 0}, {"decoder_layers": 0}])
def test_a_model_without_regressor_or_decoder_is_refused(layers):
    with pytest.raises(ValueError, match="need a layer each"):
        ContextAutoencoder(Encoder("vit_pico_patch16", GRID), GRID, RandomProjection(vocabulary=VOCABULARY), **layers)
