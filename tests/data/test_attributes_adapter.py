import numpy as np
import pytest
import scipy.io

from unihap.data.attributes import MARKET_CLASSES, PA100K_RELEASE_ORDER, in_order
from unihap.data.catalog import load_dataset


def cells(texts):
    array = np.empty((len(texts), 1), dtype=object)
    array[:, 0] = [np.array([text]) for text in texts]
    return array


def pa100k(root, labels=((1, 0), (0, 1), (1, 1)), **changes):
    """``annotation.mat`` with one image in train, val and test each."""
    folder = root / "PA-100K"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "1.jpg").write_bytes(b"x")
    content = {"attributes": cells(["Female", "Hat"])}
    for i, (part, label) in enumerate(zip(("train", "val", "test"), labels, strict=True)):
        content[f"{part}_images_name"] = cells([f"{i}.jpg"])
        content[f"{part}_label"] = np.array([label], dtype=np.uint8)
    content |= changes
    scipy.io.savemat(folder / "annotation.mat", {key: value for key, value in content.items() if value is not None})
    return root


def test_labels_keep_the_order_of_the_file(tmp_path):
    dataset = load_dataset("pa100k_test", pa100k(tmp_path))
    assert dataset.classes == ("Female", "Hat")
    (record,) = dataset.records
    assert record.label.values.dtype == np.int8
    assert record.label.values.tolist() == [1, 1]
    assert record.image == str(tmp_path / "PA-100K" / "data" / "2.jpg")


def test_trainval_is_train_then_val(tmp_path):
    dataset = load_dataset("pa100k_trainval", pa100k(tmp_path))
    assert [r.label.values.tolist() for r in dataset.records] == [[1, 0], [0, 1]]


def test_columns_can_be_brought_into_another_order(tmp_path):
    dataset = in_order(load_dataset("pa100k_train", pa100k(tmp_path)), ("Hat", "Female"))
    assert dataset.classes == ("Hat", "Female")
    assert dataset.records[0].label.values.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"they differ in \['Boots', 'Hat'\]"):
        in_order(dataset, ("Boots", "Female"))


def test_label_table_of_another_size_is_refused(tmp_path):
    root = pa100k(tmp_path, test_label=np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError, match=r"test_label is \(1, 3\) but .* ask for \(1, 2\)"):
        load_dataset("pa100k_test", root)


def test_label_other_than_zero_and_one_is_refused_with_its_image(tmp_path):
    root = pa100k(tmp_path, labels=((0, 0), (0, 0), (0, 2)))
    with pytest.raises(ValueError, match=r"test_label of 2\.jpg holds 2"):
        load_dataset("pa100k_test", root)


def test_missing_variable_and_damaged_file_are_refused(tmp_path):
    root = pa100k(tmp_path, test_label=None)
    with pytest.raises(ValueError, match="no variable 'test_label'"):
        load_dataset("pa100k_test", root)
    path = root / "PA-100K" / "annotation.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="not a readable MATLAB file"):
        load_dataset("pa100k_test", root)


def test_real_pa100k_image(dev_data):
    dataset = load_dataset("pa100k_test", dev_data)
    (record,) = dataset.records
    assert len(dataset.classes) == 26
    present = {name for name, value in zip(dataset.classes, record.label.values, strict=True) if value}
    assert present == {"Age18-60", "Back", "Backpack", "LongSleeve", "UpperPlaid", "Trousers"}
    assert sorted(PA100K_RELEASE_ORDER) == sorted(dataset.classes)
    with pytest.raises(FileNotFoundError, match=r'lists no images for train: .*see "PA-100K"'):
        load_dataset("pa100k_train", dev_data)


def test_real_ccp_attributes(dev_data):
    sizes = {split: load_dataset(f"ccp_as_pa100k_{split}", dev_data) for split in ("train", "val", "trainval", "test")}
    assert {split: len(d.records) for split, d in sizes.items()} == {"train": 32, "val": 8, "trainval": 40, "test": 16}
    assert len(sizes["test"].classes) == 34
    assert all(r.label.values.shape == (34,) for r in sizes["test"].records)


@pytest.fixture
def market_root(dev_data, tmp_path):
    """The real attribute file beside made-up gallery crops: junk, a distractor, person 1 and an unknown person."""
    (tmp_path / "Market-1501_Attribute").symlink_to(dev_data / "Market-1501_Attribute")
    gallery = tmp_path / "Market-1501-v15.09.15" / "bounding_box_test"
    gallery.mkdir(parents=True)
    for name in ("-1_c1s1_0_0", "0000_c1s1_0_0", "0001_c1s1_0_0", "9999_c1s1_0_0"):
        (gallery / f"{name}.jpg").write_bytes(b"x")
    return tmp_path


def test_market_has_thirty_queries_with_the_ages_last():
    assert len(MARKET_CLASSES) == 30
    assert MARKET_CLASSES[:4] == ("backpack", "bag", "handbag", "lower_black")
    assert MARKET_CLASSES[26:] == ("age_young", "age_teenager", "age_adult", "age_old")


def test_market_crop_has_the_attributes_of_its_identity(dev_data):
    dataset = load_dataset("market1501_attributes_train", dev_data)
    fields = scipy.io.loadmat(dev_data / "Market-1501_Attribute" / "market_attribute.mat", squeeze_me=True)
    part = fields["market_attribute"]["train"].item()
    row = list(part["image_index"].item()).index("0027")
    values = dict(zip(dataset.classes, dataset.records[1].label.values.tolist(), strict=True))
    assert dataset.records[1].id == "0027_c2s2_091032_02"
    for name, column in (("female", "gender"), ("upper_white", "upwhite"), ("short_sleeve", "up"), ("bag", "bag")):
        assert values[name] == int(part[column].item()[row] == 2)
    ages = [values[name] for name in MARKET_CLASSES[26:]]
    assert ages.index(1) + 1 == part["age"].item()[row]
    assert sum(ages) == 1


def test_market_columns_are_found_by_name_as_the_test_part_orders_them_otherwise(market_root):
    dataset = load_dataset("market1501_attributes_test", market_root)
    (record,) = dataset.records
    part = scipy.io.loadmat(market_root / "Market-1501_Attribute" / "market_attribute.mat", squeeze_me=True)
    part = part["market_attribute"]["test"].item()
    assert list(part["image_index"].item()).index("0001") == 0
    values = dict(zip(dataset.classes, record.label.values.tolist(), strict=True))
    colours = [name for name in values if name.startswith(("upper_", "lower_"))]
    for name in colours:
        field = name.replace("upper_", "up").replace("lower_", "down")
        assert values[name] == int(part[field].item()[0] == 2)


def test_market_junk_distractors_and_unknown_people_are_counted(market_root):
    dataset = load_dataset("market1501_attributes_test", market_root)
    assert dataset.skipped == {"junk or distractor": 2, "person without attributes": 1}
