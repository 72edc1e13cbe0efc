"""From a config to the adaptation of a trained model (``TRAIN.MODE`` finetune or prompt) and to what serves prompts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unihap.build.model import build_plan, build_task, make_model, parameter_table, task_block, train_tasks
from unihap.checkpoints.prompts import load_prompt, refuse_prompt
from unihap.config import CfgNode, get_cfg
from unihap.engine.checkpoint import load_into, read_weights
from unihap.engine.groups import describe
from unihap.engine.parts import PARTS, SHARED_PARTS, check_parts, freeze
from unihap.lookup import lookup
from unihap.models.private import Private
from unihap.models.unihap import UniHAP

logger = logging.getLogger(__name__)

NOTHING = "nothing to evaluate: set MODEL.WEIGHTS, or give --resume with a trained OUTPUT_DIR"
Classes = Mapping[str, Sequence[str]]
ALL = frozenset(PARTS)


@dataclass(frozen=True)
class Adaptation:
    """What of a model a run trains.

    Attributes:
        parts: that train, of ``PARTS``.
        scale: learning-rate multiplier by part.
        freeze_iterations: the shared parts train from this iteration on.
        private_alone: checkpoints hold the private weights alone.
        from_trained: the run starts from a trained model.
    """

    parts: frozenset[str] = ALL
    scale: Mapping[str, float] = field(default_factory=dict)
    freeze_iterations: int = 0
    private_alone: bool = False
    from_trained: bool = True

    @property
    def frozen(self) -> frozenset[str]:
        """Parts that never train."""
        return ALL - self.parts


def build_adaptation(cfg: CfgNode) -> Adaptation:
    """What a config trains.

    Raises:
        ValueError: it asks for something impossible, or sets a key that has no effect.
    """
    mode, defaults = cfg.TRAIN.MODE, get_cfg()
    if cfg.MODEL.PROMPTS:
        raise ValueError("MODEL.PROMPTS are evaluated, not trained; give --eval-only or leave them away")
    for key in ("finetune", "prompt"):
        if mode != key and cfg[key.upper()] != defaults[key.upper()]:
            raise ValueError(f"{key.upper()} has no effect in TRAIN.MODE {mode}; leave it away or set TRAIN.MODE {key}")
    if mode == "joint":
        _refuse_queries_from(cfg, ())
        return Adaptation(from_trained=False)
    if cfg.MODEL.ENCODER.WEIGHTS:
        raise ValueError(f"MODEL.ENCODER.WEIGHTS has no effect in TRAIN.MODE {mode}: MODEL.WEIGHTS has an encoder")
    _refuse_queries_from(cfg, train_tasks(cfg) if cfg.MODEL.READOUT == "decoder" else ())
    return lookup({"finetune": _finetuning, "prompt": _prompt_tuning}, mode, "TRAIN.MODE of adaptation")(cfg)


def _refuse_queries_from(cfg: CfgNode, trained: Sequence[str]) -> None:
    for name in cfg.TASKS:
        if cfg.TASKS[name].QUERIES_FROM and name not in trained:
            raise ValueError(
                f"TASKS.{name}.QUERIES_FROM has no effect: it is for what TRAIN.MODE finetune or prompt trains, with "
                f"MODEL.READOUT decoder; leave it away"
            )


def _finetuning(cfg: CfgNode) -> Adaptation:
    parts, first = check_parts(cfg.FINETUNE.PARTS), cfg.FINETUNE.FREEZE_ITERATIONS
    if not 0 <= first < cfg.SOLVER.MAX_ITERATIONS or (first and not parts.intersection(SHARED_PARTS)):
        raise ValueError(
            f"FINETUNE.FREEZE_ITERATIONS is {first}; it must be at least 0, less than SOLVER.MAX_ITERATIONS, and 0 if "
            f"no shared part trains (FINETUNE.PARTS [private] freezes them for good)"
        )
    scale = {part: cfg.FINETUNE.LR_SCALE[part.upper()] for part in PARTS}
    for part, value in scale.items():
        if value <= 0:
            raise ValueError(
                f"FINETUNE.LR_SCALE.{part.upper()} must be positive, got {value}; to freeze that part, leave it out of "
                f"FINETUNE.PARTS"
            )
    return Adaptation(parts, scale, first)


def _prompt_tuning(cfg: CfgNode) -> Adaptation:
    names = train_tasks(cfg)
    if len(names) != 1:
        raise ValueError(f"TRAIN.MODE prompt trains one task, TRAIN.TASKS lists {len(names)}; start a run for each")
    if cfg.MODEL.READOUT != "decoder" or cfg.MODEL.SHARING != "all":
        raise ValueError(
            f"TRAIN.MODE prompt trains queries of a decoder that all tasks share, but MODEL.READOUT is "
            f"{cfg.MODEL.READOUT} and MODEL.SHARING {cfg.MODEL.SHARING}; use TRAIN.MODE finetune with FINETUNE.PARTS "
            f"[private]"
        )
    return Adaptation(frozenset({"private"}), private_alone=True)


def build_adapted_model(cfg: CfgNode, classes: Classes) -> UniHAP:
    """The model to adapt: shared weights and queries of ``MODEL.WEIGHTS``, queries of new tasks as the config says.

    Args:
        cfg: the config.
        classes: class names of the training set, by task; queries of other tasks may stay random.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint has another architecture, lacks shared weights, or has no queries to copy.
    """
    source = cfg.MODEL.WEIGHTS
    if not source:
        raise ValueError(
            f"TRAIN.MODE {cfg.TRAIN.MODE} starts from a trained model; set MODEL.WEIGHTS to its checkpoint"
        )
    model = make_model(cfg)
    weights, card = read_weights(source)
    refuse_prompt(card, source)
    renewed = tuple(f"private.{name}." for name in cfg.TASKS if cfg.TASKS[name].QUERIES_FROM)
    if cfg.MODEL.READOUT != "decoder":
        renewed = ("private.",)  # queries are of no use to it
    kept = {name: value for name, value in weights.items() if not name.startswith(renewed)}
    missing = load_into(model, kept, source, partial=True)
    refuse_incomplete(source, [name for name in missing if name.startswith("shared.")])
    donors = dict.fromkeys(name.split(".")[1] for name in weights if name.endswith(".content"))
    for task in train_tasks(cfg):
        origin = task_block(cfg, task).QUERIES_FROM
        if origin:
            lookup(donors, origin, f"task in {source} for TASKS.{task}.QUERIES_FROM")
        if not origin and f"private.{task}.content" in missing:
            logger.info("task %s: %s has no queries for it; they are drawn at random", task, source)
        elif origin and task in classes:
            private = model.private[task]
            assert isinstance(private, Private)
            copy_queries(private, weights, origin, classes[task], origin_classes(cfg, card, origin))
    return model


def describe_adaptation(cfg: CfgNode, num_processes: int) -> str:
    """The merged config, who trains what, and how much of the model trains; no weights are read."""
    adaptation, model = build_adaptation(cfg), make_model(cfg)
    freeze(model, adaptation.frozen)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return "\n".join(
        [
            cfg.dump(),
            describe(build_plan(cfg), num_processes),
            f"starts from: {cfg.MODEL.WEIGHTS or 'nothing yet, set MODEL.WEIGHTS'}",
            "",
            parameter_table(model),
            f"{'trained ' + ', '.join(part for part in PARTS if part in adaptation.parts):<34} {trained:>12,}"
            f" ({100 * trained / total:.2f} %)",
        ]
    )


def refuse_incomplete(source: str, missing: Sequence[str]) -> None:
    """Refuses a checkpoint without weights that a run needs.

    Raises:
        ValueError: weights are missing.
    """
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} weights of a trained model, first {missing[0]}; give a checkpoint of joint "
            f"training or fine-tuning (an encoder alone starts TRAIN.MODE joint through MODEL.ENCODER.WEIGHTS)"
        )


def origin_classes(cfg: CfgNode, card: Mapping[str, Any], task: str) -> Sequence[str]:
    """Class names of a checkpoint's task: from its card, else those that the task itself has."""
    known = card.get("tasks", {}).get(task, {}).get("classes")
    return known if known is not None else build_task(cfg, task).classes


