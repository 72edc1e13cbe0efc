import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unihap.pretrain.dvae import DVAEEncoder, lanczos_weights, resize_lanczos
from unihap.pretrain.tokenizers import DVAE, PixelKMeans, RandomProjection, Tokenizer


def random_images(batch: int = 2, height: int = 64, width: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)
    # Colour changes from patch to patch as well, or noise would be the same to a network everywhere.
    colour = torch.randint(0, 256, (batch, 3, height // 8, width // 8), generator=generator, dtype=torch.uint8)
    return noise // 4 + (colour // 4 * 3).repeat_interleave(8, 2).repeat_interleave(8, 3)


def published_state(width: int = 8, vocabulary: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """A small state dict with the names of the published encoder, written down without its implementation."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        state[f"{name}.w"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) / math.sqrt(
            inputs * kernel**2
        )
        state[f"{name}.b"] = torch.randn(outputs, generator=generator) / 10

    convolution("blocks.input", 3, width, 7)
    inputs = width
    for group in range(4):
        outputs = width * 2**group
        for block in (1, 2):
            prefix = f"blocks.group_{group + 1}.block_{block}"
            if inputs != outputs:
                convolution(f"{prefix}.id_path", inputs, outputs, 1)
            convolution(f"{prefix}.res_path.conv_1", inputs, outputs // 4, 3)
            convolution(f"{prefix}.res_path.conv_2", outputs // 4, outputs // 4, 3)
            convolution(f"{prefix}.res_path.conv_3", outputs // 4, outputs // 4, 3)
            convolution(f"{prefix}.res_path.conv_4", outputs // 4, outputs, 1)
            inputs = outputs
    convolution("blocks.output.conv", inputs, vocabulary, 1)
    # Without this one code would win everywhere, since random features hardly vary beside their mean.
    logits = published_logits(state, 0.1 + 0.8 * torch.rand(4, 3, 64, 64, generator=generator))
    state["blocks.output.conv.b"] -= logits.mean((0, 2, 3))
    return state


def published_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published forward pass, from its state dict alone."""

    def apply(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.w"]
        return F.conv2d(x, weight, state[f"{name}.b"], padding=(weight.shape[-1] - 1) // 2)

    x = apply("blocks.input", x)
    for group in range(1, 5):
        for block in (1, 2):
            prefix = f"blocks.group_{group}.block_{block}"
            y = x
            for number in range(1, 5):
                y = apply(f"{prefix}.res_path.conv_{number}", F.relu(y))
            x = (apply(f"{prefix}.id_path", x) if f"{prefix}.id_path.w" in state else x) + y / 8**2
        if group < 4:
            x = F.max_pool2d(x, kernel_size=2)
    return apply("blocks.output.conv", F.relu(x))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "dvae": lambda: DVAE(published_state()),
    "random projection": lambda: RandomProjection(vocabulary=32),
    "k-means": lambda: PixelKMeans.fit(random_images(seed=7), 16, rng=np.random.default_rng(0)),
}


# what every tokenizer promises


@pytest.fixture(params=TOKENIZERS, name="tokenizer")
def _tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def test_every_patch_of_16_pixels_gets_a_code_of_the_vocabulary(tokenizer):
    codes = tokenizer(random_images(2, 256, 128))
    assert codes.shape == (2, 16, 8)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < tokenizer.vocabulary
    assert len(codes.unique()) > 2


def test_bytes_and_floats_give_the_same_codes(tokenizer):
    images = random_images()
    assert torch.equal(tokenizer(images), tokenizer(images.float()))


def test_an_image_has_its_codes_in_whatever_batch(tokenizer):
    images = random_images(3)
    assert torch.equal(tokenizer(images)[1:2], tokenizer(images[1:2]))


def test_codes_do_not_depend_on_the_precision_of_training(tokenizer):
    images = random_images()
    expected = tokenizer(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer(images), expected)


def test_a_tokenizer_is_no_part_of_the_model_that_uses_it(tokenizer):
    owner = nn.Module()
    owner.tokenizer = tokenizer
    assert not owner.state_dict()
    assert not list(owner.parameters())


def test_codes_carry_no_gradient(tokenizer):
    assert not tokenizer(random_images().float().requires_grad_()).requires_grad


@pytest.mark.parametrize("shape", [(1, 3, 40, 32), (1, 3, 32, 40)])
def test_parts_of_patches_are_refused(tokenizer, shape):
    with pytest.raises(ValueError, match="whole number of 16 x 16 patches"):
        tokenizer(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_pictures_without_batch_or_colour_are_refused(tokenizer, shape):
    with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\)"):
        tokenizer(torch.zeros(shape))


# the discrete VAE


def test_halving_weighs_six_pixels_on_either_side_by_the_windowed_sinc():
    def kernel(x: float) -> float:
        return math.sin(math.pi * x) / (math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x / 3)

    row = lanczos_weights(32, 16)[8]  # its centre lies between pixels 16 and 17 (from 0)
    half = np.array([kernel((i + 0.5) / 2) for i in range(6)])
    expected = np.concatenate([half[::-1], half]) / (2 * half.sum())
    assert row[11:23].numpy() == pytest.approx(expected, abs=1e-6)
    assert not row[:11].any()
    assert not row[23:].any()


@pytest.mark.parametrize("size", [(32, 16), (16, 8), (48, 24), (64, 32), (128, 64)])
def test_lanczos_is_pillows_within_one_level(size):
    images = random_images(1)
    pillow = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.LANCZOS)
    ours = resize_lanczos(images, size)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - np.asarray(pillow, dtype=np.float32)).max() <= 1


def test_the_dvae_computes_what_the_published_network_computes():
    state = published_state()
    network = DVAEEncoder(8, 32)
    network.load_state_dict({k[:-2] + {".w": ".weight", ".b": ".bias"}[k[-2:]]: v for k, v in state.items()})
    x = torch.rand(2, 3, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(x), published_logits(state, x), atol=1e-5, rtol=1e-5)


def test_the_dvae_reads_half_the_resolution_in_the_range_one_to_nine_tenths():
    state = published_state()
    images = random_images()
    pixels = resize_lanczos(images, (32, 16)) / 255 * 0.8 + 0.1
    assert torch.equal(DVAE(state)(images), published_logits(state, pixels).argmax(1))


def test_the_published_size_has_the_published_shapes():
    with torch.device("meta"):
        state = DVAEEncoder().state_dict()
    assert sum(value.numel() for value in state.values()) == 53_786_240
    assert tuple(state["blocks.input.weight"].shape) == (256, 3, 7, 7)
    assert tuple(state["blocks.group_4.block_1.id_path.weight"].shape) == (2048, 1024, 1, 1)
    assert tuple(state["blocks.group_4.block_2.res_path.conv_1.weight"].shape) == (512, 2048, 3, 3)
    assert tuple(state["blocks.output.conv.weight"].shape) == (8192, 2048, 1, 1)
    assert "blocks.group_1.block_1.id_path.weight" not in state


def test_the_dvae_is_read_from_a_plain_state_dict(tmp_path):
    torch.save(published_state(), tmp_path / "dvae.pth")
    tokenizer = DVAE.load(str(tmp_path / "dvae.pth"))
    assert tokenizer.vocabulary == 32
    assert torch.equal(tokenizer(random_images()), DVAE(published_state())(random_images()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"blocks.group_5.block_1.res_path.conv_1.w": torch.zeros(1)}), "1 unknown keys.*group_5"),
        (lambda s: s.pop("blocks.group_2.block_1.id_path.b"), "1 missing keys.*id_path.b"),
        (lambda s: s.pop("blocks.input.w"), "no blocks.input.w"),
        (
            lambda s: s.update({"blocks.group_1.block_1.res_path.conv_4.w": torch.zeros(8, 2, 3, 3)}),
            "shapes of.*conv_4",
        ),
    ],
)
def test_a_state_dict_of_another_network_is_refused_with_the_way_to_the_right_one(change, message):
    state = published_state()
    change(state)
    with pytest.raises(ValueError, match=rf"(?s){message}.*encoder\.pkl"):
        DVAE(state)


