"""The manifest: what a folder of rendered datasets holds and how it was made.  A folder without one is unfinished."""

import hashlib
import importlib.metadata
import json
import platform
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from unihap import __version__

MANIFEST = "manifest.json"
UNLISTED = ("sheets", "README.md")  # what may be there without being data


def versions() -> dict[str, str]:
    """Versions on which the content of files depends."""
    found = {
        "unihap": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }
    for package in ("torch", "scipy", "anny", "embreex"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def digest(content: bytes) -> str:
    """Checksum of a file's content: the first 16 digits of its SHA-256, since a manifest names thousands of files."""
    return hashlib.sha256(content).hexdigest()[:16]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no {MANIFEST} in {folder}: nothing was rendered there, or the run was not finished")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["files"].items()
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); render the folder again") from None
    return dict(content)


def manifest_faults(folder: Path) -> list[str]:
    """One sentence for every file that is missing, changed or not in the manifest.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is damaged.
    """
    files = read_manifest(folder)["files"]
    faults = []
    for name, checksum in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path} is missing")
        elif digest(path.read_bytes()) != checksum:
            faults.append(f"{path} has changed")
    present = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    unlisted = (path for path in present if path.parts[0] not in (*UNLISTED, MANIFEST))
    faults += [f"{folder / path} is not in the manifest" for path in unlisted if path.as_posix() not in files]
    return faults
