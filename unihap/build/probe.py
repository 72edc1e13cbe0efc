"""From a pre-training config to the encoder that is probed, and from names to what it is probed on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unihap.build.pretrain_data import token_grid
from unihap.build.pretrain_model import build_pretrain_model
from unihap.checkpoints.encoder_file import load_encoder
from unihap.config import CfgNode, get_cfg
from unihap.data.catalog import load_dataset
from unihap.engine.checkpoint import Checkpoints
from unihap.engine.probe import ProbeSets
from unihap.models.encoder import Encoder

# Keys that do not change what is learned.
HARMLESS = ("OUTPUT_DIR", "DATA.NUM_WORKERS", "TRAIN.CHECKPOINT_PERIOD", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.LOG_PERIOD")


def first_encoder(cfg: CfgNode) -> Encoder:
    """The encoder before pre-training: random weights drawn from ``SEED``, or those that the config names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another encoder.
    """
    copy = cfg.clone()
    copy.defrost()
    copy.PRETRAIN.FRAMEWORK = "mae"  # needs no tokenizer, and the encoder is drawn before what is beside it
    encoder = build_pretrain_model(copy).encoder
    source = cfg.MODEL.WEIGHTS or cfg.MODEL.ENCODER.WEIGHTS
    if source:
        load_encoder(encoder, source)
    return encoder


def pretrained_encoder(cfg: CfgNode) -> tuple[Encoder, Path]:
    """The encoder of the last checkpoint in ``OUTPUT_DIR``, and the checkpoint."""
    path = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").complete()[-1]
    encoder = Encoder(cfg.MODEL.ENCODER.NAME, token_grid(cfg), drop_path=0.0)
    missing = load_encoder(encoder, path)
    assert not missing, f"{path} was written by pre-training and lacks {missing[0]}"
    return encoder, path


def build_probe_sets(root: Path, reid: str, attributes: Sequence[str], keypoints: Sequence[str]) -> ProbeSets:
    """Labelled pictures by the names of their datasets: one of ReID, a training and a test split of the others.

    Raises:
        FileNotFoundError: a dataset is not there.
        ValueError: unknown, broken, of another kind, or two splits with different classes.
    """
    wanted = ((reid,), "reid"), (attributes, "attributes"), (keypoints, "pose")
    loaded = []
    for names, kind in wanted:
        datasets = [load_dataset(name, root) for name in names]
        for dataset in datasets:
            if dataset.kind != kind:
                raise ValueError(f"dataset {dataset.name} is for {dataset.kind}, the probe needs one for {kind}")
            if dataset.classes != datasets[0].classes:
                raise ValueError(f"{dataset.name} and {datasets[0].name} have different classes")
        loaded.append(datasets)
    return ProbeSets(loaded[0][0], (loaded[1][0], loaded[1][1]), (loaded[2][0], loaded[2][1]))


def learning_settings(cfg: CfgNode) -> dict[str, Any]:
    """A config as plain values, with the keys that do not change what is learned at their defaults."""
    copy, defaults = cfg.clone(), get_cfg()
    copy.defrost()
    for key in HARMLESS:
        node, plain = copy, defaults
        *parents, last = key.split(".")
        for part in parents:
            node, plain = node[part], plain[part]
        node[last] = plain[last]
    settings: dict[str, Any] = json.loads(json.dumps(copy))
    return settings