def test_the_pickled_module_as_it_is_downloaded_is_refused_with_the_way_to_save_it(tmp_path):
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "encoder.pkl")
    with pytest.raises(ValueError, match=r"no plain state dict.*state_dict\(\)"):
        DVAE.load(str(tmp_path / "encoder.pkl"))


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="no plain state dict"):
        DVAE.load(str(tmp_path / "text.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        DVAE.load(str(tmp_path / "list.pth"))


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cdn\.openai\.com"):
        DVAE.load(str(tmp_path / "nothing.pth"))


# the random projection


def test_a_code_is_the_nearest_unit_vector_to_the_direction_of_the_projection():
    tokenizer = RandomProjection(vocabulary=50, width=4, patch=8, seed=3)
    images = random_images(1, 16, 16)
    projection, codes = tokenizer._projection.numpy(), tokenizer._codes.numpy()
    expected = []
    for y in (0, 8):
        for x in (0, 8):
            patch = images[0, :, y : y + 8, x : x + 8].permute(1, 2, 0).flatten().numpy().astype(np.float64)
            patch = (patch - patch.mean()) / patch.std(ddof=1)
            direction = patch @ projection
            distance = np.linalg.norm(codes - direction / np.linalg.norm(direction), axis=1)
            expected.append(distance.argmin())
    assert tokenizer(images).flatten().tolist() == expected


def test_a_seed_decides_the_codes():
    images = random_images()
    codes = RandomProjection(seed=1)(images)
    assert torch.equal(codes, RandomProjection(seed=1)(images))
    assert not torch.equal(codes, RandomProjection(seed=2)(images))


def test_brightness_and_contrast_do_not_change_a_code():
    images = random_images().float()
    tokenizer = RandomProjection()
    assert torch.equal(tokenizer(images), tokenizer(images * 0.5 + 64))


def test_a_flat_patch_has_code_0():
    assert not RandomProjection()(torch.full((1, 3, 32, 32), 117, dtype=torch.uint8)).any()


def test_most_codes_differ_on_real_people(dev_data):
    files = sorted((dev_data / "Market-1501-v15.09.15").rglob("*.jpg"))[:32]
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((128, 256))) for file in files])
    codes = RandomProjection()(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert len(codes.unique()) > 0.2 * codes.numel()


@pytest.mark.parametrize("sizes", [{"vocabulary": 1}, {"width": 1}])
def test_a_quantiser_of_one_code_or_dimension_is_refused(sizes):
    with pytest.raises(ValueError, match="2 codes of 2 dimensions"):
        RandomProjection(**sizes)


# k-means


def test_a_patch_gets_its_nearest_prototype():
    generator = torch.Generator().manual_seed(0)
    centres = 255 * torch.rand(20, 3 * 8**2, generator=generator)
    images = random_images(1, 16, 24)
    tokenizer = PixelKMeans(centres)
    assert tokenizer.patch == 8
    for row in range(2):
        for column in range(3):
            patch = images[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].permute(1, 2, 0).flatten()
            distance = ((centres.double() - patch.double()) ** 2).sum(1)
            assert tokenizer(images)[0, row, column] == distance.argmin()


def test_prototypes_of_four_colours_are_these_colours():
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [128, 128, 128]], dtype=torch.uint8)
    image = colours.view(2, 2, 3).permute(2, 0, 1).repeat_interleave(16, 1).repeat_interleave(16, 2)[None]
    tokenizer = PixelKMeans.fit(image.repeat(3, 1, 1, 1), 4, rng=np.random.default_rng(0))
    assert sorted(tokenizer(image).flatten().tolist()) == [0, 1, 2, 3]
    assert sorted(map(tuple, tokenizer.centres[:, :3].tolist())) == sorted(map(tuple, colours.tolist()))


