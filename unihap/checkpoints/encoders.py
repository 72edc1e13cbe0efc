"""Encoders of HAP, MAE, CAE, timm and ViTPose to ours.

One small function a source translates its names and folds what our encoder has not; ``convert_encoder`` does what all
share: the position table onto its grid, our names, the comparison with the encoder that the weights are for.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unihap import __version__
from unihap.checkpoints.encoder_file import ENCODER, PRETRAIN, num_heads
from unihap.checkpoints.encoder_names import Grid, decoder_names, depth_of, our_name, resize_tokens
from unihap.checkpoints.files import State, read_state
from unihap.checkpoints.plain_vit import PlainVit
from unihap.models.encoder import ENCODERS, Encoder
from unihap.models.position import resize_table

HEAD = "a head, not the encoder"
CLASS_TOKEN = (
    "the class token with its position, slot 0 of pos_embed, is pretrain.cls_token; joint mode has no class token, so "
    "its outputs differ from the source's until it is trained"
)
DECODER = "the pre-training decoder; --with-decoder keeps it"


def from_mae(state: Mapping[str, Tensor]) -> PlainVit:
    """MAE (He et al. 2022): timm's names, decoder beside them in some files."""
    return PlainVit.start("MAE", state, "module.")


def from_hap(state: Mapping[str, Tensor]) -> PlainVit:
    """HAP (Yuan et al. 2023): MAE's names, in some files under ``mae.``."""
    return PlainVit.start("HAP", state, "module.", "mae.")


def from_cae(state: Mapping[str, Tensor]) -> PlainVit:
    """CAE (Chen et al. 2024): the encoder beside regressor and decoder, BEiT's biases, LayerScale."""
    vit = PlainVit.start("CAE", state, "module.")
    vit.drop(r"teacher\..+", "a copy of the encoder")
    vit.drop(r"pretext_neck\..+|mask_token|encoder_to_decoder.*", "regressor and decoder, which are not converted")
    vit.rename(r"encoder\.(.+)", r"\1")
    vit.fold_query_and_value_bias()
    vit.fold_layer_scale()
    return vit


def from_timm(state: Mapping[str, Tensor]) -> PlainVit:
    """Any plain ViT of timm or DeiT."""
    vit = PlainVit.start("timm", state, "module.")
    vit.drop(r"(head|head_dist|pre_logits)\..+", HEAD)
    if vit.names(r"norm\.weight"):
        vit.drop(r"fc_norm\..+", HEAD)
    elif vit.names(r"fc_norm\.weight"):
        vit.rename(r"fc_norm\.(.+)", r"norm.\1")
        vit.notes.append("fc_norm, which the source applies to the mean of all tokens, became the norm of every token")
    vit.slots = (0, 1) if "cls_token" in vit.tensors else (0,)
    if "dist_token" in vit.tensors:
        vit.slots = (2,)
        vit.drop("dist_token", "the distillation token; slot 1 of pos_embed goes with it")
    vit.fill_absent_qkv_bias()
    vit.fold_layer_scale()
    return vit


def from_vitpose(state: Mapping[str, Tensor]) -> PlainVit:
    """ViTPose (Xu et al. 2022) and HAP's pose models, trained on one data set or on several."""
    vit = PlainVit.start("ViTPose", state, "module.")
    vit.drop(r"(associate_)?keypoint_heads?\..+", HEAD)
    vit.rename(r"backbone\.(.+)", r"\1")
    vit.rename(r"last_norm\.(.+)", r"norm.\1")
    vit.shared_slot = True
    vit.patch_padding = 2
    vit.notes.append(
        "ViTPose pads the patch convolution by 2 pixels: its patches begin 2 pixels further up and left than those of "
        "this encoder, so outputs differ from the source's until it is fine-tuned"
    )
    return vit


@dataclass(frozen=True)
class Source:
    """How a project stores an encoder.

    Attributes:
        translate: state dict to timm's names.
        containers: entries of the file that may hold the state dict.
        flat: whether the file may be the state dict itself.
        grid: (h, w) of the position table when the format fixes it.
        allowed: classes beside tensors that its training stores.
    """

    translate: Callable[[Mapping[str, Tensor]], PlainVit]
    containers: tuple[str, ...]
    flat: bool = False
    grid: Grid | None = None
    allowed: tuple[type, ...] = ()

    def read(self, path: Path) -> State:
        """State dict of a file; see ``read_state``."""
        return read_state(path, self.containers, flat=self.flat, allowed=self.allowed)


SOURCES: Mapping[str, Source] = {
    "hap": Source(from_hap, ("model",), grid=(16, 8)),  # 256 x 128 pixels
    "mae": Source(from_mae, ("model",), grid=(14, 14), allowed=(argparse.Namespace,)),  # 224 x 224
    "cae": Source(from_cae, ("model",), grid=(14, 14), allowed=(argparse.Namespace,)),  # 224 x 224
    "timm": Source(from_timm, ("model", "state_dict"), flat=True),
    "vitpose": Source(from_vitpose, ("state_dict",)),
}


