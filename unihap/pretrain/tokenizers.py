"""What the context autoencoder predicts: a discrete code for every patch of an image.

A tokenizer is frozen and is no module: it has no place in the state dict, the optimizer or the gradient
synchronisation of the model that uses it.  Its tensors follow the images from device to device.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

from unihap.pretrain.dvae import DVAEEncoder, resize_lanczos
from unihap.pretrain.views import patchify

# How the encoder of DALL-E's discrete VAE becomes a file that is read without executing anything.
HOW_TO_GET_DVAE = (
    "download https://cdn.openai.com/dall-e/encoder.pkl, install the package DALL-E once, anywhere, and run "
    "torch.save(torch.load('encoder.pkl', map_location='cpu', weights_only=False).state_dict(), 'dvae_encoder.pth')"
)


class Tokenizer(Protocol):
    """Images to codes."""

    @property
    def vocabulary(self) -> int:
        """Number of different codes."""

    def __call__(self, images: Tensor) -> Tensor:
        """Codes of images.

        Args:
            images: (B, 3, H, W) uint8 or float, RGB 0-255; H and W are multiples of the patch.

        Returns:
            (B, gh, gw) int64 codes, 0 ... vocabulary - 1, one for every patch; they carry no gradient.
        """


def _grid(images: Tensor, patch: int) -> tuple[int, int]:
    """(gh, gw) whole patches of images."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(f"images of {height} x {width} are no whole number of {patch} x {patch} patches")
    return height // patch, width // patch


def _patches(images: Tensor, patch: int) -> Tensor:
    """(B, gh, gw, 3 * patch^2) float32 pixels of every patch, in the order of ``patchify``."""
    grid = _grid(images, patch)
    return patchify(images.float(), patch).unflatten(1, grid)


# (i) the discrete VAE of DALL-E


class DVAE:
    """Codes of DALL-E's discrete VAE, the target of BEiT and of the context autoencoder.

    The published network has a stride of 8, so it reads a copy of the image at half the resolution: 128 x 64 for
    256 x 128.  The copy is made here, from the finished crop; both share crop and flip by construction.

    The network always runs in float32 (the published one used half precision on GPUs): codes must not depend on
    the precision of training.

    Args:
        state: state dict of the published encoder, keys ``blocks.*.w`` and ``blocks.*.b``.
        patch: side of the encoder's patches in pixels.

    Raises:
        ValueError: keys or shapes that are not those of the published encoder.
    """

    STRIDE = 8
    MARGIN = 0.1  # the logit-Laplace margin: pixels 0 ... 1 become 0.1 ... 0.9

    def __init__(self, state: Mapping[str, Tensor], patch: int = 16) -> None:
        shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
        if "blocks.input.w" not in shapes or "blocks.output.conv.w" not in shapes:
            raise ValueError(
                f"not the encoder of DALL-E's discrete VAE: no blocks.input.w and blocks.output.conv.w among "
                f"{sorted(state)[:5]} ...; {HOW_TO_GET_DVAE}"
            )
        self.patch = patch
        self.vocabulary = shapes["blocks.output.conv.w"][0]
        with torch.device("meta"):
            self._network = DVAEEncoder(shapes["blocks.input.w"][0], self.vocabulary)
        expected = self._network.state_dict()
        needed = {key.replace(".weight", ".w").replace(".bias", ".b"): key for key in expected}
        unknown, missing = sorted(state.keys() - needed.keys()), sorted(needed.keys() - state.keys())
        if unknown or missing:
            raise ValueError(
                f"not the encoder of DALL-E's discrete VAE: {len(unknown)} unknown keys {unknown[:5]} and "
                f"{len(missing)} missing keys {missing[:5]}; {HOW_TO_GET_DVAE}"
            )
        wrong = [f"{key} {shapes.get(key)}" for key in state if shapes.get(key) != tuple(expected[needed[key]].shape)]
        if wrong:
            raise ValueError(f"not the encoder of DALL-E's discrete VAE: shapes of {wrong[:5]}; {HOW_TO_GET_DVAE}")
        renamed = {needed[key]: value.float() for key, value in state.items()}
        self._network.load_state_dict(renamed, assign=True)
        self._network.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: str, patch: int = 16) -> "DVAE":
        """Reads the state dict of the published encoder, saved as ``HOW_TO_GET_DVAE`` says.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a plain state dict, e.g. the pickled module as it was downloaded, or not of this network.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; {HOW_TO_GET_DVAE}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no plain state dict; {HOW_TO_GET_DVAE}") from error
        if not isinstance(state, Mapping):
            raise ValueError(f"{path} holds a {type(state).__name__}, no state dict; {HOW_TO_GET_DVAE}")
        return cls(state, patch)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, gh, gw) codes; see ``Tokenizer``."""
        gh, gw = _grid(images, self.patch)
        with torch.autocast(images.device.type, enabled=False):
            small = resize_lanczos(images, (gh * self.STRIDE, gw * self.STRIDE)) / 255
            logits = self._network.to(images.device)(small * (1 - 2 * self.MARGIN) + self.MARGIN)
        return logits.argmax(1)


