import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from unihap.data.catalog import load_dataset
from unihap.data.images import BadImageError
from unihap.data.label_maps import LabelMapReader, MergedClasses, check_size
from unihap.data.parsing import h36m_parsing, lip
from unihap.data.parsing_classes import CCP_TO_LIP, H36M_CLASSES, H36M_VALUES, LIP_CLASSES
from unihap.data.skeletons import mirror_pairs


def write_map(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return str(path)


def write_lip(root, images="TrainVal_images", ids=("a", "b"), folder="LIP"):
    base = root / folder
    for number in ids:
        write_map(base / images / "val_images" / f"{number}.jpg", np.zeros((2, 3)))
        write_map(base / "TrainVal_parsing_annotations" / "val_segmentations" / f"{number}.png", [[0, 14, 255]] * 2)
    (base / images / "val_id.txt").write_text("\r\n".join(ids) + "\r\n\r\n")
    return root


@pytest.mark.parametrize("images", ["TrainVal_images", "data"])
def test_lip_is_read_in_both_layouts(tmp_path, images):
    dataset = load_dataset("lip_val", write_lip(tmp_path, images))
    assert [r.id for r in dataset.records] == ["a", "b"]
    assert dataset.records[0].image == str(tmp_path / "LIP" / images / "val_images" / "a.jpg")
    assert dataset.records[0].label.label_map is None
    assert dataset.read_label_map(dataset.records[0].label.path).tolist() == [[0, 14, 255]] * 2


def test_lip_sides_are_mirrored_and_counted_in_query_order(tmp_path):
    dataset = load_dataset("lip_val", write_lip(tmp_path))
    assert len(dataset.classes) == 20
    assert dataset.classes[14] == "left_arm"
    assert dataset.mirror == ((14, 15), (16, 17), (18, 19))


def test_listed_suffixes_and_repetitions_do_no_harm(tmp_path):
    root = write_lip(tmp_path)
    (root / "LIP" / "TrainVal_images" / "val_id.txt").write_text("a.jpg\nb\na\n")
    dataset = load_dataset("lip_val", root)
    assert [r.id for r in dataset.records] == ["a", "b"]
    assert dataset.skipped == {"image listed twice": 1}


def test_class_names_file_replaces_the_classes(tmp_path):
    root = write_lip(tmp_path, folder="ccp_as_lip")
    (root / "ccp_as_lip" / "class_names.json").write_text(json.dumps(["null", "left_shoe", "right_shoe"]))
    dataset = load_dataset("ccp_as_lip_val", root)
    assert dataset.classes == ("null", "left_shoe", "right_shoe")
    assert dataset.mirror == ((1, 2),)
    with pytest.raises(ValueError, match="holds the value 14, but the classes are 0-2"):
        dataset.read_label_map(dataset.records[0].label.path)


def test_missing_parts_are_named(tmp_path):
    root = write_lip(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'no such file: .*train_id\.txt; see "LIP"'):
        load_dataset("lip_train", root)
    (root / "LIP" / "TrainVal_images" / "train_id.txt").write_text("a\n")
    with pytest.raises(FileNotFoundError, match=r'no such folder: .*train_images; see "LIP"'):
        load_dataset("lip_train", root)
    (root / "LIP" / "TrainVal_images" / "val_id.txt").write_text("\n\n")
    with pytest.raises(FileNotFoundError, match="lists no images"):
        load_dataset("lip_val", root)


def test_dense_values_are_kept_and_255_is_ignored(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 3, 255]])
    assert LabelMapReader((0, 1, 2, 3))(path).tolist() == [[0, 3, 255]]


def test_dense_value_beyond_the_classes_is_refused(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 4, 255]])
    with pytest.raises(BadImageError, match=r"a\.png holds the value 4, but the classes are 0-3"):
        LabelMapReader((0, 1, 2, 3))(path)


def test_sparse_values_are_renumbered_and_the_rest_ignored(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 17, 58], [4, 200, 255]])
    assert LabelMapReader((0, 17, 58))(path).tolist() == [[0, 1, 2], [255, 255, 255]]


def test_release_makes_background_of_everything_unlisted(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 17, 58], [4, 200, 255]])
    assert LabelMapReader((0, 17, 58), unlisted="release")(path).tolist() == [[0, 1, 2], [0, 0, 0]]
    assert LabelMapReader((0, 1), unlisted="release")(path).tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="unlisted must be 'ignore' or 'release', got 'background'"):
        LabelMapReader((0, 1), unlisted="background")


def test_adapters_pass_the_choice_on(tmp_path):
    dataset = lip(write_lip(tmp_path), "val", unlisted="release")
    assert dataset.read_label_map(dataset.records[0].label.path).tolist() == [[0, 14, 0]] * 2


def test_merged_classes_may_share_a_number_and_what_was_ignored_stays_so(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 1, 2, 3, 255]])
    merged = MergedClasses(LabelMapReader((0, 1, 2, 3)), (0, 9, 9, 255))
    assert merged(path).tolist() == [[0, 9, 9, 255, 255]]
    assert merged(path).dtype == np.uint8


