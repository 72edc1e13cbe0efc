"""Which config keys are read: a key that no code reads promises what it does not keep."""

import copy
from collections.abc import Iterator
from typing import Any

from unihap.config.load import CfgNode

_RECORD = "__record__"


class ReadRecorder(CfgNode):
    """A config that notes every value read from it; made by ``record_reads``.

    Freezing, cloning, printing and dumping are not reading.
    """

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if not isinstance(value, CfgNode):
            prefix, reads = self.__dict__[_RECORD]
            reads.add(f"{prefix}{key}")
        return value

    def __iter__(self) -> Iterator[str]:
        # Python copies a dictionary whose __iter__ is its own without asking __getitem__; with this, dict(node)
        # and **node are noted.
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        """``self[key]`` if it exists."""
        return self[key] if key in self else default

    def values(self) -> list[Any]:
        """All values, each noted."""
        return [self[key] for key in self]

    def items(self) -> list[tuple[str, Any]]:
        """All keys and values, each noted."""
        return [(key, self[key]) for key in self]

    def dump(self, **kwargs: Any) -> str:
        """The config as YAML, without noting anything."""
        return _copied(self, None, "").dump(**kwargs)

    def clone(self) -> "ReadRecorder":
        """A copy that notes into the same set."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CfgNode:
        prefix, reads = self.__dict__[_RECORD]
        return _copied(self, reads, prefix)

    def __str__(self) -> str:
        return str(_copied(self, None, ""))

    def _immutable(self, is_immutable: bool) -> None:
        self.__dict__[CfgNode.IMMUTABLE] = is_immutable
        for _, value in _items(self):
            if isinstance(value, CfgNode):
                value._immutable(is_immutable)


def _items(node: CfgNode) -> list[tuple[str, Any]]:
    """All keys and values, none noted."""
    return list(dict.items(node))


def _copied(node: CfgNode, reads: set[str] | None, prefix: str) -> CfgNode:
    """A copy of a config, as a recorder if there is a set to note into."""
    made = CfgNode() if reads is None else ReadRecorder()
    made.__dict__.update({name: state for name, state in node.__dict__.items() if name != _RECORD})
    if reads is not None:
        made.__dict__[_RECORD] = (prefix, reads)
    for key, value in _items(node):
        if isinstance(value, CfgNode):
            name = key if node.block_defaults is None else "<name>"
            dict.__setitem__(made, key, _copied(value, reads, f"{prefix}{name}."))
        else:
            dict.__setitem__(made, key, copy.deepcopy(value))
    return made


def record_reads(cfg: CfgNode) -> tuple[CfgNode, set[str]]:
    """A copy of ``cfg`` that notes what is read from it.

    Returns:
        The copy, and the set of dotted keys that grows as values are read.  ``<name>`` stands for the name of any
        block of an open node, as in ``TASKS.<name>.BATCH_SIZE``.
    """
    reads: set[str] = set()
    return _copied(cfg, reads, ""), reads


def all_keys(cfg: CfgNode) -> set[str]:
    """Dotted keys of all values of a schema, written as ``record_reads`` writes them."""

    def walk(node: CfgNode, prefix: str) -> Iterator[str]:
        if node.block_defaults is not None:
            yield from walk(node.block_defaults, f"{prefix}<name>.")
            return
        for key, value in node.items():
            if isinstance(value, CfgNode):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    return set(walk(cfg, ""))
