"""Records of millions of person crops, which worker processes share."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from unihap.data.keypoint_index import KeypointIndex, LegacyKeypoints, as_names
from unihap.data.made_records import MadeRecords
from unihap.structures import Dataset, Label, Record


@dataclass(frozen=True)
class CropLabel(Label):
    """What is known about a crop: the person's keypoints, as some detector saw them.

    Attributes:
        keypoints: (17, 3) float32: x, y, score in source pixels, COCO's order; ``None`` when there are none.
    """

    keypoints: np.ndarray | None


class CropRecords(MadeRecords):
    """Millions of crops in a few tensors, which worker processes share; records are made when they are asked for.

    Args:
        folder: of the images.
        names: their paths under it, with ``/``; also the records' ids.
        keypoints: where their keypoints are, or ``None``.

    Attributes:
        folder: see above.
        num_without_keypoints: crops that ``keypoints`` knows nothing about or found nobody in; of released LUPerson
            files, which are read one by one, ``None``.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], keypoints: KeypointIndex | LegacyKeypoints | None = None
    ) -> None:
        self.folder = Path(folder)
        packed = [name.encode() for name in names]
        self._ends = torch.tensor([len(name) for name in packed], dtype=torch.int64).cumsum(0)
        self._names = torch.frombuffer(bytearray(b"".join(packed)) or bytearray(1), dtype=torch.uint8)
        self._legacy = keypoints if isinstance(keypoints, LegacyKeypoints) else None
        self._keypoints: torch.Tensor | None = None
        self.num_without_keypoints: int | None = None if self._legacy else len(names)
        if isinstance(keypoints, KeypointIndex):
            rows = keypoints.rows(as_names(names))
            known = (rows >= 0) & keypoints.has_person[rows] if len(keypoints) else np.zeros(len(names), dtype=bool)
            points = keypoints.keypoints[rows] if known.any() else np.empty((0, 17, 3), np.float32)
            self._keypoints = torch.from_numpy(points)
            self._known = torch.from_numpy(known)
            self.num_without_keypoints = int((~known).sum())

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """Path of a crop under ``folder``."""
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])].numpy().tobytes().decode()

    def _record(self, row: int) -> Record:
        name = self.name(row)
        return Record(name, f"{self.folder}/{name}", CropLabel(self._keypoints_of(row, name)))

    def _keypoints_of(self, row: int, name: str) -> np.ndarray | None:
        if self._legacy is not None:
            return self._legacy.find(name)
        if self._keypoints is None or not self._known[row]:
            return None
        return self._keypoints[row].numpy().astype(np.float32)


def is_packed(records: Sequence[Record]) -> bool:
    """Whether worker processes share records as they are, without copying them."""
    if isinstance(records, JoinedRecords):
        return all(is_packed(dataset.records) for dataset in records.datasets)
    return isinstance(records, CropRecords)


class JoinedRecords(MadeRecords):
    """Records of several datasets, one after the other; an id begins with the name of its dataset.

    Args:
        datasets: one or more.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = tuple(datasets)
        self._ends = list(accumulate(len(dataset.records) for dataset in datasets))

    def __len__(self) -> int:
        return self._ends[-1]

    def _record(self, row: int) -> Record:
        number = bisect_right(self._ends, row)
        dataset = self.datasets[number]
        record = dataset.records[row - (self._ends[number - 1] if number else 0)]
        return replace(record, id=f"{dataset.name}/{record.id}")
