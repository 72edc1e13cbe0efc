"""Sequences of records that are made when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from unihap.structures import Record


class MadeRecords(Sequence[Record]):
    """A sequence that makes one record at a time; a subclass has a length and ``_record``."""

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Makes one record or several; an ``IndexError`` beyond the last one, which ends iterations."""
        if isinstance(index, slice):
            return [self._record(row) for row in range(len(self))[index]]
        try:
            row = range(len(self))[index]
        except IndexError:
            raise IndexError(f"record {index} of {len(self)}") from None
        return self._record(row)

    @abstractmethod
    def _record(self, row: int) -> Record:
        """The record of a row, 0 <= row < len."""
