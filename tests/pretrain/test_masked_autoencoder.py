import math

import pytest
import torch
from torch import nn

from unihap.models.encoder import Encoder
from unihap.models.position import sincos_table
from unihap.pretrain.alignment import Alignment
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder, attend_last, normalise_patches
from unihap.pretrain.views import VIEWS, patchify, pick, token_order, unpatchify, visible_tokens

GRID = (4, 2)  # of 64 x 32 pixels


class FirstPlusSecond(nn.Module):
    """An alignment that shows which class tokens it was given."""

    def forward(self, first, second):
        self.given = (first, second)
        return first.sum() * 0 + 3


def make(views="masked_masked", **options):
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", GRID, drop_path=0.0)
    small = {"decoder_width": 32, "decoder_layers": 2, "decoder_heads": 4}
    return MaskedAutoencoder(encoder, GRID, views=views, **{**small, **options})


def make_images(batch=3, seed=0):
    return torch.randint(0, 256, (batch, 3, 64, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def make_masks(batch=3, views=2, num_masked=4, seed=0):
    order = torch.rand(batch, views, 8, generator=torch.Generator().manual_seed(seed)).argsort(dim=2)
    return order.lt(num_masked).unflatten(2, GRID)


# tokens and patches


def test_visible_and_masked_tokens_come_in_raster_order():
    mask = torch.tensor([[True, False, False, True], [False, True, True, False]])
    visible, masked = token_order(mask)
    assert visible.tolist() == [[1, 2], [0, 3]]
    assert masked.tolist() == [[0, 3], [1, 2]]
    tokens = torch.arange(8.0).view(2, 4, 1)
    assert visible_tokens(tokens, mask).flatten(1).tolist() == [[1, 2], [4, 7]]


def test_picking_tokens_is_gathering_with_the_same_gradient():
    tokens = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[4, 0, 0], [1, 2, 4]])
    weight = torch.randn(2, 3, 3, dtype=torch.float64)
    gathered = tokens.gather(1, index[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(pick(tokens, index), gathered)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), tokens)[0] for x in (pick(tokens, index), gathered))
    torch.testing.assert_close(ours, theirs)


def test_masks_of_different_counts_are_refused():
    with pytest.raises(ValueError, match="some hide 1, some 2"):
        token_order(torch.tensor([[True, False, False], [True, True, False]]))
    with pytest.raises(ValueError, match="float32"):
        token_order(torch.zeros(2, 3))


def test_a_patch_is_flattened_row_by_row_with_the_channel_fastest():
    channel, row, column = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(6), indexing="ij")
    image = (100 * channel + 10 * row + column)[None].float()
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 12)
    assert patches[0, 0].tolist() == [0, 100, 200, 1, 101, 201, 10, 110, 210, 11, 111, 211]
    assert patches[0, 1, :3].tolist() == [2, 102, 202]  # the second patch of the first row of patches
    assert patches[0, 3, :3].tolist() == [20, 120, 220]
    assert torch.equal(unpatchify(patches, (2, 3), 2), image)


def test_a_target_has_mean_0_and_unbiased_variance_1():
    """Of 1, 2, 3, 4: mean 2.5, unbiased variance 5/3."""
    target = normalise_patches(torch.tensor([[1.0, 2.0, 3.0, 4.0], [7.0, 7.0, 7.0, 7.0]]))
    assert target[0].tolist() == pytest.approx([x / math.sqrt(5 / 3 + 1e-6) for x in (-1.5, -0.5, 0.5, 1.5)])
    assert target[1].tolist() == [0, 0, 0, 0]


# sizes, first weights


def test_vit_base_has_the_originals_number_of_trained_parameters():
    with torch.device("meta"):
        encoder = Encoder("vit_base_patch16", (16, 8), drop_path=0.0)
        model = MaskedAutoencoder(encoder, (16, 8), alignment=Alignment())
    trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    decoder = sum(number for name, number in trained.items() if name.startswith("decoder."))
    assert sum(trained.values()) - decoder == 85_647_360
    assert decoder == 26_008_320
    assert len(model.state_dict()) == 254
    assert {type(block.mlp.act) for block in (*encoder.blocks, *model.decoder.blocks)} == {nn.GELU}


