"""The encoder of DALL-E's discrete VAE and the filter that makes the small pictures it reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lanczos_weights(source: int, target: int) -> Tensor:
    """(target, source) float32 matrix that resamples one axis with an antialiased Lanczos kernel of three lobes.

    The same filter as Pillow's ``LANCZOS``.  Torch has one too, but only in versions younger than the oldest that
    this package runs with.
    """
    scale = max(source / target, 1.0)  # shrinking widens the kernel
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target)
    pixels = torch.arange(source, dtype=torch.float64) + 0.5
    distance = (pixels - centres[:, None]) / scale
    weights = torch.sinc(distance) * torch.sinc(distance / 3) * (distance.abs() < 3)
    return (weights / weights.sum(1, keepdim=True)).float()


def resize_lanczos(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes images with Lanczos, columns before rows, rounding to whole levels after each as 8-bit images do.

    Args:
        images: (B, 3, H, W), 0-255.
        size: (height, width) of the result.

    Returns:
        (B, 3, height, width) float32, whole numbers 0-255.
    """
    x = images.float()
    columns = lanczos_weights(images.shape[-1], size[1]).to(x.device)
    x = (x @ columns.T).round().clamp(0, 255)
    rows = lanczos_weights(images.shape[-2], size[0]).to(x.device)
    return (rows @ x).round().clamp(0, 255)


class _DVAEBlock(nn.Module):
    """Three 3 x 3 convolutions and a 1 x 1 on the residual branch, each behind a ReLU, with a small fixed gain.

    Names are those of the published file, so its keys load by renaming ``w`` and ``b`` alone.
    """

    GAIN = 1 / 64  # 1 / (number of blocks)^2

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // 4
        self.id_path = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        shapes = {"conv_1": (inputs, hidden, 3), "conv_2": (hidden, hidden, 3), "conv_3": (hidden, hidden, 3)}
        shapes["conv_4"] = (hidden, outputs, 1)
        self.res_path = nn.ModuleDict({name: nn.Conv2d(i, o, k, padding=k // 2) for name, (i, o, k) in shapes.items()})

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for convolution in self.res_path.values():
            residual = convolution(residual.relu())
        return self.id_path(x) + self.GAIN * residual


class DVAEEncoder(nn.Module):
    """The encoder of DALL-E's discrete VAE (Ramesh et al. 2021, appendix A.1): four groups of two residual blocks.

    Args:
        width: channels of the first group; 256 as published, doubled by every further group.
        vocabulary: codes; 8192 as published.
    """

    def __init__(self, width: int = 256, vocabulary: int = 8192) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"input": nn.Conv2d(3, width, 7, padding=3)})
        inputs = width
        for number, outputs in enumerate((width, 2 * width, 4 * width, 8 * width), start=1):
            pair = {"block_1": _DVAEBlock(inputs, outputs), "block_2": _DVAEBlock(outputs, outputs)}
            self.blocks[f"group_{number}"] = nn.ModuleDict(pair)
            inputs = outputs
        self.blocks["output"] = nn.ModuleDict({"conv": nn.Conv2d(inputs, vocabulary, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """(B, vocabulary, H / 8, W / 8) logits of (B, 3, H, W) pixels that were squeezed into 0.1 ... 0.9."""
        x = self.blocks["input"](x)
        for number in range(1, 5):
            group = self.blocks[f"group_{number}"]
            assert isinstance(group, nn.ModuleDict)
            for block in group.values():
                x = block(x)
            if number < 4:
                x = F.max_pool2d(x, 2)
        output = self.blocks["output"]
        assert isinstance(output, nn.ModuleDict)
        return output["conv"](x.relu())