def copy_queries(
    private: Private,
    weights: Mapping[str, Tensor],
    origin: str,
    classes: Sequence[str],
    origin_names: Sequence[str],
) -> None:
    """Copies queries of the same class from another task; those without a namesake keep their values.

    Args:
        private: of the task that gets them.
        weights: of the checkpoint, by full name.
        origin: task that gives them.
        classes: names of the task's queries.
        origin_names: names of the other's queries.

    Raises:
        ValueError: no class names, or none in common.
    """
    name = private.spec.name
    if not classes or not origin_names:
        raise ValueError(
            f"TASKS.{name}.QUERIES_FROM: the class names of {origin if classes else name} are not known (queries for "
            f"people or boxes have none, old checkpoints may not say); set QUERIES_FROM '' for random queries"
        )
    pairs = list(namesakes(classes, origin_names))
    if not pairs:
        raise ValueError(
            f"TASKS.{name}.QUERIES_FROM: no class of {name} ({', '.join(classes)}) is one of "
            f"{origin} ({', '.join(origin_names)}); set another task, or '' for random queries"
        )
    mine, theirs = (list(column) for column in zip(*pairs, strict=True))
    with torch.no_grad():
        for what in ("content", "position"):
            parameter = private.get_parameter(what)
            parameter[mine] = weights[f"private.{origin}.{what}"][theirs].to(parameter)
    random = [known for number, known in enumerate(classes) if number not in mine]
    logger.info(
        "task %s: %d of %d queries are those of %s; at random: %s",
        name,
        len(pairs),
        len(classes),
        origin,
        ", ".join(random) or "none",
    )