def test_merging_does_not_hide_a_value_of_another_dataset(tmp_path):
    path = write_map(tmp_path / "a.png", [[0, 4]])
    with pytest.raises(BadImageError, match="holds the value 4, but the classes are 0-3"):
        MergedClasses(LabelMapReader((0, 1, 2, 3)), (0, 9, 9, 255))(path)


def test_label_map_of_another_size_is_refused():
    check_size(np.zeros((2, 3), np.uint8), 2, 3, "a.png")
    with pytest.raises(BadImageError, match=r"a\.png: the label map is 3x2 pixels but its image is 2x3"):
        check_size(np.zeros((2, 3), np.uint8), 3, 2, "a.png")


def test_h36m_parts_have_the_published_pairs():
    raw = [(1, 6), (2, 7), (3, 8), (17, 25), (18, 26), (19, 27), (33, 38), (34, 39), (49, 56), (50, 58)]
    query = {tuple(sorted((H36M_VALUES.index(a), H36M_VALUES.index(b)))) for a, b in raw}
    assert len(H36M_CLASSES) == 25
    assert set(mirror_pairs(H36M_CLASSES)) == query


def test_h36m_lists_name_images_and_their_label_maps_differ_in_one_folder(tmp_path):
    base = tmp_path / "h36m_parsing"
    line = "protocol_1/rgb/s_rgb/1.png"
    write_map(base / "protocol_1/seg/s_rgb/1.png", [[0, 58, 5]])
    (base / "flist_2hz_eval.txt").write_text(line + "\n")
    dataset = h36m_parsing(tmp_path, "val")
    (record,) = dataset.records
    assert record.image == str(base / line)
    assert dataset.read_label_map(record.label.path).tolist() == [[0, 24, 255]]
    (base / "flist_2hz_train.txt").write_text("protocol_1/1.png\n")
    with pytest.raises(ValueError, match=r"flist_2hz_train\.txt line 1: expected a path like protocol_1/rgb"):
        h36m_parsing(tmp_path, "train")


def test_atr_and_vip_pairs(tmp_path):
    base = tmp_path / "ATR"
    write_map(base / "humanparsing/JPEGImages/a.jpg", [[0]])
    write_map(base / "humanparsing/SegmentationClassAug/a.png", [[17]])
    (base / "val_id.txt").write_text("a\n")
    assert load_dataset("atr_val", tmp_path).mirror == ((9, 10), (12, 13), (14, 15))
    base = tmp_path / "VIP"
    write_map(base / "Images/videos1/000001.jpg", [[0]])
    write_map(base / "Annotations/Category_ids/videos1/000001.png", [[10]])
    (base / "train_id.txt").write_text("videos1/000001\n")
    dataset = load_dataset("vip_train", tmp_path)
    assert dataset.classes[10] == "torso_skin"
    assert dataset.read_label_map(dataset.records[0].label.path).tolist() == [[10]]


@pytest.mark.parametrize(
    ("name", "base", "image", "label"),
    [
        ("modanet_train", "ModaNet", "images/1.jpg", "seg/1.png"),
        ("deepfashion2_train", "DeepFashion2", "train/image/1.jpg", "train/seg/1.png"),
    ],
)
def test_datasets_of_clothes_have_fourteen_classes_and_no_sides(tmp_path, name, base, image, label):
    write_map(tmp_path / base / image, [[0]])
    write_map(tmp_path / base / label, [[13]])
    (tmp_path / base / "train_id.txt").write_text("1\n")
    dataset = load_dataset(name, tmp_path)
    assert (len(dataset.classes), dataset.mirror) == (14, ())
    assert dataset.read_label_map(dataset.records[0].label.path).tolist() == [[13]]


def test_ccp_photos_without_a_label_map_are_counted(dev_data, tmp_path):
    base = tmp_path / "ccp"
    (base / "annotations" / "pixel-level").mkdir(parents=True)
    (base / "label_list.mat").symlink_to(dev_data / "ccp" / "label_list.mat")
    write_map(base / "photos" / "0001.jpg", [[0]])
    write_map(base / "photos" / "1500.jpg", [[0]])
    path = base / "annotations" / "pixel-level" / "0001.mat"
    scipy.io.savemat(path, {"groundtruth": np.array([[0, 58]], np.uint8)})
    dataset = load_dataset("ccp_train", tmp_path)
    assert dataset.skipped == {"photo without a label map": 1}
    assert dataset.read_label_map(str(path)).tolist() == [[0, 58]]
    scipy.io.savemat(path, {"groundtruth": np.array([[0.5]])})
    with pytest.raises(ValueError, match=r"0001\.mat: groundtruth must be an array of class numbers"):
        dataset.read_label_map(str(path))
    path.write_bytes(b"MATLAB 5.0 MAT-file, but cut off")
    with pytest.raises(BadImageError, match=r"0001\.mat is not a readable MATLAB file"):
        dataset.read_label_map(str(path))
    path.unlink()
    with pytest.raises(BadImageError, match=r"no such file: .*0001\.mat"):
        dataset.read_label_map(str(path))


