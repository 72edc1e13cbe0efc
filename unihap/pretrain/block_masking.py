"""Sampling of masked cells that know nothing of people: in blocks (BEiT) or one by one.

Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, algorithm 1, with HAP's smallest block.
All functions work in place on a (gh, gw) bool mask, True = masked.
"""

import math

import numpy as np

MIN_AREA = 12  # cells of the smallest block, unless fewer are wanted
ASPECT = (0.3, 1 / 0.3)  # height over width of a block, log-uniform
ATTEMPTS = 10  # places tried for one block


def _find_block(mask: np.ndarray, wanted: int, rng: np.random.Generator, release: bool) -> tuple[slice, slice] | None:
    """A block that adds 1 ... ``wanted`` cells to the mask, or ``None`` after ``ATTEMPTS`` misses."""
    rows, columns = mask.shape
    smallest = MIN_AREA if release else min(MIN_AREA, wanted)
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    for _ in range(ATTEMPTS):
        for_area, for_aspect, for_top, for_left = rng.random(4).tolist()
        area = smallest + (wanted - smallest) * for_area
        aspect = math.exp(low + (high - low) * for_aspect)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:  # a block never spans the picture
            continue
        top, left = int(for_top * (rows - height + 1)), int(for_left * (columns - width + 1))
        block = slice(top, top + height), slice(left, left + width)
        overlap = int(np.count_nonzero(mask[block]))
        if 0 < height * width - (2 * overlap if release else overlap) <= wanted:
            return block
    return None


def add_blocks(mask: np.ndarray, count: int, rng: np.random.Generator, *, release: bool = False) -> int:
    """Masks blocks of further cells until ``count`` more are masked or no place is found for the next block.

    Args:
        mask: (gh, gw) bool, changed in place.
        count: cells to add.
        rng: source of randomness.
        release: as HAP's released code does: cells that a block shares with the mask are counted twice, so that the
            sum may pass ``count`` and blocks that are at least half masked are refused; and a block has about
            ``MIN_AREA`` cells even when fewer are wanted.

    Returns:
        The number of cells added: at most ``count``, unless ``release``.
    """
    added = 0
    while added < count:
        block = _find_block(mask, count - added, rng, release)
        if block is None:
            break
        window = mask[block]
        added += window.size - int(np.count_nonzero(window))
        window[...] = True
    return added


def add_random(mask: np.ndarray, count: int, rng: np.random.Generator, among: np.ndarray | None = None) -> None:
    """Masks exactly ``count`` further cells, each unmasked cell (of ``among``, when given) being equally likely.

    Args:
        mask: (gh, gw) bool, C-contiguous, changed in place.
        count: cells to add, at most as many as there are.
        rng: source of randomness.
        among: (gh, gw) bool, the cells to choose from.
    """
    free = np.flatnonzero(~mask if among is None else among & ~mask)
    assert 0 <= count <= free.size, f"{count} cells wanted of {free.size}"
    mask.reshape(-1)[rng.permutation(free)[:count]] = True
