"""Part-guided masks of HAP: patches on randomly chosen body parts first, the rest in blocks.

Source: HAP (Yuan et al., NeurIPS 2023), section 3.2 and appendix.  The paper's rule is the default; with
``compat="release"`` masks are drawn as by the released code, which prefers few patches of few parts and, within a
batch, of few pictures.  Masks are (gh, gw) bool, True = masked; keypoints are (17, 3) x, y, score in pixels of the
masked picture, in COCO's order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unihap.lookup import lookup
from unihap.pretrain.block_masking import add_blocks, add_random
from unihap.pretrain.parts import NUM_KEYPOINTS, PARTS, check_grid, fill, keypoint_cells, rectangles

# What each word means; the error on another word lists these.
SAMPLERS = {"block": "rectangles of cells", "random": "single cells"}
GUIDANCES = {
    "none": "no cell is preferred",
    "keypoint": "the cells of chosen keypoints are preferred",
    "part": "the cells of chosen body parts are preferred",
    "attention": "the model masks what it attends to (attention_mask); what is drawn here is as for none",
}
RELEASE_TIES = {"sort": "the order in which torch's unstable sort leaves them", "random": "random order"}
# share of a selected part's patches that is preferred
PART_FRACTION: dict[str, tuple[float, float]] = {"paper": (1.0, 1.0), "release": (0.0, 0.3)}

FIRST_PRIORITY = 100  # of the first selected part in the release; 99 of the second, ...


@dataclass(frozen=True)
class Selection:
    """The parts or keypoints chosen for one mask, in the order of their selection.

    Attributes:
        names: part names, or keypoint numbers as text.
        patches: for each, (gh, gw) bool, the cells that are preferred; they may overlap.
    """

    names: tuple[str, ...]
    patches: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Masking:
    """How masks are drawn: every choice of the paper's ablations (tables 3, 11 and 12, figure 3).

    Attributes:
        grid: rows and columns of patches.
        patch: edge of a patch in pixels.
        ratio: share of masked patches, between 0 and 1.
        sampler: ``block`` or ``random``: how cells are drawn that guidance does not decide.
        guidance: ``none``, ``keypoint``, ``part`` or ``attention``.
        parts: the number of selected parts is uniform between these two, both included.
        keypoints: the same for guidance ``keypoint`` (the paper does not give its range).
        part_fraction: the share of a part's patches that is preferred is uniform between these two; ``None`` is
            (1, 1) for ``paper`` and (0, 0.3) for ``release``.
        min_score: keypoints of a lower score are absent.
        compat: ``paper`` or ``release``.
        release_ties: how the release orders patches of equal priority: ``sort`` as in the released code, whose order
            favours some rows by up to 0.04 and may change with the version of torch, or ``random``.

    Raises:
        ValueError: an impossible value, or a ``min_score`` that the release would not read.
    """

    grid: tuple[int, int] = (16, 8)
    patch: int = 16
    ratio: float = 0.5
    sampler: str = "block"
    guidance: str = "part"
    parts: tuple[int, int] = (0, len(PARTS))
    keypoints: tuple[int, int] = (0, NUM_KEYPOINTS)
    part_fraction: tuple[float, float] | None = None
    min_score: float = 0.0
    compat: str = "paper"
    release_ties: str = "sort"

    def __post_init__(self) -> None:
        check_grid(self.grid, self.patch)
        if not 0 < self.ratio < 1:
            raise ValueError(f"mask ratio must lie between 0 and 1, got {self.ratio}")
        lookup(SAMPLERS, self.sampler, "sampler")
        lookup(GUIDANCES, self.guidance, "guidance")
        lookup(PART_FRACTION, self.compat, "compat")
        lookup(RELEASE_TIES, self.release_ties, "release_ties")
        _check_range("parts", self.parts, len(PARTS), whole=True)
        _check_range("keypoints", self.keypoints, NUM_KEYPOINTS, whole=True)
        if self.part_fraction is not None:
            _check_range("part_fraction", self.part_fraction, 1, whole=False)
        if not math.isfinite(self.min_score):
            raise ValueError(f"min_score must be finite, got {self.min_score}")
        if self.compat == "release" and self.min_score > 0:
            raise ValueError(f"min_score {self.min_score} has no effect with compat 'release', which reads no score")

    @property
    def num_masked(self) -> int:
        """Masked patches of every mask: floor(ratio * gh * gw); in the release the visible ones are rounded down."""
        rows, columns = self.grid
        if self.compat == "release":
            return rows * columns - int(rows * columns * (1 - self.ratio))
        return math.floor(self.ratio * rows * columns)

    def draw(self, keypoints: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """One mask.

        Args:
            keypoints: (17, 3) x, y, score in pixels, or ``None`` when nothing is known of the person, which leaves
                the whole mask to the sampler.
            rng: source of randomness.

        Returns:
            (gh, gw) bool with exactly ``num_masked`` True.

        Raises:
            ValueError: keypoints of another shape, or not finite.
        """
        return self.mask(self.select(keypoints, rng), rng)

    def select(self, keypoints: np.ndarray | None, rng: np.random.Generator, num: int | None = None) -> Selection:
        """Chooses parts (or keypoints) in random order; those without patches are passed over and do not count.

        Args:
            keypoints: as for ``draw``.
            rng: source of randomness.
            num: how many; drawn from the range of this masking when not given.

        Returns:
            What is preferred: as many as asked for or present; none for the guidances ``none`` and ``attention``.

        Raises:
            ValueError: keypoints of another shape, or not finite.
        """
        cells = keypoint_cells(keypoints, self.grid, self.patch, None if self.compat == "release" else self.min_score)
        if self.guidance == "part":
            boxes = {part: rectangles(cells, part) for part in PARTS}
        elif self.guidance == "keypoint":
            boxes = {str(number): [(*cell, *cell)] for number, cell in enumerate(cells) if cell is not None}
        else:
            return Selection((), ())
        if num is None:
            num = int(rng.integers(self.num_range[0], self.num_range[1] + 1))
        present = [name for name in boxes if boxes[name]]
        chosen = [present[i] for i in rng.permutation(len(present))[:num]]
        return Selection(tuple(chosen), tuple(self._preferred(fill(self.grid, boxes[name]), rng) for name in chosen))

    @property
    def num_range(self) -> tuple[int, int]:
        """The smallest and the largest number of parts (or keypoints) that are selected."""
        return self.keypoints if self.guidance == "keypoint" else self.parts

    def _preferred(self, patches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The random share of a part's patches that ``part_fraction`` prefers."""
        low, high = PART_FRACTION[self.compat] if self.part_fraction is None else self.part_fraction
        if low == high == 1:
            return patches
        share = np.zeros_like(patches)
        add_random(share, int(np.count_nonzero(patches) * rng.uniform(low, high)), rng, among=patches)
        return share

    def mask(self, selection: Selection, rng: np.random.Generator) -> np.ndarray:
        """One mask that prefers the patches of a selection.

        The paper's rule: every patch of the selected parts is masked.  When they are more than ``num_masked``, the
        last selected part is given up first, patch by patch in random order, except what an earlier part shares
        with it; when they are fewer, the sampler adds patches to them.

        Args:
            selection: what ``select`` returned.
            rng: source of randomness.

        Returns:
            (gh, gw) bool with exactly ``num_masked`` True.
        """
        if self.compat == "release":
            return self._release_mask(selection, rng)
        mask = np.zeros(self.grid, dtype=bool)
        room = self.num_masked
        for patches in selection.patches:  # giving up from the last part on = taking from the first part on
            new = int(np.count_nonzero(patches & ~mask))
            if new > room:
                add_random(mask, room, rng, among=patches)
                return mask
            mask |= patches
            room -= new
        if self.sampler == "block":
            room -= add_blocks(mask, room, rng)
        if room:
            add_random(mask, room, rng)
        return mask

    def _release_mask(self, selection: Selection, rng: np.random.Generator) -> np.ndarray:
        """The released code's rule: preferred patches get priorities, the sampler's the next; the highest are masked.

        The sampler always draws a whole mask.  A patch that several parts prefer has the priority of the last of
        them.
        """
        if self.sampler == "block":
            blocks = np.zeros(self.grid, dtype=bool)
            add_blocks(blocks, self.num_masked, rng, release=True)
            priority = blocks.astype(np.float64)
        else:
            priority = rng.random(self.grid)
        for number, patches in enumerate(selection.patches):
            priority[patches] = FIRST_PRIORITY - number
        flat = priority.reshape(-1)
        if self.release_ties == "sort":
            order = torch.argsort(torch.from_numpy(flat)).numpy()
        else:
            order = np.lexsort((rng.random(flat.size), flat))
        mask = np.zeros(self.grid, dtype=bool)
        mask.reshape(-1)[order[flat.size - self.num_masked :]] = True
        return mask


