"""Every dataset by name."""

import os
from collections.abc import Callable
from pathlib import Path

from unihap.data import attributes, detection, parsing, pose, reid, unlabelled
from unihap.lookup import lookup
from unihap.structures import Dataset

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    **reid.DATASETS,
    **attributes.DATASETS,
    **pose.DATASETS,
    **parsing.DATASETS,
    **detection.DATASETS,
    **unlabelled.DATASETS,
}


def dataset_root() -> Path:
    """Where the datasets are: ``$UNIHAP_DATASETS``, else ``$DETECTRON2_DATASETS``, else ``./datasets``."""
    return Path(os.environ.get("UNIHAP_DATASETS") or os.environ.get("DETECTRON2_DATASETS") or "datasets")


def load_dataset(name: str, root: Path | None = None) -> Dataset:
    """Reads the annotations of a dataset; its images stay on disk.

    Args:
        name: ``<dataset>_<split>``, a key of ``DATASETS``.
        root: datasets root; ``dataset_root()`` by default.

    Raises:
        ValueError: unknown name, or a broken annotation.
        FileNotFoundError: the root or a file or folder of the dataset is missing or empty.
    """
    read = lookup(DATASETS, name, "dataset")
    root = dataset_root() if root is None else Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no datasets folder {root}; set UNIHAP_DATASETS, see datasets/README.md")
    return read(root)