# (ii) and (iii) codes that need no download


class RandomProjection:
    """The frozen random-projection quantiser of BEST-RQ (Chiu et al. 2022, Eq. 1), on patches instead of sound.

    A patch is normalised, projected by a random matrix onto few dimensions, and its code is the random unit vector
    nearest to the direction of the projection.  Everything follows from the seed, on any device, so there is
    nothing to store.

    Without a normalisation few codes are used, as the paper warns.  Here every patch loses its own mean, as in the
    pixel target of MAE (the deviation falls out with the length).  On the 15104 patches of 118 person crops the
    perplexity of 8192 codes is 1400 to 2000 over five seeds; with the statistics of ImageNet for all patches it is
    110 to 250.  A flat patch has code 0.

    Args:
        vocabulary: codes.
        width: dimensions of the codes.
        patch: side of a patch in pixels.
        seed: of the projection and the codes.
    """

    def __init__(self, vocabulary: int = 8192, width: int = 16, patch: int = 16, seed: int = 0) -> None:
        if vocabulary < 2 or width < 2:
            raise ValueError(f"a quantiser needs 2 codes of 2 dimensions at least, got {vocabulary} of {width}")
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same codes on every device
        self.vocabulary = vocabulary
        self.patch = patch
        # Xavier draws from -b ... b; the scale b does not change a direction.
        self._projection = 2 * torch.rand(3 * patch**2, width, generator=generator) - 1
        self._codes = F.normalize(torch.randn(vocabulary, width, generator=generator), dim=1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, gh, gw) codes; see ``Tokenizer``."""
        self._projection, self._codes = self._projection.to(images.device), self._codes.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            pixels = _patches(images, self.patch)
            projected = (pixels - pixels.mean(-1, keepdim=True)) @ self._projection
            # Of unit vectors the nearest to a direction has the largest product with it, whatever the length.
            return (projected @ self._codes.T).argmax(-1)


class PixelKMeans:
    """The nearest of some prototype patches by the distance of their pixels.

    Args:
        centres: (vocabulary, 3 * patch^2) pixels 0-255, in the order of ``patchify``.
    """

    def __init__(self, centres: Tensor) -> None:
        patch = math.isqrt(centres.shape[-1] // 3) if centres.ndim == 2 else 0
        if not patch or centres.shape[1] != 3 * patch**2:
            raise ValueError(f"centres must be (codes, 3 * patch * patch), got {tuple(centres.shape)}")
        self.vocabulary = len(centres)
        self.patch = patch
        self.centres = centres.float()

    @classmethod
    def fit(
        cls, images: Tensor, vocabulary: int, *, rng: np.random.Generator, patch: int = 16, num_iterations: int = 20
    ) -> "PixelKMeans":
        """Fits the prototypes to the patches of images: random patches to start with, then Lloyd's iterations.

        Scipy's k-means++ takes time with the square of the number of codes, too long for thousands.

        Args:
            images: (B, 3, H, W), 0-255.
            vocabulary: codes; at most the number of different patches.
            rng: draws the first prototypes.
            patch: side of a patch in pixels.
            num_iterations: Lloyd's iterations.

        Raises:
            ValueError: fewer different patches than codes.
        """
        patches = np.unique(_patches(images, patch).flatten(0, 2).cpu().numpy(), axis=0)
        if len(patches) < vocabulary:
            raise ValueError(f"{len(patches)} different patches cannot give {vocabulary} codes; fit on more images")
        centres, _ = kmeans2(patches, vocabulary, iter=num_iterations, minit="points", seed=rng)
        return cls(torch.from_numpy(centres))

    @classmethod
    def load(cls, path: str) -> "PixelKMeans":
        """Reads what ``save`` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file of something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; PixelKMeans.fit(images, ...).save(path) writes one")
        try:
            return cls(torch.from_numpy(np.load(path, allow_pickle=False)))
        except (ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{path} holds no prototypes of patches (.npy): {error}") from error

    def save(self, path: str) -> None:
        """Writes the prototypes as an array (.npy)."""
        np.save(path, self.centres.cpu().numpy(), allow_pickle=False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, gh, gw) codes; see ``Tokenizer``."""
        self.centres = self.centres.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            patches = _patches(images, self.patch)
            # |x - c|^2 without |x|^2, which is the same for every code.
            return (self.centres.square().sum(1) - 2 * patches @ self.centres.T).argmin(-1)
