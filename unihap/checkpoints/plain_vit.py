"""A plain ViT on its way from another project's names to ours: every key is accounted for, every fold is exact."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unihap.models.encoder import PIXEL_MEAN, PIXEL_STD

# What may be left under timm's names when a source's own ways are translated.
ENCODER_NAME = re.compile(
    r"cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)"
    r"|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.(weight|bias)"
)
DECODER_NAME = re.compile(r"mask_token|decoder_.+")  # MAE's and HAP's


@dataclass
class PlainVit:
    """A ViT under timm's names.

    Attributes:
        source: name of the project, for messages.
        tensors: by timm's names, float32.
        keys: timm's name -> the source keys that it was made of.
        dropped: source key -> why.
        notes: what a user should know.
        folded: what was folded into which weight, one entry a rule.
        slots: how many leading entries the position table may have before those of the patches.
        shared_slot: whether slot 0 is added to every patch (ViTPose) rather than to the class token.
        patch_padding: of the source's patch convolution, in pixels.
    """

    source: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    slots: tuple[int, ...] = (1,)
    shared_slot: bool = False
    patch_padding: int = 0

    @classmethod
    def start(cls, source: str, state: Mapping[str, Tensor], *prefixes: str) -> "PlainVit":
        """Takes every key over, without those of ``prefixes`` that it starts with (in this order).

        Raises:
            ValueError: two keys that differ in the prefixes alone.
        """
        vit = cls(source)
        for key, value in state.items():
            name = key
            for prefix in prefixes:
                name = name.removeprefix(prefix)
            if name in vit.tensors:
                raise ValueError(f"{key!r} and {vit.keys[name][0]!r} are the same weight; the file holds two encoders")
            vit.tensors[name], vit.keys[name] = value.float(), [key]
        return vit

    def names(self, pattern: str) -> list[re.Match[str]]:
        """Matches of the names that match a whole pattern."""
        return [match for match in (re.fullmatch(pattern, name) for name in list(self.tensors)) if match]

    def pop(self, name: str) -> tuple[Tensor, list[str]]:
        """Removes a weight that another one needs.

        Raises:
            ValueError: not there.
        """
        if name not in self.tensors:
            raise ValueError(f"the {self.source} file has no {name}, which others of its weights go with")
        return self.tensors.pop(name), self.keys.pop(name)

    def put(self, name: str, value: Tensor, keys: list[str]) -> None:
        """Sets a weight made of some source keys."""
        self.tensors[name], self.keys[name] = value, keys

    def drop(self, pattern: str, why: str) -> None:
        """Leaves out every weight whose whole name matches."""
        for match in self.names(pattern):
            _, keys = self.pop(match[0])
            self.dropped.update(dict.fromkeys(keys, why))

    def rename(self, pattern: str, replacement: str) -> None:
        r"""Renames every weight whose whole name matches, e.g. ``last_norm\.(.+)`` to ``norm.\1``."""
        for match in self.names(pattern):
            self.put(match.expand(replacement), *self.pop(match[0]))

    def fold_layer_scale(self) -> None:
        """Multiplies LayerScale (CaiT, Touvron et al. 2021, Eq. 2) into the matrix before it: g * (W x + b)."""
        branches = {"1": "attn.proj", "2": "mlp.fc2"}
        for match in self.names(r"(blocks\.\d+)\.(?:gamma_|ls)([12])(?:\.gamma)?"):
            scale, scale_keys = self.pop(match[0])
            for leaf, factor in (("weight", scale[:, None]), ("bias", scale)):
                name = f"{match[1]}.{branches[match[2]]}.{leaf}"
                value, keys = self.pop(name)
                self.put(name, value * factor, keys + scale_keys)
            self._fold("LayerScale into attn.proj and mlp.fc2")

    def fold_query_and_value_bias(self) -> None:
        """Joins BEiT's separate biases of queries and values; keys have none, which softmax cannot tell from any."""
        for match in self.names(r"(blocks\.\d+\.attn)\.q_bias"):
            query, keys = self.pop(match[0])
            value, more = self.pop(f"{match[1]}.v_bias")
            self.put(f"{match[1]}.qkv.bias", torch.cat([query, torch.zeros_like(query), value]), keys + more)
            self._fold("q_bias, 0, v_bias into attn.qkv.bias")

    def fill_absent_qkv_bias(self) -> None:
        """Gives attention without biases biases of 0."""
        for match in self.names(r"(blocks\.\d+\.attn\.qkv)\.weight"):
            if f"{match[1]}.bias" not in self.tensors:
                self.put(f"{match[1]}.bias", torch.zeros(self.tensors[match[0]].shape[0]), [])
                self._fold("absent attn.qkv.bias as 0")

    def join_expert(self, expert: int | None) -> None:
        """Appends the rows of one expert to ``mlp.fc2`` (ViTPose+, several data sets in one file).

        Raises:
            ValueError: experts and no choice, or a choice and no such expert.
        """
        found = sorted({int(m[1]) for m in self.names(r"blocks\.\d+\.mlp\.experts\.(\d+)\.(?:weight|bias)")})
        if (expert not in found) if found else (expert is not None):
            having = f"experts {found[0]} ... {found[-1]}, one a data set" if found else "no experts"
            raise ValueError(f"the file has {having}; --expert is {'missing' if expert is None else expert}")
        for match in self.names(rf"(blocks\.\d+\.mlp)\.experts\.{expert}\.(weight|bias)"):
            own, keys = self.pop(match[0])
            name = f"{match[1]}.fc2.{match[2]}"
            value, first = self.pop(name)
            self.put(name, torch.cat([value, own]), first + keys)
            self._fold(f"rows of expert {expert} into mlp.fc2")
        self.drop(r"blocks\.\d+\.mlp\.experts\..+", "another data set's expert")

    def fold_pixels(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Makes the patch convolution take our normalised pixels instead of the source's.

        Args:
            mean: (R, G, B) subtracted by the source, on the 0-1 scale.
            std: (R, G, B) it divides by.
        """
        ours_mean, ours_std = (torch.tensor(values, dtype=torch.float64) for values in (PIXEL_MEAN, PIXEL_STD))
        theirs_mean, theirs_std = (255 * torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        kernel, keys = self.pop("patch_embed.proj.weight")
        shift, shift_keys = self.pop("patch_embed.proj.bias")
        kernel = kernel.double()
        offset = (kernel.sum((2, 3)) * ((ours_mean - theirs_mean) / theirs_std)).sum(1)
        self.put("patch_embed.proj.weight", (kernel * (ours_std / theirs_std)[:, None, None]).float(), keys)
        self.put("patch_embed.proj.bias", (shift.double() + offset).float(), shift_keys)
        self._fold(f"pixel mean {mean} and deviation {std} into patch_embed.proj")

    def _fold(self, what: str) -> None:
        if what not in self.folded:
            self.folded.append(what)

    def check_names(self, *, decoder: bool) -> None:
        """Makes sure that nothing is left that an encoder of ours has no place for.

        Raises:
            ValueError: an unknown key.
        """
        for name, keys in self.keys.items():
            if not (ENCODER_NAME.fullmatch(name) or (decoder and DECODER_NAME.fullmatch(name))):
                raise ValueError(
                    f"{keys[0]!r} is not a key of a plain ViT as {self.source} stores it; such a network is not ours"
                )

    def split_positions(self, grid: tuple[int, int]) -> None:
        """Turns ``pos_embed`` (1, slots + h w, D) into a map (1, D, h, w) and gives its slots to whom they belong.

        Raises:
            ValueError: no table, or one of another grid.
        """
        table, keys = self.pop("pos_embed")
        patches = grid[0] * grid[1]
        slots = table.shape[1] - patches if table.ndim == 3 else -1
        if slots not in self.slots:
            expected = " or ".join(str(patches + n) for n in self.slots)
            raise ValueError(
                f"{keys[0]} has shape {tuple(table.shape)}, and a {grid[0]} x {grid[1]} grid makes {expected} tokens; "
                f"give the grid the source was trained with: --grid H W"
            )
        if slots and self.shared_slot:
            table = torch.cat([table[:, :1], table[:, slots:] + table[:, :1]], dim=1)
            slots = 1
            self._fold("slot 0 of pos_embed into every position")
        elif slots and "cls_token" in self.tensors:
            token, token_keys = self.pop("cls_token")
            self.put("cls_token", token + table[:, :1], token_keys + keys)
        self.put("pos_embed", table[:, slots:].transpose(1, 2).unflatten(2, grid).contiguous(), keys)
