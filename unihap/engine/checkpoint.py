"""Checkpoints: weights as safetensors with a card that says what they are, training state beside them.

A checkpoint is a folder ``checkpoints/iteration_<n>`` with ``weights.safetensors``, ``card.json`` and
``training_state.pth``.  It is written under another name and renamed when complete, so a folder of that name is always
whole, whatever killed the run.  The card also travels inside the safetensors header: the one file is enough to load.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unihap.checkpoints.card import architecture_of, spec_from_json
from unihap.checkpoints.card import base_card as base_card
from unihap.checkpoints.card import spec_to_json as spec_to_json
from unihap.checkpoints.files import WEIGHTS, read_weights, save_weights
from unihap.checkpoints.files import write_atomically as write_atomically
from unihap.checkpoints.prompts import refuse_prompt
from unihap.models.unihap import UniHAP

STATE = "training_state.pth"
BRANCHES = "shared.branches."  # decoders by kind of task
CRITERION = ".criterion."  # private weights that only training needs


def load_into(model: UniHAP, weights: Mapping[str, Tensor], source: str, *, partial: bool = False) -> list[str]:
    """Copies weights into a model.

    Args:
        model: where to.
        weights: by full name; weights that only training needs are left to the criterion.
        source: where they come from, for messages.
        partial: accept weights that leave some of the model's at their values (an encoder, or fewer tasks), and
            weights of tasks (and of kinds of task) that the model does not have.

    Returns:
        Names that the model has and ``weights`` lacks.

    Raises:
        ValueError: another architecture: missing, unexpected or differently shaped weights.
    """
    mine = model.state_dict()
    theirs = {name: value for name, value in weights.items() if CRITERION not in name}
    if partial:
        served = tuple(f"private.{task}." for task in model.tasks)
        kinds = tuple(f"{BRANCHES}{kind}." for kind in model.shared.branches)
        theirs = {
            name: value
            for name, value in theirs.items()
            if name.startswith((*served, *kinds) if name.startswith(("private.", BRANCHES)) else "shared.")
        }
    problems = [
        f"{name} has shape {tuple(value.shape)}, the model {tuple(mine[name].shape)}"
        for name, value in theirs.items()
        if name in mine and value.shape != mine[name].shape
    ]
    problems += [f"unexpected {name}" for name in theirs if name not in mine]
    missing = [name for name in mine if name not in theirs]
    if not partial:
        problems += [f"missing {name}" for name in missing]
    if problems or not theirs:
        listed = "; ".join(problems[:3]) or "no weight in common"
        raise ValueError(
            f"{source} holds another architecture than this model ({len(problems)} differences: {listed}); "
            f"check MODEL.ENCODER, MODEL.DECODER, MODEL.SHARING and the tasks"
        )
    with torch.no_grad():
        for name, value in theirs.items():
            mine[name].copy_(value)
    return missing


def load_model(path: str | Path) -> UniHAP:
    """A model in eval mode from a checkpoint of ours, built after its card.

    Args:
        path: checkpoint folder or ``.safetensors`` file.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a whole model.
    """
    weights, card = read_weights(path)
    refuse_prompt(card, path)
    if "architecture" not in card or not card.get("tasks"):
        raise ValueError(f"{path} is not a whole model (its card names no tasks); load it through MODEL.WEIGHTS")
    specs = [spec_from_json(name, values["spec"]) for name, values in card["tasks"].items()]
    kinds = {name: values["kind"] for name, values in card["tasks"].items() if "kind" in values}
    model = architecture_of(card).make(specs, kinds)
    load_into(model, weights, str(path))
    return model.eval()


def criterion_weights(weights: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    """The part of a checkpoint that belongs to a task's criterion."""
    prefix = f"private.{task}{CRITERION}"
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def load_criterion(criterion: nn.Module, weights: Mapping[str, Tensor], task: str, source: str) -> None:
    """Copies a checkpoint's criterion weights of one task.

    Raises:
        ValueError: another training set (other identities or classes).
    """
    try:
        criterion.load_state_dict(criterion_weights(weights, task))
    except RuntimeError as error:
        raise ValueError(f"{source} was trained for {task} on another training set: {error}") from error


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: ``OUTPUT_DIR/checkpoints``.
        keep: how many to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"TRAIN.KEEP_CHECKPOINTS must be at least 1, got {keep}")
        self.folder = folder
        self.keep = keep

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("iteration_*") if p.suffix != ".tmp")

    def save(
        self, iteration: int, weights: Mapping[str, Tensor], card: Mapping[str, Any], state: Mapping[str, Any]
    ) -> Path:
        """Writes a checkpoint after ``iteration`` finished iterations and deletes the oldest ones."""
        final = self.folder / f"iteration_{iteration:08d}"
        temporary = final.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_weights(temporary / WEIGHTS, weights, card)
        torch.save({"iteration": iteration, **state}, temporary / STATE)
        for file in temporary.iterdir():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for old in self.complete()[: -self.keep]:
            shutil.rmtree(old)
        return final

    def newest(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """Folder, weights and training state of the newest complete checkpoint, or ``None``."""
        found = self.complete()
        if not found:
            return None
        weights, _ = read_weights(found[-1])
        state = torch.load(found[-1] / STATE, map_location="cpu", weights_only=True)
        return found[-1], weights, state
