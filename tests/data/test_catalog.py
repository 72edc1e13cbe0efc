import re
from pathlib import Path

import pytest

from unihap.data import attributes, detection, parsing, pose, reid, unlabelled
from unihap.data.catalog import DATASETS, dataset_root, load_dataset

README = Path(__file__).resolve().parents[2] / "datasets" / "README.md"


def test_no_two_adapters_claim_a_name():
    tables = [module.DATASETS for module in (reid, attributes, pose, parsing, detection, unlabelled)]
    assert len(DATASETS) == sum(len(table) for table in tables)


@pytest.mark.parametrize("name", DATASETS)
def test_missing_dataset_names_its_path_and_its_section(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'see "[^"]+" in datasets/README\.md') as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    title = re.search('see "([^"]+)"', str(caught.value))[1]
    section = README.read_text().split(f"\n### {title}\n")
    assert len(section) == 2, f"datasets/README.md has no section {title}"
    assert f"`{name}`" in section[1].split("\n### ")[0]


def test_readme_names_only_datasets_that_exist():
    lines = [line for line in README.read_text().splitlines() if line.startswith("* Names:")]
    named = [name for line in lines for name in re.findall(r"`(\w+_\w+)`", line)]
    assert sorted(named) == sorted(DATASETS)


SPLITS = {
    "market1501": ("train", "query"),
    "cuhk01_as_market": ("train", "query", "gallery", "test"),
    "pa100k": ("test",),
    "ccp_as_pa100k": ("train", "val", "trainval", "test"),
    "market1501_attributes": ("train",),
    "coco_keypoints": ("train", "val"),
    "aic": ("train",),
    "mpii": ("val",),
    "mpii_coco_keypoints": ("val",),
    "lip": ("train",),
    "cihp": ("train", "val"),
    "ccp": ("train", "val"),
    "ccp_as_lip": ("train", "val"),
    "ccp_lip_classes": ("train", "val"),
    "crowdhuman_mot17": ("train", "val"),
    "coco_person": ("train", "val"),
    "pennfudan": ("train", "test"),
    "luperson": ("train",),
}


@pytest.mark.parametrize("name", [f"{dataset}_{split}" for dataset, splits in SPLITS.items() for split in splits])
def test_real_dataset_is_whole(name, dev_data):
    dataset = load_dataset(name, dev_data)
    assert dataset.name == name
    assert len({record.id for record in dataset.records}) == len(dataset.records) > 0
    assert all(Path(record.image).is_file() for record in dataset.records)


def test_unknown_name_gets_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'market1501_tset'; did you mean market1501_test\?"):
        load_dataset("market1501_tset", tmp_path)


def test_missing_root_is_named():
    with pytest.raises(FileNotFoundError, match="no datasets folder /nowhere; set UNIHAP_DATASETS"):
        load_dataset("lip_train", Path("/nowhere"))


def test_root_is_ours_then_detectron2s_then_local(monkeypatch):
    monkeypatch.setenv("UNIHAP_DATASETS", "/a")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/b")
    assert dataset_root() == Path("/a")
    monkeypatch.setenv("UNIHAP_DATASETS", "")
    assert dataset_root() == Path("/b")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert dataset_root() == Path("datasets")


def test_root_of_the_environment_is_read(monkeypatch, dev_data):
    monkeypatch.setenv("UNIHAP_DATASETS", str(dev_data))
    assert len(load_dataset("aic_train").records) == 6