def namesakes(classes: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Numbers of the classes that two lists share, whatever the case and the sign between words.

    >>> list(namesakes(["Left arm", "tail"], ["head", "left_arm"]))
    [(0, 1)]
    """

    def plain(name: str) -> str:
        return "_".join(name.lower().replace("-", " ").replace("_", " ").split())

    places = {plain(name): number for number, name in enumerate(others)}
    for number, name in enumerate(classes):
        if plain(name) in places:
            yield number, places[plain(name)]


def load_for_evaluation(cfg: CfgNode, checkpoint: str) -> UniHAP:
    """A model of ``MODEL.WEIGHTS``, ``MODEL.PROMPTS`` and a run's own checkpoint.

    Args:
        cfg: the config.
        checkpoint: of the run itself, instead of ``MODEL.WEIGHTS`` or, of a prompt, on top of it; "" for none.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: nothing to load, or the files do not fill the model.
    """
    own_prompt = checkpoint if cfg.TRAIN.MODE == "prompt" else ""
    source = cfg.MODEL.WEIGHTS if own_prompt else checkpoint or cfg.MODEL.WEIGHTS
    if not source:
        raise ValueError(NOTHING)
    model = make_model(cfg)
    weights, card = read_weights(source)
    refuse_prompt(card, source)
    missing = load_into(model, weights, source, partial=True)
    specs = {name: build_task(cfg, name).spec for name in model.tasks}
    for path in [*cfg.MODEL.PROMPTS, *([own_prompt] if own_prompt else [])]:
        task = load_prompt(model, path)
        private = model.private[task]
        assert isinstance(private, Private)
        if specs.get(task, private.spec) != private.spec:
            raise ValueError(f"{path} has other queries than task {task} of this config; check MODEL.NUM_* keys")
        missing = [name for name in missing if not name.startswith(f"private.{task}.")]
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} weights of the evaluated tasks, first {missing[0]}")
    return model