def test_every_norm_adds_a_millionth():
    """An epsilon of 1e-5 would hardly be seen in any output."""
    norms = [part for part in make().modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 1 + 2 * 2 + 1
    assert {norm.eps for norm in norms} == {1e-6}


def test_from_scratch_weights_are_xavier_uniform_and_positions_are_sine_codes():
    model = make()
    table = model.encoder.position.table
    assert not table.requires_grad
    assert torch.equal(table, sincos_table(GRID, 64))
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            bound = math.sqrt(6 / sum(part.weight.shape))
            assert 0.9 * bound < part.weight.abs().max() <= bound, name
            assert not part.bias.any(), name
    projection = model.encoder.patch_embed.proj
    bound = math.sqrt(6 / (64 + 3 * 16 * 16))
    assert 0.99 * bound < projection.weight.abs().max() <= bound
    assert not projection.bias.any()
    for token in (model.cls_token, model.decoder.mask_token):
        assert 0.01 < token.std() < 0.03


def test_the_decoders_positions_are_sine_codes_and_the_class_tokens_is_zero():
    position = make().decoder.position
    assert position.shape == (1, 9, 32)
    assert not position[:, 0].any()
    # token 3 is row 1, column 1: sin and cos of the column, then of the row, 8 frequencies each
    frequency = 10000.0 ** (-torch.arange(8) / 8)
    code = torch.cat([frequency.sin(), frequency.cos()])
    torch.testing.assert_close(position[0, 4], code.repeat(2))


def test_weights_of_an_encoder_can_be_kept():
    encoder = Encoder("vit_pico_patch16", GRID, drop_path=0.0)
    nn.init.normal_(encoder.position.table.data)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    MaskedAutoencoder(encoder, GRID, decoder_width=32, decoder_layers=1, decoder_heads=4, scratch=False)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.position.table.requires_grad


# encoder and decoder


def test_the_encoders_map_is_its_blocks_on_embedded_patches():
    encoder = make().encoder
    images = make_images()
    tokens, grid = encoder.embed(images)
    assert grid == GRID
    x = tokens
    for block in encoder.blocks:
        x = block(x)
    assert torch.equal(encoder(images), encoder.norm(x).transpose(1, 2).unflatten(2, grid))
    pixels = encoder.normalise(images)[:, :, 16:32, 16:32].flatten(1)  # patch 3 is row 1, column 1
    projection = encoder.patch_embed.proj
    patch = pixels @ projection.weight.flatten(1).T + projection.bias + encoder.position.table[:, :, 1, 1]
    torch.testing.assert_close(tokens[:, 3], patch)


def test_a_sequence_is_encoded_behind_the_class_token():
    model = make()
    tokens = model.tokens(make_images())[:, 2:5]
    x = torch.cat([model.cls_token.expand(3, 1, 64), tokens], dim=1)
    assert torch.equal(model.encode(tokens), model.encoder.norm(model.encoder.blocks(x)))


def test_the_last_block_for_some_tokens_is_the_whole_block_with_the_same_gradients():
    block = make().decoder.blocks[0].double()
    x = torch.randn(2, 7, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 32, dtype=torch.float64)
    inputs = [x, *block.parameters()]
    short, whole = attend_last(block, x, 3), block(x)[:, -3:]
    torch.testing.assert_close(short, whole)
    for ours, theirs in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (short, whole)), strict=True):
        torch.testing.assert_close(ours, theirs)


def decode_in_raster_order(decoder, latent, mask):
    """The textbook decoder: mask tokens in their places, every position, every token through every block."""
    embedded = decoder.embed(latent)
    x = decoder.mask_token.repeat(len(latent), 9, 1)
    x[:, 0] = embedded[:, 0]
    for image, row in zip(range(len(latent)), mask, strict=True):
        x[image, 1:][~row] = embedded[image, 1:]
    x = x + decoder.position
    for block in decoder.blocks:
        x = block(x)
    return decoder.predict(decoder.norm(x))[:, 1:]


@pytest.mark.parametrize("num_masked", [3, 4, 6])
def test_decoding_is_that_of_the_sequence_in_raster_order(num_masked):
    model = make().double()
    nn.init.normal_(model.decoder.position)
    images, mask = make_images(), make_masks(num_masked=num_masked)[:, 0]
    latent = model.encode(visible_tokens(model.tokens(images), mask.flatten(1)))
    expected = decode_in_raster_order(model.decoder, latent, mask.flatten(1))
    torch.testing.assert_close(model.predict(images, mask), expected)
    visible, masked = token_order(mask.flatten(1))
    torch.testing.assert_close(
        model.decoder(latent, visible, masked), expected[mask.flatten(1)].view(3, num_masked, 768)
    )


