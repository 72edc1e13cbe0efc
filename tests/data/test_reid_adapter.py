import numpy as np
import pytest

from unihap.data.catalog import load_dataset
from unihap.evaluation.reid import summary

MARKET = "Market-1501-v15.09.15"


@pytest.fixture
def market(tmp_path):
    """Writes crops: ``market("query/0001_c1s1_000001_00.jpg", ...)`` returns the datasets root."""

    def write(*names):
        for name in names:
            path = tmp_path / MARKET / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"never decoded here")
        return tmp_path

    return write


def labels(dataset):
    return [(r.label.identity, r.label.camera, r.label.role) for r in dataset.records]


def test_identity_and_camera_are_read_from_the_name(market):
    root = market("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/1500_c6s3_000001_01.jpg")
    dataset = load_dataset("market1501_train", root)
    assert labels(dataset) == [(2, 1, "train"), (1500, 6, "train")]
    assert dataset.kind == "reid"
    assert dataset.records[0].image == str(root / MARKET / "bounding_box_train/0002_c1s1_000451_03.jpg")


def test_junk_is_left_out_and_counted_while_distractors_stay(market):
    root = market(
        "bounding_box_test/-1_c1s1_000001_00.jpg",
        "bounding_box_test/0000_c2s1_000001_00.jpg",
        "bounding_box_test/0007_c3s1_000001_00.jpg",
    )
    dataset = load_dataset("market1501_gallery", root)
    assert labels(dataset) == [(0, 2, "gallery"), (7, 3, "gallery")]
    assert dataset.skipped == {"junk (identity -1)": 1}


def test_test_split_is_query_and_gallery_with_unique_ids(market):
    same = "0007_c3s1_000001_00.jpg"
    dataset = load_dataset("market1501_test", market(f"query/{same}", f"bounding_box_test/{same}"))
    assert labels(dataset) == [(7, 3, "query"), (7, 3, "gallery")]
    assert len({r.id for r in dataset.records}) == 2


def test_other_files_of_the_folder_are_not_crops(market):
    root = market("query/0001_c1s1_000001_00.jpg", "query/Thumbs.db")
    assert len(load_dataset("market1501_query", root).records) == 1


def test_a_name_without_person_and_camera_is_refused(market):
    root = market("query/holiday.jpg")
    with pytest.raises(ValueError, match=r"holiday\.jpg: expected a name like 0002_c1s1_000451_03\.jpg"):
        load_dataset("market1501_query", root)


def test_missing_and_empty_folders_are_named(market):
    root = market("query/0001_c1s1_000001_00.jpg")
    with pytest.raises(
        FileNotFoundError, match=r'no such folder: .*bounding_box_train; see "Market-1501" in datasets/'
    ):
        load_dataset("market1501_train", root)
    (root / MARKET / "bounding_box_train").mkdir()
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        load_dataset("market1501_train", root)


def sensereid(tmp_path, *names):
    for name in names:
        path = tmp_path / "SenseReID" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never decoded here")
    return tmp_path


def test_sensereid_names_give_person_and_camera(tmp_path):
    root = sensereid(tmp_path, "test_probe/00001_00.jpg", "test_gallery/00001_01.jpg", "test_gallery/01717_00.jpg")
    dataset = load_dataset("sensereid_test", root)
    assert labels(dataset) == [(1, 0, "query"), (1, 1, "gallery"), (1717, 0, "gallery")]
    assert [record.id for record in dataset.records] == ["query/00001_00", "gallery/00001_01", "gallery/01717_00"]
    assert dataset.records[0].image == str(root / "SenseReID/test_probe/00001_00.jpg")
    assert labels(load_dataset("sensereid_gallery", root)) == labels(dataset)[1:]


@pytest.mark.parametrize("name", ["00001.jpg", "00001_c1.jpg", "00001_00_2.jpg"])
def test_other_names_in_sensereid_are_refused(tmp_path, name):
    root = sensereid(tmp_path, f"test_probe/{name}")
    with pytest.raises(ValueError, match=r"expected a name like 00001_00\.jpg \(person 1, camera 0\)"):
        load_dataset("sensereid_query", root)


def msmt17(tmp_path, role, *lines):
    base = tmp_path / "MSMT17_V1"
    for folder in ("train", "test"):
        (base / folder / "0000").mkdir(parents=True, exist_ok=True)
    (base / f"list_{role}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_msmt17_lists_give_camera_and_identity_from_one(tmp_path):
    line = "0000/0000_003_15_0303morning_0015_0.jpg 0"
    root = msmt17(tmp_path, "train", line, "0012/0012_000_02_0303noon_0001_1.jpg 12")
    dataset = load_dataset("msmt17_train", root)
    assert labels(dataset) == [(1, 15, "train"), (13, 2, "train")]  # 0 would mean distractor
    assert dataset.records[0].image.endswith("MSMT17_V1/train/0000/0000_003_15_0303morning_0015_0.jpg")
    root = msmt17(tmp_path, "query", line)
    assert "MSMT17_V1/test/" in load_dataset("msmt17_query", root).records[0].image


def test_msmt17_line_without_identity_is_refused_with_its_number(tmp_path):
    root = msmt17(tmp_path, "train", "0000/0000_003_15_0303morning_0015_0.jpg 0", "0000/0000_003_15_x.jpg")
    with pytest.raises(ValueError, match=r"list_train\.txt line 2"):
        load_dataset("msmt17_train", root)


PRCC_CROPS = (
    "train/001/A_cropped_rgb001.jpg", "train/001/B_cropped_rgb001.jpg", "train/001/C_cropped_rgb010.jpg",
    "train/074/C_cropped_rgb002.jpg", "train/320/A_cropped_rgb001.jpg",
    "val/001/A_cropped_rgb002.jpg", "val/001/B_cropped_rgb002.jpg", "val/001/C_cropped_rgb002.jpg",
    *(f"test/{camera}/{person}/cropped_rgb001.jpg" for person in ("002", "003", "215") for camera in "ABC"),
)  # fmt: skip


@pytest.fixture
def prcc(tmp_path):
    """Writes crops of three people: ``prcc("train/001/D_cropped_rgb001.jpg")`` adds one and returns the root."""

    def write(*names):
        for name in (*PRCC_CROPS, *names):
            path = tmp_path / "prcc" / "rgb" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"never decoded here")
        return tmp_path

    return write