def test_ccp_split_is_every_fifth_hundred(dev_data):
    train, val = (load_dataset(f"ccp_{split}", dev_data) for split in ("train", "val"))
    assert {int(r.id) for r in train.records} == set(range(1, 201))
    assert {int(r.id) for r in val.records} == set(range(201, 301))
    assert len(train.classes) == 59
    record = val.records[0]
    label_map = val.read_label_map(record.label.path)
    with Image.open(record.image) as image:
        check_size(label_map, image.height, image.width, record.label.path)


def test_ccp_in_either_layout_is_the_same(dev_data):
    mat, png = load_dataset("ccp_val", dev_data), load_dataset("ccp_as_lip_val", dev_data)
    assert len(png.records) == 8
    assert len(load_dataset("ccp_as_lip_train", dev_data).records) == 28
    assert mat.classes == png.classes
    other = {r.id: r for r in mat.records}
    for record in png.records[:2]:
        np.testing.assert_array_equal(
            png.read_label_map(record.label.path), mat.read_label_map(other[record.id].label.path)
        )


def write_ccp(root, names, values):
    """A photo whose label map holds the values of some of the named classes."""
    base = root / "ccp"
    (base / "annotations" / "pixel-level").mkdir(parents=True)
    scipy.io.savemat(base / "label_list.mat", {"label_list": np.array([list(names)], dtype=object)})
    write_map(base / "photos" / "0001.jpg", [[0]])
    scipy.io.savemat(
        base / "annotations" / "pixel-level" / "0001.mat", {"groundtruth": np.array([values], dtype=np.uint8)}
    )
    return root


def test_ccp_in_lips_classes_goes_by_the_names_of_the_classes(tmp_path):
    names = ["null", "shoes", "t-shirt", "suit", "jeans", "bag", "skin", "jacket", "romper", "scarf", "skirt", "gloves"]
    dataset = load_dataset("ccp_lip_classes_train", write_ccp(tmp_path, names, range(len(names))))
    assert dataset.classes == LIP_CLASSES
    assert dataset.mirror == ((14, 15), (16, 17), (18, 19))
    (record,) = dataset.records
    assert dataset.read_label_map(record.label.path).tolist() == [[0, 255, 5, 7, 9, 0, 255, 7, 10, 11, 12, 3]]


def test_a_list_of_other_classes_is_not_ccp(tmp_path):
    with pytest.raises(ValueError, match=r"label_list\.mat names 'sari', which is no class of CCP"):
        load_dataset("ccp_lip_classes_train", write_ccp(tmp_path, ["null", "sari"], [0, 1]))


def test_every_class_of_ccp_has_one_rule(dev_data):
    own, mapped = load_dataset("ccp_val", dev_data), load_dataset("ccp_lip_classes_val", dev_data)
    assert set(own.classes) == set(CCP_TO_LIP)
    assert len(own.classes) == 59
    # written down by hand from CCP's list, independently of the rules: number in the file -> number in LIP
    wanted = {
        0: 0, 2: 0, 33: 0, 56: 0,  # null, bag, purse, wallet
        20: 1, 19: 2, 18: 3, 47: 4,  # hat, hair, gloves, sunglasses
        5: 5, 26: 5, 38: 5, 48: 5, 49: 5, 51: 5, 54: 5,  # blouse, jumper, shirt, sweater, sweatshirt, t-shirt, top
        14: 6,  # dress
        4: 7, 10: 7, 11: 7, 13: 7, 24: 7, 46: 7,  # blazer, cape, cardigan, coat, jacket, suit
        44: 8, 25: 9, 31: 9, 40: 9,  # socks; jeans, pants, shorts
        35: 10, 37: 11, 42: 12,  # romper, scarf, skirt
    }  # fmt: skip
    assert mapped.read_label_map.classes == tuple(wanted.get(number, 255) for number in range(59))


def test_real_ccp_in_lips_classes_has_the_pixels_of_the_classes_merged(dev_data):
    own, mapped = load_dataset("ccp_val", dev_data), load_dataset("ccp_lip_classes_val", dev_data)
    assert [r.id for r in mapped.records] == [r.id for r in own.records]
    record = mapped.records[0]
    before, after = own.read_label_map(record.label.path), mapped.read_label_map(record.label.path)
    skin, hair = own.classes.index("skin"), own.classes.index("hair")
    assert (before == skin).any()
    assert (after[before == skin] == 255).all()
    np.testing.assert_array_equal(after == LIP_CLASSES.index("hair"), before == hair)
    assert not set(np.unique(after)) & {13, 14, 15, 16, 17, 18, 19}  # face, arms, legs, shoes


@pytest.mark.parametrize(("name", "count"), [("lip_train", 1), ("cihp_train", 2), ("cihp_val", 1)])
def test_real_label_maps_fit_their_images(dev_data, name, count):
    dataset = load_dataset(name, dev_data)
    assert len(dataset.records) == count
    for record in dataset.records:
        label_map = dataset.read_label_map(record.label.path)
        assert label_map.max() < 20
        with Image.open(record.image) as image:
            check_size(label_map, image.height, image.width, record.label.path)
