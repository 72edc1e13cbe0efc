"""Latents, predictions, losses and gradients of the original HAP, from weights made by the same recipe.

The recorded masks number the *sequence with the class token in front*: where they keep number i, the original's blocks
got the token at position i of (class token, patch 0, patch 1, ...), i.e. patch i - 1, or the class token once more for
i = 0, while decoder and loss took i for patch i.  That is how the numbers were recorded (the original's own masking
drops the class token before it picks), so here as there ``tokens`` is that sequence; all the rest is what is tested.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from unihap.models.encoder import Encoder
from unihap.pretrain.alignment import Alignment
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder
from unihap.pretrain.views import visible_tokens

GRID = (16, 8)


def ours(original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original's tensors by our names; a class token's position that is not zero is folded into the token."""
    renamed = {}
    for name, value in original.items():
        if name.startswith("decoder_"):
            name = name.replace("decoder_", "decoder.", 1).replace("decoder.pred.", "decoder.predict.")
            name = name.replace("decoder.pos_embed", "decoder.position")
        elif name == "mask_token":
            name = "decoder.mask_token"
        elif name == "cls_token":
            value = value + original["pos_embed"][:, :1]
        elif name == "pos_embed":
            name = "encoder.position.table"
            value = value[:, 1:].transpose(1, 2).unflatten(2, GRID)
        else:
            name = f"encoder.{name}"
        renamed[name] = value
    return renamed


class AsRecorded(MaskedAutoencoder):
    """Numbers tokens as the recorded masks do."""

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        tokens = super().tokens(images)
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens[:, :-1]], dim=1)


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, np.ndarray]:
    if not (golden / "hap").is_dir():
        pytest.skip(f"no reference numbers of HAP in {golden}")
    with np.load(golden / "hap" / "pretrain.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def recipe(golden: Path):
    spec = importlib.util.spec_from_file_location("recipe", golden / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(recipe) -> torch.Tensor:
    return recipe.image("dev.hap", 4, 256, 128)


@pytest.fixture(scope="module")
def model(golden: Path, recipe, reference) -> AsRecorded:
    encoder = Encoder("vit_base_patch16", GRID, drop_path=0.0)
    model = AsRecorded(encoder, GRID, alignment=Alignment(), scratch=False)
    # Equality of keys is part of the assertion: nothing of the original is left out, nothing of ours unfilled.
    model.load_state_dict(ours(recipe.state_dict(golden / "hap" / "keys.tsv", "hap")), strict=True)
    return model.eval()


def close(value: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(value, torch.from_numpy(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("view", [1, 2])
def test_latents_are_the_originals(model, images, reference, view):
    mask = torch.from_numpy(reference[f"mask_view{view}"]).flatten(1)
    with torch.no_grad():
        latent = model.encode(visible_tokens(model.tokens(images), mask))
    close(latent[:, :, ::16], reference[f"latent_view{view}"])
    close(latent[:, 0], reference[f"cls_view{view}"])


@pytest.mark.parametrize("view", [1, 2])
def test_latents_are_the_originals_by_patch_numbers_too(model, images, reference, view):
    """Without the shift of ``AsRecorded``, where the recorded mask does not keep number 0."""
    mask = torch.from_numpy(reference[f"mask_view{view}"]).flatten(1)
    fit = mask[:, 0]
    assert fit.sum() == 2
    with torch.no_grad():
        tokens = MaskedAutoencoder.tokens(model, images[fit])
        latent = model.encode(visible_tokens(tokens, mask[fit].roll(-1, 1)))
    close(latent[:, :, ::16], reference[f"latent_view{view}"][fit.numpy()])


def test_predictions_are_the_originals(model, images, reference):
    with torch.no_grad():
        prediction = model.predict(images, torch.from_numpy(reference["mask_view1"]))
    close(prediction[:, ::8, ::8], reference["prediction_view1"])


def test_losses_and_gradients_are_the_originals(model, images, reference):
    masks = torch.from_numpy(np.stack([reference["mask_view1"], reference["mask_view2"]], axis=1))
    terms = model(images, masks)
    assert terms.keys() == {"reconstruction", "alignment"}
    assert terms["reconstruction"].item() == pytest.approx(float(reference["loss_reconstruction"]), abs=1e-4)
    assert terms["alignment"].item() / 0.05 == pytest.approx(float(reference["loss_align"]), abs=1e-4)
    total = sum(terms.values())
    assert total.item() == pytest.approx(float(reference["loss_total"]), abs=1e-4)
    total.backward()
    parameters = dict(model.named_parameters())
    norms = json.loads(str(reference["grad_norms"]))
    assert norms
    for name, norm in norms.items():
        (renamed,) = ours({"pos_embed": torch.zeros(1, 129, 1), name: torch.zeros(1)}).keys() - {
            "encoder.position.table"
        }
        assert parameters[renamed].grad.norm().item() == pytest.approx(norm, rel=1e-3), name
    model.zero_grad(set_to_none=True)