# the loss


@pytest.mark.parametrize("normalize_target", [True, False])
def test_reconstruction_is_the_mean_of_both_views_over_their_hidden_patches(normalize_target):
    model = make(normalize_target=normalize_target).double()
    images, masks = make_images(), make_masks()
    pixels = model.encoder.normalise(images)
    per_view = []
    for view in range(2):
        prediction = model.predict(images, masks[:, view])
        total = 0.0
        for image in range(3):
            for row in range(4):
                for column in range(2):
                    if masks[image, view, row, column]:
                        patch = pixels[image, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                        patch = patch.permute(1, 2, 0).flatten()
                        if normalize_target:
                            patch = (patch - patch.mean()) / (patch.var(unbiased=True) + 1e-6).sqrt()
                        total += (prediction[image, 2 * row + column] - patch).square().mean()
        per_view.append(total / (3 * 4))
    terms = model(images, masks)
    assert terms.keys() == {"reconstruction"}
    torch.testing.assert_close(terms["reconstruction"], (per_view[0] + per_view[1]) / 2)


def test_visible_patches_teach_nothing_about_themselves():
    """What the decoder would say about a visible patch is not in the loss."""
    model = make("none")
    images, masks = make_images(), make_masks(views=1)
    target = model.target(images)
    before = model(images, masks)["reconstruction"]
    model.target = lambda images: target.where(masks.flatten(1)[..., None], torch.full_like(target, torch.nan))
    assert torch.equal(model(images, masks)["reconstruction"], before)


def test_alignment_compares_the_class_tokens_after_the_final_norm():
    model = make(alignment=Alignment(weight=0.05)).double()
    images, masks = make_images(), make_masks()
    first, second = (
        model.encode(visible_tokens(model.tokens(images), masks[:, view].flatten(1)))[:, 0] for view in range(2)
    )
    terms = model(images, masks)
    assert terms.keys() == {"reconstruction", "alignment"}
    torch.testing.assert_close(terms["alignment"], Alignment(weight=0.05)(first, second))


@pytest.mark.parametrize("num_masked", [4, 5])  # half of the patches: both views in one pass
@pytest.mark.parametrize("views", ["masked_global", "masked_visible"])
def test_one_masked_view_is_reconstructed_and_aligned_with_the_other(views, num_masked):
    model = make(views, alignment=FirstPlusSecond()).double()
    images, masks = make_images(), make_masks(views=1, num_masked=num_masked)
    tokens, mask = model.tokens(images), masks.flatten(1)
    terms = model(images, masks)
    first, second = model.alignment.given
    torch.testing.assert_close(first, model.encode(visible_tokens(tokens, mask))[:, 0])
    other = tokens if views == "masked_global" else visible_tokens(tokens, ~mask)
    torch.testing.assert_close(second, model.encode(other)[:, 0])
    assert terms["alignment"].item() == 3
    torch.testing.assert_close(terms["reconstruction"], make("none").double()(images, masks)["reconstruction"])


def test_images_may_be_bytes_or_floats():
    model, masks = make(), make_masks()
    images = make_images()
    assert torch.equal(model(images, masks)["reconstruction"], model(images.float(), masks)["reconstruction"])


@pytest.mark.parametrize("alignment", [None, Alignment()])
def test_every_trained_parameter_gets_a_gradient_and_no_other(alignment):
    model = make(alignment=alignment)
    sum(model(make_images(), make_masks()).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad == (name != "encoder.position.table")


def test_bfloat16_changes_the_loss_by_rounding_only():
    model = make(alignment=Alignment())
    exact = model(make_images(), make_masks())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(make_images(), make_masks())
    for name, term in rounded.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=0.02, atol=0)


# attention


def test_attention_weighs_the_values_of_its_block():
    model = make()
    images = make_images()
    attention = model.attention(images, block=1)
    assert attention.shape == (3, 2, 9, 9)
    torch.testing.assert_close(attention.sum(dim=3), torch.ones(3, 2, 9))
    first, second = model.encoder.blocks
    x = first(torch.cat([model.cls_token.expand(3, 1, 64), model.tokens(images)], dim=1))
    value = second.attn.qkv(second.norm1(x))[:, :, 128:].unflatten(2, (2, 32)).transpose(1, 2)
    output = second.attn.proj((attention @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, second.attn(second.norm1(x)))
    assert torch.equal(attention, model.attention(images))
    assert torch.equal(model.attention(images, 0), model.attention(images, -2))
    with pytest.raises(ValueError, match="no block 2: the encoder has 2"):
        model.attention(images, 2)


def test_attention_drops_no_path_and_leaves_the_mode_alone():
    model = make()
    expected = model.attention(make_images())
    dropping = Encoder("vit_pico_patch16", GRID, drop_path=0.9)
    dropping.load_state_dict(model.encoder.state_dict())
    model.encoder = dropping
    assert torch.equal(model.train().attention(make_images()), expected)
    assert dropping.training
    model.eval().attention(make_images())
    assert not dropping.training


def test_guidance_by_attention_hides_what_the_class_token_looks_at():
    model = make(guidance_by_attention=True)
    images, masks = make_images(), make_masks(num_masked=3)
    guided = model.attention_guided(images, masks)
    assert guided.shape == (3, 2, 8)
    looked = model.attention(images)[:, :, 0, 1:].mean(dim=1)
    for image in range(3):
        expected = set(looked[image].argsort(descending=True)[:3].tolist())
        assert all(set(view.nonzero().flatten().tolist()) == expected for view in guided[image])
    loss = model(images, masks)["reconstruction"]
    torch.testing.assert_close(loss, make()(images, guided)["reconstruction"])


# pictures


@pytest.mark.parametrize("normalize_target", [True, False])
def test_a_perfect_prediction_gives_back_the_picture(normalize_target):
    model = make(normalize_target=normalize_target)
    images, mask = make_images(), make_masks()[:, 0]
    model.predict = lambda images, mask: model.target(images)
    for paste in (True, False):
        torch.testing.assert_close(model.reconstruct(images, mask, paste=paste), images.float(), rtol=0, atol=1e-3)


def test_visible_patches_of_a_reconstruction_are_the_pictures_own():
    model = make()
    images, mask = make_images(), make_masks()[:, 0]
    hidden = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None].expand_as(images)
    pasted, painted = (model.reconstruct(images, mask, paste=paste) for paste in (True, False))
    torch.testing.assert_close(pasted[~hidden], images.float()[~hidden], rtol=0, atol=1e-3)
    torch.testing.assert_close(pasted[hidden], painted[hidden])
    assert (painted - images)[~hidden].abs().mean() > 1
    assert pasted.min() >= 0
    assert pasted.max() <= 255


# refusals


def test_what_does_not_fit_is_refused():
    model = make(alignment=Alignment())
    with pytest.raises(ValueError, match=r"views 'masked_masked' of 3 images need masks \(3, 2"):
        model(make_images(), make_masks(views=1))
    with pytest.raises(ValueError, match=r"masks of 6 patches do not fit the grid \(4, 2\)"):
        model(make_images(), make_masks()[:, :, :3])
    with pytest.raises(ValueError, match=r"patches, the model \(4, 2\)"):
        model(torch.zeros(3, 3, 32, 64), make_masks())
    with pytest.raises(ValueError, match="some hide 3, some 4"):
        model(make_images(), torch.cat([make_masks(views=1), make_masks(views=1, num_masked=3)], dim=1))
    with pytest.raises(ValueError, match="nothing to align"):
        make("none", alignment=Alignment())
    with pytest.raises(ValueError, match=r"'masked_maskd'.*masked_masked"):
        make("masked_maskd")
    with pytest.raises(ValueError, match="layer"):
        make(decoder_heads=5)
    encoder = Encoder("vit_pico_patch16", (84, 84))
    with pytest.raises(ValueError, match="position_grid equal to the grid"):
        MaskedAutoencoder(encoder, GRID)


def test_every_kind_of_views_says_how_many_masks_it_needs():
    assert VIEWS == {"masked_masked": 2, "masked_global": 1, "masked_visible": 1, "none": 1}
    for views, number in VIEWS.items():
        terms = make(views)(make_images(), make_masks(views=number))
        assert terms.keys() == {"reconstruction"}
