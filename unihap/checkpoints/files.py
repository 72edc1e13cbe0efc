"""Weights on disk: ours as safetensors with a card that says what they are, those of others as torch wrote them."""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

State = dict[str, Tensor]
WEIGHTS, CARD = "weights.safetensors", "card.json"


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file that is either the old one or the new one, never half of it."""
    _replace(path, text.encode())


def _replace(path: Path, contents: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_weights(path: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes weights with their card inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    _replace(path, save(kept, {"card": json.dumps(card, indent=1)}))


def save_weights(path: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes weights with their card inside, and the card beside them as ``card.json``."""
    write_weights(path, weights, card)
    write_atomically(path.with_name(CARD), json.dumps(card, indent=1))


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and card of a checkpoint folder or a ``.safetensors`` file.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint of ours.
    """
    file = Path(path)
    if file.is_dir():
        file = file / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}; give a checkpoint folder or a .safetensors file")
    try:
        with safe_open(file, framework="pt") as opened:
            card = (opened.metadata() or {}).get("card")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{file} is not a readable .safetensors file ({error}); convert or download it again"
        ) from error
    if card is None:
        raise ValueError(f"{file} has no card; make it a unihap checkpoint with tools/convert_checkpoint.py")
    return weights, json.loads(card)


def read_torch(path: Path, allowed: Sequence[type] = ()) -> Any:
    """What ``torch.save`` wrote, read without running code from the file.

    Args:
        path: the file.
        allowed: classes beside tensors, numbers, strings, lists and dictionaries that it may hold.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or it holds other objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        unsafe = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        if unsafe:
            raise ValueError(
                f"{path} holds a {unsafe[1]}, and loading it could run code; store tensors alone"
            ) from error
        raise ValueError(f"{path} is not a torch checkpoint ({str(error).splitlines()[0]})") from error


def read_state(path: Path, containers: Sequence[str], *, flat: bool = False, allowed: Sequence[type] = ()) -> State:
    """The state dict in an upstream file.

    Args:
        path: torch checkpoint or ``.safetensors``.
        containers: names of entries that may hold the state dict, the first present one counts.
        flat: whether the file may also be the state dict itself.
        allowed: as for ``read_torch``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or no state dict in it.
    """
    if path.suffix == ".safetensors" and path.is_file() and flat:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable .safetensors file ({error})") from error
    loaded = read_torch(path, allowed)
    if isinstance(loaded, dict):
        found = [loaded[name] for name in containers if isinstance(loaded.get(name), dict)]
        if flat:
            found.append(loaded)
        if found and found[0] and all(isinstance(value, Tensor) for value in found[0].values()):
            return found[0]
    raise ValueError(f"{path} has no {' or '.join(containers)} of tensors; give a file as its training wrote it")


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