def test_prcc_trains_on_every_camera(prcc):
    root = prcc("train/Thumbs.db", "train/001/Thumbs.db")
    dataset = load_dataset("prcc_train", root)
    assert labels(dataset) == [(1, 1, "train"), (1, 2, "train"), (1, 3, "train"), (74, 3, "train"), (320, 1, "train")]
    assert (dataset.name, dataset.kind) == ("prcc_train", "reid")
    assert dataset.records[2].id == "001/C_cropped_rgb010"
    assert dataset.records[2].image == str(root / "prcc/rgb/train/001/C_cropped_rgb010.jpg")


def test_prcc_looks_up_camera_c_among_camera_a(prcc):
    root = prcc()
    assert labels(load_dataset("prcc_val", root)) == [(1, 1, "gallery"), (1, 3, "query")]
    dataset = load_dataset("prcc_test", root)
    assert labels(dataset) == [(i, 3, "query") for i in (2, 3, 215)] + [(i, 1, "gallery") for i in (2, 3, 215)]
    assert [record.id for record in dataset.records][::3] == ["C/002/cropped_rgb001", "A/002/cropped_rgb001"]
    assert dataset.records[0].image == str(root / "prcc/rgb/test/C/002/cropped_rgb001.jpg")
    assert len({record.id for record in dataset.records}) == len(dataset.records)


def test_prcc_looks_up_camera_b_for_the_same_clothes(prcc):
    dataset = load_dataset("prcc_same_clothes_test", prcc())
    assert dataset.name == "prcc_same_clothes_test"
    assert labels(dataset) == [(i, 2, "query") for i in (2, 3, 215)] + [(i, 1, "gallery") for i in (2, 3, 215)]


def test_prcc_ranks_every_query_against_the_whole_gallery(prcc):
    dataset = load_dataset("prcc_test", prcc())
    direction = {"C/002": 0, "C/003": 40, "C/215": 90, "A/002": 0, "A/003": 90, "A/215": 50}  # degrees
    rows = [
        {"id": record.id, "feature": np.array([np.cos(angle), np.sin(angle)])}
        for record in dataset.records
        for angle in [np.deg2rad(direction[record.id[:5]])]
    ]
    metrics = summary(rows, dataset)  # answers of rank 1, 3 and 2
    assert metrics["mAP"] == pytest.approx(100 * (1 + 1 / 3 + 1 / 2) / 3)
    assert metrics["rank1"] == pytest.approx(100 / 3)


def test_prcc_names_without_a_camera_or_a_person_are_refused(prcc):
    root = prcc("train/001/D_cropped_rgb001.jpg", "test/A/sketches/cropped_rgb001.jpg")
    with pytest.raises(ValueError, match=r"D_cropped_rgb001\.jpg: expected a name like A_cropped_rgb001\.jpg"):
        load_dataset("prcc_train", root)
    with pytest.raises(ValueError, match=r"A.sketches: expected a folder named by a person's number, like 001"):
        load_dataset("prcc_test", root)


def test_prcc_missing_and_empty_folders_are_named(prcc, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no such folder: .*rgb.train; see "PRCC" in datasets/'):
        load_dataset("prcc_train", tmp_path)
    root = prcc()
    (root / "prcc/rgb/val/009").mkdir()
    with pytest.raises(FileNotFoundError, match=r"the folder is empty: .*val.009"):
        load_dataset("prcc_val", root)
    camera = root / "prcc/rgb/test/C"
    camera.rename(camera.with_name("D"))
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*test.C"):
        load_dataset("prcc_test", root)
    camera.mkdir()
    (camera / "readme.txt").write_text("crops go here")
    with pytest.raises(FileNotFoundError, match=r"no folder of a person in the folder: .*test.C"):
        load_dataset("prcc_test", root)


def test_real_market_crops(dev_data):
    train = load_dataset("market1501_train", dev_data)
    assert labels(train) == [(22, 6, "train"), (27, 2, "train"), (32, 6, "train")]
    assert labels(load_dataset("market1501_query", dev_data)) == [(1, 1, "query"), (1, 6, "query")]


def test_real_cuhk01_crops(dev_data):
    train = load_dataset("cuhk01_as_market_train", dev_data)
    assert len(train.records) == 40
    assert {r.label.identity for r in train.records} == set(range(1, 11))
    test = load_dataset("cuhk01_as_market_test", dev_data)
    roles = [r.label.role for r in test.records]
    assert (roles.count("query"), roles.count("gallery")) == (20, 20)
    assert test.skipped == {"junk (identity -1)": 6}
    assert {r.label.identity for r in test.records} == set(range(11, 21))