def _check_range(name: str, limits: tuple[float, float], highest: int, *, whole: bool) -> None:
    if (
        len(limits) != 2
        or not 0 <= limits[0] <= limits[1] <= highest
        or (whole and any(limit != int(limit) for limit in limits))
    ):
        numbers = "whole numbers" if whole else "numbers"
        raise ValueError(f"{name} must be two {numbers} (low, high), 0 <= low <= high <= {highest}, got {limits!r}")


def part_guided_mask(
    keypoints: np.ndarray | None,
    grid: tuple[int, int] = (16, 8),
    patch: int = 16,
    mask_ratio: float = 0.5,
    rng: np.random.Generator | None = None,
    compat: str = "paper",
) -> np.ndarray:
    """One part-guided block-wise mask with HAP's settings: 0-6 parts, uniform (section 3.2 of the paper).

    Args:
        keypoints: (17, 3) x, y, score in pixels of a picture of ``grid * patch`` pixels, or ``None``: a keypoint is
            absent outside the picture or with a score that is not positive.
        grid: rows and columns of patches.
        patch: edge of a patch in pixels.
        mask_ratio: share of masked patches, between 0 and 1.
        rng: source of randomness; a fresh one when not given.
        compat: ``paper``, or ``release`` for the behaviour of the released code on a batch of one picture.

    Returns:
        (gh, gw) bool, True = masked: exactly floor(mask_ratio * gh * gw) of them; with ``release`` the ceiling.

    Raises:
        ValueError: an impossible argument.
    """
    masking = Masking(grid=grid, patch=patch, ratio=mask_ratio, compat=compat)
    return masking.draw(keypoints, np.random.default_rng(rng))