@dataclass
class Converted:
    """An encoder under our names.

    Attributes:
        weights: ``shared.encoder.*`` and ``pretrain.*``.
        encoder: what the card says of the encoder.
        used: source key -> our names.
        dropped: source key -> why.
        unfilled: names that must be filled and are not.
        folded: what was folded into which weight.
        notes: what a user should know.
        interpolation: of the position table.
    """

    weights: State
    encoder: dict[str, Any]
    used: dict[str, list[str]]
    dropped: dict[str, str]
    unfilled: list[str]
    folded: list[str]
    notes: list[str]
    interpolation: str

    def card(self, **source: Any) -> dict[str, Any]:
        """The file's card; ``source`` says where the weights come from."""
        return {
            "format": 1,
            "unihap": __version__,
            "encoder": self.encoder,
            "source": {**source, "interpolation": self.interpolation, "folded": self.folded},
            "notes": self.notes,
        }


def size_name(width: int, depth: int) -> str:
    """The encoder of a width and depth.

    Raises:
        ValueError: none, so the number of heads is unknown.
    """
    for name, size in ENCODERS.items():
        if (size["embed_dim"], size["depth"]) == (width, depth):
            return name
    raise ValueError(f"no encoder has width {width} and depth {depth}; name one with --encoder NAME")


def convert_encoder(
    vit: PlainVit,
    source_grid: Grid,
    target_grid: Grid | None = None,
    *,
    encoder: str | None = None,
    expert: int | None = None,
    with_decoder: bool = False,
    final_norm: bool = True,
) -> Converted:
    """A translated ViT to our encoder.

    Args:
        vit: from one of the functions of ``SOURCES``; it is used up.
        source_grid: (h, w) that its position table is for.
        target_grid: (h, w) of the converted table, resized bicubically; ``None`` keeps the source's.
        encoder: name of the encoder; ``None`` finds it by width and depth.
        expert: data set whose expert joins ``mlp.fc2``, for ViTPose files of several data sets.
        with_decoder: keep HAP's and MAE's decoder for further pre-training.
        final_norm: ``False`` leaves the final norm at 1 and 0, as ViTPose does when it starts from HAP.

    Raises:
        ValueError: not such an encoder: unknown key, another shape, another grid, another expert.
    """
    vit.join_expert(expert)
    if with_decoder and "mask_token" not in vit.tensors:
        raise ValueError(f"the {vit.source} file has no decoder to keep; leave --with-decoder out")
    if not with_decoder:
        vit.drop(r"mask_token|decoder_.+", DECODER)
    vit.check_names(decoder=with_decoder)
    vit.split_positions(source_grid)
    if "cls_token" in vit.tensors:
        vit.notes.append(CLASS_TOKEN)
    if not final_norm:
        for leaf, value in (("weight", torch.ones), ("bias", torch.zeros)):
            tensor, keys = vit.pop(f"norm.{leaf}")
            vit.dropped.update(dict.fromkeys(keys, "the final norm is left at 1 and 0"))
            vit.put(f"norm.{leaf}", value(tensor.shape), [])
    grid = target_grid or source_grid
    vit.tensors["pos_embed"] = resize_table(vit.tensors["pos_embed"], grid)
    if "decoder_pos_embed" in vit.tensors:
        vit.tensors["decoder_pos_embed"] = resize_tokens(vit.tensors["decoder_pos_embed"], source_grid, grid)
    wanted = [our_name(name) for name in decoder_names(vit.tensors)] if with_decoder else []

    name = encoder or size_name(vit.tensors["pos_embed"].shape[1], depth_of(vit.tensors))
    with torch.device("meta"):
        expected = Encoder(name, grid)
    weights = {our_name(name): value for name, value in vit.tensors.items()}
    origin = {our_name(name): keys for name, keys in vit.keys.items()}
    shapes = {f"{ENCODER}{key}": tuple(value.shape) for key, value in expected.state_dict().items()}
    check_shapes(weights, origin, shapes, name)
    used: dict[str, list[str]] = {}
    for ours, sources in origin.items():
        for key in sources:
            used.setdefault(key, []).append(ours)
    return Converted(
        weights,
        {
            "name": name,
            "num_heads": num_heads(expected),
            "position_grid": list(grid),
            "patch_padding": vit.patch_padding,
            "final_norm": "loaded" if final_norm else "1 and 0",
            "class_token": f"{PRETRAIN}cls_token" if f"{PRETRAIN}cls_token" in weights else "none",
        },
        used,
        vit.dropped,
        [key for key in (*shapes, *wanted) if key not in weights],
        vit.folded,
        vit.notes,
        "none" if grid == source_grid else "bicubic",
    )


def check_shapes(
    weights: State, keys: Mapping[str, list[str]], shapes: Mapping[str, tuple[int, ...]], encoder: str
) -> None:
    """Compares a converted encoder with the one it is for.

    Args:
        weights: by our names.
        keys: our name -> the source keys that it was made of.
        shapes: of the encoder's weights, by our names.
        encoder: its name.

    Raises:
        ValueError: another shape, or a weight that the encoder has not.
    """
    for name, value in weights.items():
        shape = tuple(value.shape)
        if name.startswith(ENCODER) and shape != shapes.get(name):
            expected = f"has shape {shapes[name]}" if name in shapes else "does not exist"
            raise ValueError(
                f"{' + '.join(keys[name])} has shape {shape}, but {name} of {encoder} {expected}; "
                f"name the right encoder with --encoder NAME"
            )
