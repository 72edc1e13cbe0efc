"""Prompts on disk: the private weights of one task, and which shared weights they were trained with.

A prompt file is a ``.safetensors`` with its card inside, some hundred kilobytes; a checkpoint of ``TRAIN.MODE`` prompt
is one too.  Any number of prompts can be loaded into one model.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unihap import __version__
from unihap.checkpoints.card import spec_from_json, spec_to_json
from unihap.checkpoints.files import read_weights, write_weights
from unihap.lookup import lookup
from unihap.models.private import Private
from unihap.models.unihap import UniHAP

logger = logging.getLogger(__name__)

SHARED = "shared_sha256"  # key of a prompt's card, and of no other card
CRITERION = "criterion."  # weights of a task that only its training needs
LENGTHS = ("decoder_prompts", "encoder_prompts")  # keys of a prompt's task in its card


def shared_digest(model: UniHAP) -> str:
    """SHA-256 of the shared weights: of their sorted names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(model.shared.state_dict(prefix="shared.").items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def prompt_lengths(private: Private) -> dict[str, int]:
    """Lengths of a task's deep prompts, as its card names them; 0 where it has none."""
    prompts = private.prompts
    sides = (None, None) if prompts is None else (prompts.decoder, prompts.encoder)
    return {key: 0 if side is None else side.shape[-2] for key, side in zip(LENGTHS, sides, strict=True)}


def save_prompt(path: str | Path, model: UniHAP, task: str, card: Mapping[str, Any] | None = None) -> None:
    """Writes one task's private weights to a file.

    Args:
        path: ``.safetensors`` file.
        model: with its shared weights, of which the file holds the digest.
        task: one of ``model.tasks``.
        card: what else is known, e.g. the card of the model's checkpoint.

    Raises:
        ValueError: unknown task.
    """
    private = lookup(dict(model.private.items()), task, "task")
    assert isinstance(private, Private)
    card = card or {}
    kind = {"kind": private.branch} if private.branch else {}
    about = {
        **kind,
        **card.get("tasks", {}).get(task, {}),
        "spec": spec_to_json(private.spec),
        **prompt_lengths(private),
    }
    weights = private.state_dict(prefix=f"private.{task}.")
    own = {"format": 1, "unihap": __version__, "tasks": {task: about}, SHARED: shared_digest(model)}
    write_weights(Path(path), weights, {**card, **own})


def read_prompt(path: str | Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """The task of a prompt, its weights by name inside of ``private.<task>``, and its card.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a prompt.
    """
    weights, card = read_weights(path)
    if SHARED not in card:
        raise ValueError(f"{path} is not a prompt (its card has no {SHARED}); load a whole model with load_model")
    (task,) = card["tasks"]
    prefix = f"private.{task}."
    return task, {name.removeprefix(prefix): value for name, value in weights.items()}, card


def refuse_prompt(card: Mapping[str, Any], path: str | Path) -> None:
    """Refuses a prompt where a whole model is needed.

    Raises:
        ValueError: the card is a prompt's.
    """
    if SHARED in card:
        raise ValueError(
            f"{path} is a prompt, without the shared weights of a model; load the model that it was trained with and "
            f"then the prompt with unihap.load_prompt(model, path), or set MODEL.WEIGHTS and MODEL.PROMPTS [{path}]"
        )


def check_shared(model: UniHAP, card: Mapping[str, Any], path: str | Path) -> None:
    """Compares a model's shared weights with those that a prompt was trained with.

    Raises:
        ValueError: they differ.
    """
    if shared_digest(model) != card[SHARED]:
        raise ValueError(
            f"{path} was trained with other shared weights than this model has (SHA-256 {card[SHARED][:12]}...); load "
            f"the model it was trained with, or give force=True to try it all the same"
        )


def load_prompt(model: UniHAP, path: str | Path, *, force: bool = False) -> str:
    """Adds a prompt's task to a model, or replaces it.

    Args:
        model: with the shared weights that the prompt was trained with.
        path: file of ``save_prompt``, or a checkpoint of ``TRAIN.MODE`` prompt.
        force: accept other shared weights.

    Returns:
        The task, which ``model`` serves from now on.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a prompt, of other shared weights, or of another architecture.
    """
    task, weights, card = read_prompt(path)
    if not force:
        check_shared(model, card, path)
    about = card["tasks"][task]
    lengths = {key: about.get(key, 0) for key in LENGTHS}
    private = model.make_private(spec_from_json(task, about["spec"]), **lengths, kind=about.get("kind", ""))
    try:
        private.load_state_dict({name: value for name, value in weights.items() if not name.startswith(CRITERION)})
    except RuntimeError as error:
        raise ValueError(f"{path} holds a prompt for another architecture: {error}") from error
    first = next(model.shared.parameters())
    model.private[task] = private.to(first.device, first.dtype).train(model.training)
    logger.info("task %s: prompt %s", task, path)
    return task