def shrinking_counts(num_images: int, highest: int, rng: np.random.Generator) -> list[int]:
    """How many parts the released code asks for in each picture of a batch.

    Its bound is overwritten by what is drawn, so the numbers never rise along the batch; of a batch of any size only
    1 + 1/2 + ... + 1/6 = 2.45 pictures on average ask for any part.
    """
    counts = []
    for _ in range(num_images):
        highest = int(rng.integers(0, highest + 1))
        counts.append(highest)
    return counts


def release_masks(keypoints: Sequence[np.ndarray | None], masking: Masking, rng: np.random.Generator) -> np.ndarray:
    """The masks of one view of a whole batch, as the released code draws them (see ``shrinking_counts``).

    Args:
        keypoints: per picture (17, 3) or ``None``.
        masking: with ``compat="release"`` and a range of parts that begins with 0.
        rng: source of randomness.

    Returns:
        (B, gh, gw) bool with exactly ``masking.num_masked`` True each.

    Raises:
        ValueError: another masking, or impossible keypoints.
    """
    low, high = masking.num_range
    if masking.compat != "release" or low != 0:
        raise ValueError(f"batches shrink the number of parts only with compat 'release' and parts (0, n): {masking}")
    counts = shrinking_counts(len(keypoints), high, rng)
    masks = [masking.mask(masking.select(k, rng, num), rng) for k, num in zip(keypoints, counts, strict=True)]
    return np.stack(masks) if masks else np.zeros((0, *masking.grid), dtype=bool)


def attention_mask(attention: Tensor, num_masked: int) -> Tensor:
    """Masks the patches of the highest attention (AttMask "high", Kakogeorgiou et al., ECCV 2022).

    Args:
        attention: (B, N) what the class token pays to each patch.
        num_masked: patches to mask in every picture.

    Returns:
        (B, N) bool with exactly ``num_masked`` True in each row; order of patches as in ``attention``.

    Raises:
        ValueError: another shape, or more patches wanted than there are.
    """
    if attention.ndim != 2 or not 0 <= num_masked <= attention.shape[1]:
        raise ValueError(
            f"attention must be (images, patches) with at least {num_masked} patches, got {tuple(attention.shape)}"
        )
    highest = attention.topk(num_masked, dim=1).indices
    return torch.zeros_like(attention, dtype=torch.bool).scatter_(1, highest, True)