def test_iterations_bring_prototypes_closer_to_the_patches():
    images = random_images(4, 64, 64)
    patches = images.float().unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)

    def distance(num_iterations: int) -> float:
        fitted = PixelKMeans.fit(images, 6, rng=np.random.default_rng(0), num_iterations=num_iterations)
        return ((patches - fitted.centres[fitted(images).flatten()]) ** 2).sum().item()

    assert distance(10) < distance(1)


def test_the_same_generator_fits_the_same_prototypes():
    first, second = (PixelKMeans.fit(random_images(), 4, rng=np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.centres, second.centres)


def test_prototypes_survive_the_disk(tmp_path):
    tokenizer = PixelKMeans.fit(random_images(), 4, rng=np.random.default_rng(0))
    tokenizer.save(str(tmp_path / "patches.npy"))
    loaded = PixelKMeans.load(str(tmp_path / "patches.npy"))
    assert loaded.vocabulary == 4
    assert torch.equal(loaded(random_images(seed=1)), tokenizer(random_images(seed=1)))


def test_too_few_different_patches_are_refused():
    with pytest.raises(ValueError, match="1 different patches cannot give 2 codes"):
        PixelKMeans.fit(torch.zeros(4, 3, 32, 32), 2, rng=np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(5,), (5, 3, 256), (5, 100), (0, 0)])
def test_prototypes_that_are_no_patches_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(codes, 3 \* patch \* patch\)"):
        PixelKMeans(torch.zeros(shape))


def test_files_without_prototypes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"PixelKMeans\.fit"):
        PixelKMeans.load(str(tmp_path / "nothing.npy"))
    np.savez(tmp_path / "several.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="no prototypes"):
        PixelKMeans.load(str(tmp_path / "several.npz"))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no prototypes"):
        PixelKMeans.load(str(tmp_path / "pickle.npy"))
