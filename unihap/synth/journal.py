"""The output folder of a run that may be killed at any moment.

While a run goes on, ``.partial`` in the output folder holds its options, temporary files, and a journal with a line
for every finished picture: its files with their checksums, and its labels.  The journal alone decides what is
finished; a file that it does not name is written again.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from unihap.synth.manifest import MANIFEST, digest

PARTIAL = ".partial"


class DiskFullError(OSError):
    """There is no room left; the message names the folder and says how to go on."""


@contextmanager
def saying_what_is_full(folder: Path) -> Iterator[None]:
    """Turns the error of a full disk into one that names the folder.

    Raises:
        DiskFullError: instead of ENOSPC or EDQUOT.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"no room left in {folder}; make room, then go on with --resume: nothing finished is lost"
        raise DiskFullError(error.errno, message) from error


def write_whole(folder: Path, name: str, content: bytes) -> None:
    """Writes ``folder / name`` so that it is there whole or not at all."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # not beside the file: what a killed run leaves behind goes away with .partial
    temporary = folder / PARTIAL / f"{os.getpid()}.tmp"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def check_options(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with another run's folder.

    Raises:
        ValueError: the options differ; the message says in what.
    """
    wrong = [
        f"{name} was {_shown(before, name)} and is now {_shown(now, name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if wrong:
        raise ValueError(
            f"{folder} holds a run with other options: {'; '.join(wrong)}; repeat the first command, "
            "or name another folder"
        )


class Journal:
    """Opens the output folder of a run, and keeps what is finished.

    Args:
        folder: the output folder; made if it is not there.
        options: everything that the content of files depends on; as JSON has it.
        resume: go on with the unfinished run that the folder holds, if it does.

    Attributes:
        lines: key of an item -> its line.

    Raises:
        ValueError: the folder holds something else, or a run with other options (the message names them).
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], resume: bool) -> None:
        self.folder = folder
        self.lines: dict[int, str] = {}
        partial = folder / PARTIAL
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; name a folder")
        if folder.is_dir() and any(folder.iterdir()):
            self._check(partial, options, resume)
        partial.mkdir(parents=True, exist_ok=True)
        write_whole(folder, f"{PARTIAL}/options.json", _json(options))
        self._path = partial / "journal.jsonl"
        self._read()
        self._file = self._path.open("ab")

    def _check(self, partial: Path, options: Mapping[str, Any], resume: bool) -> None:
        if (self.folder / MANIFEST).is_file():
            raise ValueError(f"{self.folder} holds finished datasets; name another folder")
        if not (partial / "options.json").is_file():
            if [path.name for path in self.folder.iterdir()] == [PARTIAL]:
                return  # killed before it began
            raise ValueError(f"{self.folder} is not empty and holds no unfinished run; name another folder")
        if not resume:
            raise ValueError(f"{self.folder} holds an unfinished run; give --resume to go on, or name another folder")
        check_options(self.folder, json.loads((partial / "options.json").read_text(encoding="utf-8")), options)

    def _read(self) -> None:
        """Reads the journal and cuts off the line at which the run was killed."""
        if not self._path.is_file():
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.decode().splitlines():
            entry = json.loads(line)
            if all(self._is_whole(name, checksum) for name, checksum in entry["files"].items()):
                self.lines[entry["key"]] = line

    def _is_whole(self, name: str, checksum: str) -> bool:
        path = self.folder / name
        return path.is_file() and digest(path.read_bytes()) == checksum

    def add(self, key: int, line: str) -> None:
        """Notes that an item is finished.

        Args:
            key: of the item.
            line: JSON with ``key`` and ``files`` (path under the folder -> checksum) and whatever else.
        """
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        self.lines[key] = line

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest, which makes the folder a finished one."""
        write_whole(self.folder, MANIFEST, _json(manifest))
        self._file.close()
        shutil.rmtree(self.folder / PARTIAL)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a full disk, where the line that did not fit is written once more
            self._file.close()


def _shown(options: Mapping[str, Any], name: str) -> str:
    return json.dumps(options[name]) if name in options else "absent"


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()
