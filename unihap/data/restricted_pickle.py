"""Reading the pickles of other people without running what is in them.

A pickle is a small program: it names functions and calls them.  Two kinds of file that pre-training meets are pickles,
LUPerson's list of images and the object arrays of its keypoints.  Neither needs more than data:

- ``read_plain``: numbers, text, lists, tuples and dictionaries.  No name at all is looked up.
- ``read_object_array``: the same, and numpy arrays.  The five names that numpy writes into a pickled array are looked
  up in a table here, which holds stand-ins of this module; everything else is refused before it is imported.

The stand-ins matter: numpy's own reconstruction is no safe target either, since a pickle may give an array of objects
the bytes of made-up pointers.  Here a pickle never touches a numpy type; the stand-ins keep what they are given, accept
numbers of a fixed list of types, compare sizes, and make the array with ``np.frombuffer``.
"""

import io
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

# what unpickling bytes that are no pickle, or the wrong one, may raise
_FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, ImportError,
    OverflowError, MemoryError,
)  # fmt: skip

_NUMBERS = frozenset(
    f"{kind}{size}" for kind, sizes in {"f": "248", "i": "1248", "u": "1248"}.items() for size in sizes
)
OBJECT = "O"


class BadPickleError(ValueError):
    """A file that is no pickle of plain data; the message names the file, what is wrong and what to do."""


class _Type:
    """Stands for ``numpy.dtype``: the name of a type of numbers, or ``OBJECT``."""

    def __init__(self, code: str, *ignored: Any) -> None:  # whether to align and to copy
        if code in ("O", "O8", "O4"):
            self.name, self.order = OBJECT, ""
        elif code in _NUMBERS or code == "b1":
            self.name, self.order = code, "="
        else:
            raise pickle.UnpicklingError(f"it holds values of the type {code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Takes the byte order from a state; the rest of it describes records and pointers."""
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it has the byte order {order!r}")
        if self.name != OBJECT:
            self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.name)


class _Array:
    """Stands for ``numpy``'s function that makes an empty array, and for the array."""

    def __init__(self, *ignored: Any) -> None:  # the class, an empty shape and type, which the state replaces
        self.value: np.ndarray | None = None
        self.items: list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Fills the array from (version, shape, type, whether columns come first, content)."""
        _, shape, kind, columns_first, content = state
        if not isinstance(kind, _Type) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise pickle.UnpicklingError("it holds a broken array")
        if kind.name == OBJECT:
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise pickle.UnpicklingError("it holds an array of another length than it says")
            # The first object is at the same place in both orders, and nobody asks for another one.
            self.items = content
            return
        dtype = kind.numpy()
        if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.itemsize:
            raise pickle.UnpicklingError("it holds an array of another length than it says")
        self.value = np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first else "C")


class _ArrayClass:
    """Stands for ``numpy.ndarray``, which pickles mention and never use."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it holds a broken array")


class _Number:
    """Stands for numpy's function that makes a number of a type and its bytes."""

    def __init__(self, kind: _Type, content: bytes) -> None:
        self.value = np.frombuffer(content, kind.numpy())[0]

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it holds a broken number")


_STAND_INS = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _ArrayClass,
    **{
        (f"{module}.multiarray", name): stand_in
        for module in ("numpy.core", "numpy._core")  # before and since numpy 2
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _Number))
    },
}


class _Reader(pickle.Unpickler):
    """Looks names up in a table instead of importing them."""

    def __init__(self, content: bytes, names: dict[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(content))
        self.names = names

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in."""
        try:
            return self.names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which plain data does not need") from None


def _read(content: bytes, names: dict[tuple[str, str], Any], path: str | os.PathLike[str]) -> Any:
    try:
        return _Reader(content, names).load()
    except _FAULTS as error:
        reason = str(error) or type(error).__name__
        raise BadPickleError(f"{os.fspath(path)} is refused: {reason}; fetch it again from a trusted source") from None


def read_plain(path: str | os.PathLike[str]) -> Any:
    """Reads a pickle of numbers, text, lists, tuples and dictionaries.

    Raises:
        FileNotFoundError: no such file.
        BadPickleError: no pickle, or one that asks for anything else.
    """
    return _read(Path(path).read_bytes(), {}, path)


def read_object_array(path: str | os.PathLike[str]) -> Any:
    """Reads what ``numpy.save`` wrote, also arrays of objects, which ``numpy.load`` reads as any pickle.

    Args:
        path: an ``.npy`` file.

    Returns:
        An array; for an array of objects the list of its objects, the first one first, in which arrays are arrays
        again.

    Raises:
        FileNotFoundError: no such file.
        BadPickleError: no such file of numpy, or one that asks for more than data.
    """
    file = io.BytesIO(Path(path).read_bytes())
    try:
        version = np.lib.format.read_magic(file)
        headers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        _, _, dtype = headers[version](file)
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, KeyError, EOFError, OverflowError, MemoryError) as error:
        raise BadPickleError(f"{os.fspath(path)} is no .npy file ({error}); fetch it again") from None
    return _unwrapped(_read(file.read(), _STAND_INS, path), path)


_DEEPEST = 8  # nesting of the files in question is 3
_BEGUN = object()


def _unwrapped(value: Any, path: str | os.PathLike[str], depth: int = 0, known: dict[int, Any] | None = None) -> Any:
    """Arrays and lists in place of the stand-ins; what is in several places is unwrapped once."""
    known = {} if known is None else known
    if known.get(id(value)) is _BEGUN or depth > _DEEPEST:
        raise BadPickleError(f"{os.fspath(path)} is refused: it holds itself, or is nested more than {_DEEPEST} deep")
    if isinstance(value, _Type | _ArrayClass | type):
        raise BadPickleError(f"{os.fspath(path)} is refused: it holds more than data")
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = _BEGUN
    plain = value
    if isinstance(value, _Array):
        plain = value.items if value.items is not None else value.value
    elif isinstance(value, _Number):
        plain = value.value
    if isinstance(plain, list | tuple):
        plain = [_unwrapped(item, path, depth + 1, known) for item in plain]
    elif isinstance(plain, dict):
        plain = {key: _unwrapped(item, path, depth + 1, known) for key, item in plain.items()}
    known[id(value)] = plain
    return plain
