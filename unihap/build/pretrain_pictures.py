"""From a pre-training run to what pictures of it need: its config, its weights and crops with their keypoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unihap.build.data import datasets_root
from unihap.build.pretrain_data import build_masking, read_crops, token_grid
from unihap.build.pretrain_model import CLASS_TOKEN, PROTOTYPES, build_pretrain_model
from unihap.checkpoints.encoder_file import load_encoder
from unihap.checkpoints.files import WEIGHTS, read_weights
from unihap.config import CfgNode, get_cfg
from unihap.data.crop_records import CropRecords
from unihap.data.files import IMAGE_SUFFIXES
from unihap.data.keypoint_index import KeypointIndex, read_index
from unihap.data.unlabelled import INDEX, join
from unihap.engine.checkpoint import Checkpoints
from unihap.engine.pretrain import TASK, load_pretraining
from unihap.lookup import lookup
from unihap.models.encoder import Encoder
from unihap.pretrain.dataset import PersonCrops
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder
from unihap.pretrain.part_masking import Masking, Selection
from unihap.pretrain.parts import part_patches
from unihap.pretrain.views import PretrainEncoder
from unihap.structures import Dataset, Record

CONFIG = "config.yaml"


def find_weights(place: Path) -> Path:
    """The checkpoint in a place: the newest one of a run's folder, else the folder or file itself."""
    if (place / WEIGHTS).is_file() or not (place / "checkpoints").is_dir():
        return place
    complete = Checkpoints(place / "checkpoints").complete()
    return complete[-1] if complete else place


def find_config(place: Path) -> Path:
    """The config that a run's folder has, or the run of a checkpoint.

    Raises:
        ValueError: none.
    """
    folder = place if place.is_dir() else place.parent
    candidates = [folder / CONFIG, folder.absolute().parents[1] / CONFIG] if folder.is_dir() else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(f"no {CONFIG} of a run in or above {place}; give --config FILE")


def read_pretrain_config(path: Path, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen config of a pre-training run.

    Raises:
        ValueError: it cannot be used, or is of another mode.
    """
    cfg = get_cfg()
    cfg.merge_from_file(path)
    cfg.merge_from_list(overrides)
    if cfg.TRAIN.MODE != TASK:
        raise ValueError(f"{path} is of TRAIN.MODE {cfg.TRAIN.MODE!r}; give the config of a pre-training run")
    cfg.freeze()
    return cfg


def load_autoencoder(cfg: CfgNode, weights: Path) -> MaskedAutoencoder:
    """A run's model in eval mode, to see what it paints.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: a model that paints nothing, or weights of another one.
    """
    if cfg.PRETRAIN.FRAMEWORK != "mae":
        raise ValueError(
            f"a model of PRETRAIN.FRAMEWORK {cfg.PRETRAIN.FRAMEWORK!r} predicts tokens and paints no pixels; "
            "only mae can reconstruct"
        )
    model = build_pretrain_model(cfg)
    assert isinstance(model, MaskedAutoencoder)
    tensors, _ = read_weights(weights)
    tensors.pop(PROTOTYPES, None)
    load_pretraining(model, tensors, str(weights))
    return model.eval()


def load_pretrain_encoder(cfg: CfgNode, weights: Path) -> PretrainEncoder:
    """The encoder of a run (of any framework) or of a converted file, with its class token, in eval mode.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: another encoder, or no class token.
    """
    token = read_weights(weights)[0].get(CLASS_TOKEN)
    if token is None:
        raise ValueError(f"{weights} has no class token ({CLASS_TOKEN}); give a checkpoint of pre-training")
    grid = token_grid(cfg)
    model = PretrainEncoder(Encoder(cfg.MODEL.ENCODER.NAME, grid, 0.0), grid, "none", scratch=False)
    load_encoder(model.encoder, weights)
    with torch.no_grad():
        model.cls_token.copy_(token)
    return model.eval()


def is_image(source: str) -> bool:
    """Whether a source of crops is one image."""
    return source.lower().endswith(IMAGE_SUFFIXES)


def gather_crops(cfg: CfgNode, sources: Sequence[str], *, root: Path | None = None, index: str = "") -> PersonCrops:
    """Whole crops (no augmentation) of datasets, folders, lists and image files.

    Args:
        cfg: of the run; its input size and masks.
        sources: see ``unihap.data.unlabelled.find_place``, or paths of images.
        root: datasets root; the config's by default.
        index: file of keypoints, whose names are paths under its own folder for images.  By default that of the
            folder, for an image the nearest one above it.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: unknown sources, a broken index, or the same crops twice.
    """
    images = [source for source in sources if is_image(source)]
    others = [source for source in sources if not is_image(source)]
    base = datasets_root(cfg) if root is None else root
    datasets = [read_crops(source, base, 1.0, 0, index) for source in others]
    if images:
        datasets.append(read_images(images, index))
    masking = build_masking(cfg)
    size = masking.grid[0] * masking.patch, masking.grid[1] * masking.patch
    return PersonCrops(join(datasets), masking, size=size, num_views=1, seed=cfg.SEED, augment=False)


def read_images(paths: Sequence[str], index: str = "") -> Dataset:
    """Single images as a dataset, see ``gather_crops``.

    Raises:
        FileNotFoundError: an image or the index is missing.
        ValueError: a broken index.
    """
    opened: dict[Path, KeypointIndex] = {}
    records: list[Record] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"no image {path}")
        path = path.absolute()
        above = [Path(index).absolute()] if index else [p / INDEX for p in path.parents if (p / INDEX).is_file()]
        folder, keypoints = path.parent, None
        if above and path.is_relative_to(above[0].parent):
            folder = above[0].parent
            keypoints = opened.setdefault(folder, opened.get(folder) or read_index(above[0]))
        elif above:
            raise ValueError(f"{path} does not lie under the folder of the index {above[0]}, so it is not in it")
        records.append(CropRecords(folder, [path.relative_to(folder).as_posix()], keypoints)[0])
    return Dataset("images", "unlabelled", records)


def lowest_score(masking: Masking) -> float | None:
    """The score from which this masking sees a keypoint; ``None`` sees all."""
    return None if masking.compat == "release" else masking.min_score


def draw_selection(
    masking: Masking, keypoints: np.ndarray, parts: Sequence[str] | None, rng: np.random.Generator
) -> Selection:
    """What a mask begins with: the parts that were asked for, as far as they are there, or a draw.

    Raises:
        ValueError: unknown parts, or a masking that never hides a whole part.
    """
    if parts is None:
        return masking.select(keypoints, rng)
    if masking.compat == "release":
        raise ValueError("--parts hides whole parts, as the release never does; add --set PRETRAIN.MASK.COMPAT paper")
    patches = part_patches(keypoints, masking.grid, masking.patch, masking.min_score)
    wanted = {part: lookup(patches, part, "part") for part in parts}
    present = [part for part in wanted if wanted[part].any()]
    return Selection(tuple(present), tuple(wanted[part] for part in present))
