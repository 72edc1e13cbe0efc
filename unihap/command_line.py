"""What the command lines of tools/ have in common."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exits with status 2."""
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def words(text: str) -> tuple[str, ...]:
    """The parts of a list with commas.

    >>> words("a, b,")
    ('a', 'b')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())
