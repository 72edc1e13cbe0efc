"""Records that worker processes read from shared memory."""

import pickle
from collections.abc import Sequence

import numpy as np
import torch

from unihap.data.made_records import MadeRecords
from unihap.structures import Record


class SharedRecords(MadeRecords):
    """Records packed into one tensor of bytes, which torch hands to worker processes without copying it.

    Plain records would be pickled and kept once per worker: hundreds of megabytes and seconds for each worker of a
    dataset with some 100,000 people.

    Args:
        records: what to pack.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        packed = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._ends = torch.tensor([len(chunk) for chunk in packed], dtype=torch.int64).cumsum(0)
        self._bytes = torch.from_numpy(np.frombuffer(bytearray().join(packed) or bytearray(1), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self._ends)

    def _record(self, row: int) -> Record:
        start = int(self._ends[row - 1]) if row else 0
        record = pickle.loads(self._bytes[start : int(self._ends[row])].numpy().data)
        assert isinstance(record, Record)
        return record
