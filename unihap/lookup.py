"""Looking up a name, with a helpful answer when it is not there."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def did_you_mean(name: str, known: Mapping[str, object] | list[str]) -> str:
    """``; did you mean X?`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def lookup(table: Mapping[str, T], name: str, noun: str) -> T:
    """``table[name]``.

    Raises:
        ValueError: unknown name; the message suggests the closest one and lists what exists.
    """
    try:
        return table[name]
    except KeyError:
        raise ValueError(
            f"unknown {noun} {name!r}{did_you_mean(name, table)} (known: {', '.join(sorted(table))})"
        ) from None
