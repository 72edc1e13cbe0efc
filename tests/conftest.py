import os
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network for its version when imported

# Idle threads sleep: several test processes on few cores would otherwise wait for each other at full speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

# The reference numbers and the small real datasets travel beside the repository, never in it.
SHARED = Path(os.environ.get("UNIHAP_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of numbers computed by the original implementations."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers in {folder}; set UNIHAP_SHARED to their parent folder")
    return folder


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """Root of small real datasets in their official layouts."""
    folder = SHARED / "data" / "dev"
    if not folder.is_dir():
        pytest.skip(f"no real datasets in {folder}; set UNIHAP_SHARED to the parent of their data folder")
    return folder


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of toy datasets in the layouts of Market-1501, PA-100K, COCO, LIP and CrowdHuman."""
    import toy

    return toy.make(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="session")
def toy_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that trains all five kinds of task on the toy datasets with a tiny model."""
    import toy

    path = tmp_path_factory.mktemp("config") / "toy.yaml"
    path.write_text(toy.CONFIG)
    return path
