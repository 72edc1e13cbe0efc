"""Six body parts as patches of a token grid, from the 17 keypoints of COCO.

Source: HAP (Yuan et al., "HAP: Structure-Aware Masked Image Modeling for Human-Centric Perception", NeurIPS 2023),
section 3.2 and appendix.  A cell (row, column) of the grid is one patch of the picture.
"""

import numpy as np

# Pairs of keypoints in COCO's order (0 nose, 1-2 eyes, 3-4 ears, 5-6 shoulders, 7-8 elbows, 9-10 wrists, 11-12 hips,
# 13-14 knees, 15-16 ankles; odd = the person's left).  The upper body is spanned by its two diagonals.
PARTS: dict[str, tuple[tuple[int, int], ...]] = {
    "head": ((0, 1), (0, 2), (1, 2), (1, 3), (2, 4)),
    "left_arm": ((5, 7), (7, 9)),
    "right_arm": ((6, 8), (8, 10)),
    "left_leg": ((11, 13), (13, 15)),
    "right_leg": ((12, 14), (14, 16)),
    "upper_body": ((6, 11), (5, 12)),
}
NUM_KEYPOINTS = 17

Cell = tuple[int, int]
Rectangle = tuple[int, int, int, int]


def check_grid(grid: tuple[int, int], patch: int) -> tuple[int, int]:
    """The grid as a pair of ints.

    Raises:
        ValueError: not two positive whole numbers, or a patch that is not a positive whole number.
    """
    whole = (int, np.integer)
    if (
        not isinstance(grid, tuple | list)
        or len(grid) != 2
        or not all(isinstance(cells, whole) and cells > 0 for cells in grid)
    ):
        raise ValueError(f"grid must be two positive whole numbers (rows, columns), got {grid!r}")
    if not isinstance(patch, whole) or patch <= 0:
        raise ValueError(f"patch must be a positive whole number of pixels, got {patch!r}")
    return int(grid[0]), int(grid[1])


def keypoint_cells(
    keypoints: np.ndarray | None, grid: tuple[int, int], patch: int, min_score: float | None = 0.0
) -> list[Cell | None]:
    """The cell that each keypoint lies in, ``None`` where it is absent.

    Absent are keypoints outside the picture of ``grid * patch`` pixels and, since COCO marks an unlabelled keypoint
    by zeros, those whose score is not positive.

    Args:
        keypoints: (17, 3) x, y, score in pixels of that picture, or ``None`` when nothing is known of the person.
        grid: rows and columns of patches.
        patch: edge of a patch in pixels.
        min_score: keypoints of a lower score count as absent too; ``None`` reads no score at all.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    if keypoints is None:
        return [None] * NUM_KEYPOINTS
    array = np.asarray(keypoints, dtype=np.float64)
    if array.shape != (NUM_KEYPOINTS, 3):
        raise ValueError(f"keypoints must have shape ({NUM_KEYPOINTS}, 3) of x, y, score, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(
            "keypoints must be finite; give an absent keypoint the score -1 or a place outside the picture"
        )
    height, width = grid[0] * patch, grid[1] * patch
    cells: list[Cell | None] = []
    for x, y, score in array.tolist():
        seen = 0 <= x < width and 0 <= y < height
        if min_score is not None:
            seen = seen and score > 0 and score >= min_score
        cells.append((int(y) // patch, int(x) // patch) if seen else None)
    return cells


def rectangles(cells: list[Cell | None], part: str) -> list[Rectangle]:
    """The rectangles of cells that a part is made of, one for each pair whose two keypoints are present.

    Args:
        cells: what ``keypoint_cells`` returned.
        part: a key of ``PARTS``.

    Returns:
        top row, left column, bottom row and right column; the last two belong to the rectangle.
    """
    found = []
    for first, second in PARTS[part]:
        a, b = cells[first], cells[second]
        if a is not None and b is not None:
            found.append((min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])))
    return found


def fill(grid: tuple[int, int], boxes: list[Rectangle]) -> np.ndarray:
    """(gh, gw) bool, the union of rectangles."""
    patches = np.zeros(grid, dtype=bool)
    for top, left, bottom, right in boxes:
        patches[top : bottom + 1, left : right + 1] = True
    return patches


def part_rectangles(
    keypoints: np.ndarray | None, grid: tuple[int, int] = (16, 8), patch: int = 16, min_score: float | None = 0.0
) -> dict[str, list[Rectangle]]:
    """The rectangles of every part, in cells: top, left, bottom, right, the last two inclusive.

    Arguments and errors are those of ``part_patches``.
    """
    grid = check_grid(grid, patch)
    cells = keypoint_cells(keypoints, grid, patch, min_score)
    return {part: rectangles(cells, part) for part in PARTS}


def part_patches(
    keypoints: np.ndarray | None, grid: tuple[int, int] = (16, 8), patch: int = 16, min_score: float | None = 0.0
) -> dict[str, np.ndarray]:
    """The patches of every part; parts may share patches.

    Each pair of keypoints spans an axis-aligned rectangle of cells, so that a limb which is vertical in the picture
    is one patch wide; a part is the union over its pairs (HAP, appendix on part selection).

    Args:
        keypoints: (17, 3) x, y, score in pixels of a picture of ``grid * patch`` pixels, or ``None``.
        grid: rows and columns of patches.
        patch: edge of a patch in pixels.
        min_score: keypoints of a lower score count as absent; ``None`` reads no score.

    Returns:
        part name to (gh, gw) bool; all False where no pair of the part is present.

    Raises:
        ValueError: impossible grid, patch or keypoints.
    """
    grid = check_grid(grid, patch)
    cells = keypoint_cells(keypoints, grid, patch, min_score)
    return {part: fill(grid, rectangles(cells, part)) for part in PARTS}
