"""From a config to tasks, model, plan and device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from unihap.checkpoints.encoder_file import load_encoder
from unihap.checkpoints.prompts import refuse_prompt
from unihap.config import TASK_DEFAULTS, CfgNode
from unihap.engine.checkpoint import load_into, read_weights
from unihap.engine.groups import TaskPlan, TaskShare, describe, make_plan
from unihap.engine.parts import SHARED_PARTS, part_of
from unihap.lookup import lookup
from unihap.models.encoder import patch_size
from unihap.models.unihap import Architecture, UniHAP
from unihap.tasks import TASKS, Task, TaskOptions

PRECISIONS: Mapping[str, torch.dtype | None] = {
    "float32": None,
    "float64": None,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Device:
    """Where and how precisely a run computes.

    Attributes:
        device: of this process.
        dtype: of the weights.
        autocast: of the matrix products, or ``None`` for ``dtype``.
    """

    device: torch.device
    dtype: torch.dtype
    autocast: torch.dtype | None


def task_block(cfg: CfgNode, name: str) -> CfgNode:
    """``TASKS.<name>``, or the defaults where a config leaves the task alone."""
    return cfg.TASKS[name] if name in cfg.TASKS else TASK_DEFAULTS


def build_task(cfg: CfgNode, name: str) -> Task:
    """The task ``name`` with the config's choices.

    Raises:
        ValueError: unknown task.
    """
    options = TaskOptions(
        input_size=tuple(task_block(cfg, name).INPUT_SIZE),
        patch_size=patch_size(cfg.MODEL.ENCODER.NAME),
        loss_weights={
            "reid": {"identity": cfg.LOSS.REID.IDENTITY, "triplet": cfg.LOSS.REID.TRIPLET},
            "attributes": {"probability": cfg.LOSS.ATTRIBUTES.PROBABILITY},
            "pose": {"heatmap": cfg.LOSS.POSE.HEATMAP, "probability": cfg.LOSS.POSE.PROBABILITY},
            "parsing": {
                "probability": cfg.LOSS.PARSING.PROBABILITY,
                "mask": cfg.LOSS.PARSING.MASK,
                "dice": cfg.LOSS.PARSING.DICE,
            },
            "detection": {
                "class": cfg.LOSS.DETECTION.CLASS,
                "l1": cfg.LOSS.DETECTION.L1,
                "giou": cfg.LOSS.DETECTION.GIOU,
            },
        },
        num_feature_queries=cfg.MODEL.NUM_FEATURE_QUERIES,
        num_patterns=cfg.MODEL.NUM_PATTERNS,
        num_anchors=cfg.MODEL.NUM_ANCHORS,
        num_points=cfg.LOSS.PARSING.NUM_POINTS,
        ignored_pixels=cfg.LOSS.PARSING.IGNORED_PIXELS,
        pose_rescore=cfg.TEST.POSE_RESCORE,
        rerank=cfg.TEST.RERANK,
        detection_score=cfg.TEST.DETECTION_SCORE,
        on_bad_image=cfg.DATA.ON_BAD_IMAGE,
    )
    return lookup(TASKS, name, "task")(name, options)


def train_tasks(cfg: CfgNode) -> list[str]:
    """Tasks to train, in rank order.

    Raises:
        ValueError: an unknown task, a task listed twice, or a block of TASKS is used by nothing.
    """
    names = list(cfg.TRAIN.TASKS)
    for name in names:
        lookup(TASKS, name, "task")
    if len(set(names)) < len(names):
        raise ValueError(f"TRAIN.TASKS lists a task twice: {names}")
    unused = sorted(set(cfg.TASKS) - set(names) - set(cfg.TEST.TASKS))
    if unused:
        raise ValueError(f"TASKS.{unused[0]} is set but neither TRAIN.TASKS nor TEST.TASKS lists {unused[0]}")
    return names


def test_tasks(cfg: CfgNode) -> list[str]:
    """Tasks to evaluate."""
    return list(cfg.TEST.TASKS) or train_tasks(cfg)


def build_architecture(cfg: CfgNode) -> Architecture:
    """What the model is made of."""
    rows, columns = cfg.MODEL.ENCODER.POSITION_GRID
    return Architecture(
        encoder=cfg.MODEL.ENCODER.NAME,
        position_grid=(rows, columns),
        drop_path=cfg.MODEL.ENCODER.DROP_PATH,
        width=cfg.MODEL.DECODER.WIDTH,
        num_heads=cfg.MODEL.DECODER.HEADS,
        num_layers=cfg.MODEL.DECODER.LAYERS,
        feedforward=cfg.MODEL.DECODER.FEEDFORWARD,
        sharing=cfg.MODEL.SHARING,
        readout=cfg.MODEL.READOUT,
        **(prompt_lengths(cfg) if cfg.TRAIN.MODE == "prompt" else {}),
    )


def prompt_lengths(cfg: CfgNode) -> dict[str, int]:
    """Lengths of the prompts of ``TRAIN.MODE`` prompt, as ``Architecture`` names them.

    Raises:
        ValueError: a negative length.
    """
    lengths = {"decoder_prompts": cfg.PROMPT.DECODER_LENGTH, "encoder_prompts": cfg.PROMPT.ENCODER_LENGTH}
    if min(lengths.values()) < 0:
        raise ValueError(f"PROMPT.DECODER_LENGTH and PROMPT.ENCODER_LENGTH must be at least 0, got {lengths}")
    return lengths


def make_model(cfg: CfgNode) -> UniHAP:
    """The model of a config with random weights, drawn from ``SEED``.

    Raises:
        ValueError: unknown encoder or task.
    """
    names = list(dict.fromkeys([*train_tasks(cfg), *test_tasks(cfg)]))
    tasks = [build_task(cfg, name) for name in names]
    torch.manual_seed(cfg.SEED)
    return build_architecture(cfg).make([task.spec for task in tasks], {task.spec.name: task.kind for task in tasks})


def build_model(cfg: CfgNode) -> UniHAP:
    """The model of a config, with random weights unless the config names better ones.

    ``MODEL.ENCODER.WEIGHTS`` is read first, then ``MODEL.WEIGHTS``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown encoder or task, or a checkpoint of another architecture.
    """
    model = make_model(cfg)
    if cfg.MODEL.ENCODER.WEIGHTS:
        load_encoder(model.shared.encoder, cfg.MODEL.ENCODER.WEIGHTS)
    if cfg.MODEL.WEIGHTS:
        weights, card = read_weights(cfg.MODEL.WEIGHTS)
        refuse_prompt(card, cfg.MODEL.WEIGHTS)
        load_into(model, weights, cfg.MODEL.WEIGHTS, partial=True)
    return model


def build_plan(cfg: CfgNode) -> list[TaskPlan]:
    """Who trains what, and how much each task weighs."""
    shares = []
    for name in train_tasks(cfg):
        block = task_block(cfg, name)
        shares.append(
            TaskShare(
                name,
                block.GPUS,
                block.BATCH_SIZE,
                block.ACCUMULATE,
                block.LAMBDA or build_task(cfg, name).loss_lambda,
                block.WEIGHT,
            )
        )
    return make_plan(shares)


def build_device(cfg: CfgNode, local_rank: int = 0) -> Device:
    """The device of this process and the precision of the run.

    Raises:
        ValueError: unknown precision, or one the device lacks.
    """
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    name = cfg.TRAIN.PRECISION
    if name == "auto":  # bfloat16 is many times slower than float32 on CPUs without instructions for it
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    autocast = lookup(PRECISIONS, name, "TRAIN.PRECISION")
    return Device(device, torch.float64 if name == "float64" else torch.float32, autocast)


def dry_run(cfg: CfgNode, num_processes: int) -> str:
    """The merged config, who trains what, and how many parameters are shared and private.

    Raises:
        ValueError: an impossible config, or one that neither trains nor evaluates.
    """
    if train_tasks(cfg) or not test_tasks(cfg):
        plan = describe(build_plan(cfg), num_processes)
    else:
        plan = f"nothing is trained; --eval-only evaluates {', '.join(test_tasks(cfg))}"
    return "\n".join([cfg.dump(), plan, "", parameter_table(build_model(cfg))])


def parameter_table(model: UniHAP) -> str:
    """How many parameters are shared and private."""
    rows: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part, task = part_of(name), name.split(".")[1]
        what = "private feature norms" if ".feature_norm." in name else f"private {task}"
        what = f"shared  {part}" if part in SHARED_PARTS else what
        rows[what] = rows.get(what, 0) + parameter.numel()
    rows = dict(sorted(rows.items(), key=lambda row: row[0] == "private feature norms"))
    everyone = sum(number for what, number in rows.items() if what.startswith("shared"))
    totals = {"all shared": everyone, "all": sum(rows.values())}
    lines = [f"{what:<34} {number:>12,}" for what, number in {**rows, **totals}.items()]
    return "\n".join([f"{'parameters':<34} {'number':>12}", *lines])
