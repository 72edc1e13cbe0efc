import os
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network for its version when imported

import pytest
import torch

torch.set_num_threads(2)

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
