"""Reading label maps: the numbers in the file become query numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unihap.data.files import read_mat
from unihap.data.images import BadImageError, read_index_map
from unihap.structures import ReadLabelMap

IGNORED = 255


@dataclass(frozen=True)
class LabelMapReader:
    """Reads a label map and re-numbers its values to query order.

    Attributes:
        values: the value in the file of every class, in query order.
        unlisted: what becomes of values that are no class.  ``ignore``: 255 (no class, not evaluated).
            ``release``: background, query 0, even the files' own 255, as UniHCP's release has it; that teaches
            the model that pixels nobody labelled are background.
    """

    values: tuple[int, ...]
    unlisted: str = "ignore"

    def __post_init__(self) -> None:
        if self.unlisted not in ("ignore", "release"):
            raise ValueError(f"unlisted must be 'ignore' or 'release', got {self.unlisted!r}")

    def __call__(self, path: str) -> np.ndarray:
        """Returns (H, W) uint8 in query order, 255 = ignored.

        Raises:
            BadImageError: missing or damaged file, or a value that the dataset cannot hold: where
                the classes are 0, 1, ... without a gap, a larger one but 255 means that the file belongs to another
                dataset, unless ``unlisted`` is ``release``.
        """
        raw = read_ccp_map(Path(path)) if path.endswith(".mat") else read_index_map(path)
        if self.unlisted == "ignore" and self.values == tuple(range(len(self.values))):
            wrong = raw[(raw >= len(self.values)) & (raw != IGNORED)]
            if len(wrong):
                raise BadImageError(
                    f"{path} holds the value {wrong[0]}, but the classes are 0-{len(self.values) - 1} "
                    "(255 = ignored); is it of another dataset?"
                )
            return raw
        table = np.full(256, IGNORED if self.unlisted == "ignore" else 0, dtype=np.uint8)
        table[list(self.values)] = np.arange(len(self.values))
        return table[raw]


@dataclass(frozen=True)
class MergedClasses:
    """Reads a label map and puts other classes, fewer and coarser ones, in place of its own.

    Attributes:
        read: reads the map in its own classes.
        classes: the new class of every one of them; 255 = ignored.
    """

    read: ReadLabelMap
    classes: tuple[int, ...]

    def __call__(self, path: str) -> np.ndarray:
        """Returns (H, W) uint8 in the new classes, 255 = ignored; raises what ``read`` raises."""
        table = np.full(256, IGNORED, dtype=np.uint8)
        table[: len(self.classes)] = self.classes
        return table[self.read(path)]


def check_size(label_map: np.ndarray, height: int, width: int, path: str) -> None:
    """Refuses a label map of another size than its image.

    Raises:
        BadImageError: the sizes differ; names the file and both sizes.
    """
    if label_map.shape != (height, width):
        raise BadImageError(
            f"{path}: the label map is {label_map.shape[1]}x{label_map.shape[0]} pixels "
            f"but its image is {width}x{height}; fetch both again"
        )


def read_ccp_map(path: Path) -> np.ndarray:
    """The label map in a ``.mat`` file of CCP, (H, W) uint8.

    Raises:
        BadImageError: missing or damaged file, or not an array of class numbers.
    """
    try:
        raw = read_mat(path, "CCP", ("groundtruth",))["groundtruth"]
    except (FileNotFoundError, ValueError) as error:
        raise BadImageError(str(error)) from None
    if raw.ndim != 2 or raw.dtype.kind not in "iu" or raw.min() < 0 or raw.max() > IGNORED:
        raise BadImageError(f"{path}: groundtruth must be an array of class numbers 0-255, got {raw.dtype} {raw.shape}")
    return raw.astype(np.uint8)
