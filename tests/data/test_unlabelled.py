import logging
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import pytest

from unihap.data.catalog import load_dataset
from unihap.data.crop_records import CropLabel, CropRecords, JoinedRecords, is_packed
from unihap.data.keypoint_index import make_index, write_index
from unihap.data.loader import TaskDataset
from unihap.data.restricted_pickle import BadPickleError
from unihap.data.unlabelled import (
    find_images,
    join,
    load_unlabelled,
    read_list,
    take,
)
from unihap.structures import Dataset, Label, Record


def crop(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((8, 4, 3), np.uint8))


def person(number):
    return np.full((17, 3), number, np.float32)


def names_of(dataset):
    return [record.id for record in dataset.records]


@pytest.fixture
def folder(tmp_path):
    """Four crops in folders, and files that are none."""
    base = tmp_path / "crops"
    for name in ("b.png", "a/2.jpg", "a/1.JPG", "a/deep/0.jpeg"):
        crop(base / name)
    (base / "a" / "notes.txt").write_text("no image")
    return base


# which images


def test_images_are_found_in_all_folders_and_sorted(folder):
    assert find_images(folder) == ["a/1.JPG", "a/2.jpg", "a/deep/0.jpeg", "b.png"]


def test_links_are_followed_and_circles_end(folder, tmp_path):
    crop(tmp_path / "elsewhere" / "z.jpg")
    os.symlink(tmp_path / "elsewhere", folder / "link")
    os.symlink(folder, folder / "a" / "circle")
    assert find_images(folder) == ["a/1.JPG", "a/2.jpg", "a/deep/0.jpeg", "b.png", "link/z.jpg"]


def test_a_folder_without_images_names_its_section(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r'no images in the folder: .* see "Folders of crops"'):
        find_images(tmp_path)


def test_lists_are_text_or_pickles_and_keep_their_order(tmp_path):
    (tmp_path / "a.txt").write_text("z.jpg\n\n a/b c.jpg \n")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(["z.jpg", "a.jpg"]))
    assert read_list(tmp_path / "a.txt") == ["z.jpg", "a/b c.jpg"]
    assert read_list(tmp_path / "a.pkl") == ["z.jpg", "a.jpg"]


class Malice:
    def __reduce__(self):
        return os.mkdir, ("malice",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([Malice()]), r"a\.pkl is refused: it asks for (posix|nt)\.mkdir"),
        (pickle.dumps(np.array(["a"])), r"a\.pkl is refused: it asks for numpy"),
        (b"a.jpg\nb.jpg\n", r"a\.pkl is refused"),
    ],
)
def test_a_list_that_is_more_than_data_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(BadPickleError, match=message):
        read_list(tmp_path / "a.pkl")
    assert not (tmp_path / "malice").exists()


@pytest.mark.parametrize("content", [{"a": 1}, ["a", 1], "a.jpg"])
def test_a_pickle_of_something_else_is_no_list(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="no list of paths"):
        read_list(tmp_path / "a.pkl")


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([]))
    (tmp_path / "a.txt").write_text("\n")
    for name in ("a.pkl", "a.txt"):
        with pytest.raises(FileNotFoundError, match="the list is empty"):
            read_list(tmp_path / name)


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(7, 0.5, 3), (7, 1.0, 7), (10, 0.29, 2), (100, 0.29, 28), (4, 0.25, 1)]
)
def test_a_fraction_is_the_first_names_rounded_down(count, fraction, expected):
    names = [str(number) for number in range(count)]
    assert take(names, fraction) == names[:expected]


def test_a_number_of_samples_wins_over_the_fraction():
    assert take(["a", "b", "c"], 1.0, 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("fraction", "num_samples", "message"),
    [
        (0.0, 0, "fraction of here must be above 0 and at most 1, got 0"),
        (1.5, 0, "at most 1, got 1.5"),
        (float("nan"), 0, "got nan"),
        (0.1, 0, "fraction 0.1 of the 3 images of here is not one image"),
        (1.0, 4, "cannot take 4 of the 3 images of here"),
        (1.0, -1, "cannot take -1"),
    ],
)
def test_impossible_shares_are_refused(fraction, num_samples, message):
    with pytest.raises(ValueError, match=message):
        take(["a", "b", "c"], fraction, num_samples, "here")


# folders


def test_a_folder_without_an_index_has_crops_without_keypoints(folder, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load_unlabelled(str(folder), folder.parent)
    assert dataset.kind == "unlabelled"
    assert names_of(dataset) == find_images(folder)
    assert all(os.path.isfile(record.image) for record in dataset.records)
    assert all(record.label == CropLabel(None) for record in dataset.records)
    assert "4 of 4 crops have no keypoints" in caplog.text


def test_keypoints_come_from_the_index_by_name(folder, caplog):
    index = make_index(["b.png", "elsewhere.jpg", "a/1.JPG", "a/2.jpg"], [person(1), person(2), None, person(3)])
    write_index(folder / "keypoints.npz", index)
    with caplog.at_level(logging.WARNING):
        dataset = load_unlabelled("crops", folder.parent)  # a path under the root
    labels = {record.id: record.label.keypoints for record in dataset.records}
    assert labels["a/1.JPG"] is None  # nobody found
    assert labels["a/deep/0.jpeg"] is None  # not in the index
    np.testing.assert_array_equal(labels["a/2.jpg"], person(3))
    np.testing.assert_array_equal(labels["b.png"], person(1))
    assert labels["b.png"].dtype == np.float32
    assert dataset.records.num_without_keypoints == 2
    assert "2 of 4 crops have no keypoints" in caplog.text


def test_an_index_elsewhere_can_be_named(folder, tmp_path):
    write_index(tmp_path / "other.npz", make_index(["b.png"], [person(5)], "float16"))
    dataset = load_unlabelled(str(folder), tmp_path, index=tmp_path / "other.npz")
    np.testing.assert_array_equal(dataset.records[3].label.keypoints, person(5))
    with pytest.raises(FileNotFoundError, match=r"no keypoint index .*missing\.npz"):
        load_unlabelled(str(folder), tmp_path, index=tmp_path / "missing.npz")


def test_an_empty_index_is_an_index(folder):
    write_index(folder / "keypoints.npz", make_index([], []))
    assert load_unlabelled(str(folder), folder).records.num_without_keypoints == 4


def test_a_list_names_crops_under_its_folder(folder):
    (folder / "best.txt").write_text("b.png\na/2.jpg\na/1.JPG\n")
    dataset = load_unlabelled(str(folder / "best.txt"), folder, fraction=0.7)
    assert names_of(dataset) == ["b.png", "a/2.jpg"]
    assert os.path.isfile(dataset.records[1].image)


def test_a_name_that_is_nothing_gets_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match=r"no crops 'luperson_tain': .*; did you mean luperson_train"):
        load_unlabelled("luperson_tain", tmp_path)


# records


def test_records_are_a_sequence():
    records = CropRecords("f", ["a", "bc", "d"])
    assert [record.id for record in records] == ["a", "bc", "d"]
    assert records[-1].image == "f/d"
    assert [record.id for record in records[1:]] == ["bc", "d"]
    with pytest.raises(IndexError):
        records[3]


def test_worker_processes_share_the_tensors(folder):
    write_index(folder / "keypoints.npz", make_index(["b.png"], [person(1)]))
    dataset = load_unlabelled(str(folder), folder)
    samples = TaskDataset(dataset, len, len, seed=0)
    assert samples.share().dataset.records is dataset.records
    sent = pickle.loads(ForkingPickler.dumps(dataset.records))
    np.testing.assert_array_equal(sent[3].label.keypoints, person(1))
    assert dataset.records._names.is_shared()  # moved there by the first pickling


def test_joined_datasets_follow_each_other_and_ids_stay_apart(folder):
    one = load_unlabelled(str(folder), folder, num_samples=2)
    two = Dataset("labelled_train", "reid", [Record("x", "x.jpg", Label())])
    joined = join([one, two, load_unlabelled("a", folder, fraction=0.5)])
    assert joined.name == f"{folder}+labelled_train+a"
    assert names_of(joined) == [f"{folder}/a/1.JPG", f"{folder}/a/2.jpg", "labelled_train/x", "a/1.JPG"]
    assert joined.records[-2].image == "x.jpg"
    assert [record.id for record in joined.records[2:3]] == ["labelled_train/x"]
    assert isinstance(joined.records, JoinedRecords)
    assert not is_packed(joined.records)  # one of them is a list
    assert is_packed(join([one, load_unlabelled("a", folder)]).records)
    assert join([one]) is one


def test_joining_nothing_or_the_same_twice_is_refused(folder):
    with pytest.raises(ValueError, match=r"set PRETRAIN\.DATASETS"):
        join([])
    with pytest.raises(ValueError, match="the same crops are listed twice"):
        join([load_unlabelled("a", folder)] * 2)


# LUPerson


@pytest.fixture
def luperson(tmp_path):
    base = tmp_path / "luperson"
    for name in ("x/1.jpg", "x/2.jpg"):
        crop(base / "LUPerson-data" / name)
    (base / "cfs_list.pkl").write_bytes(pickle.dumps(["x/2.jpg", "x/1.jpg"]))
    return base


def save_released(path, keypoints):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = np.empty((1, 1), object)
    content[0, 0] = {"keypoints": keypoints}
    np.save(path, content, allow_pickle=True)


def test_luperson_keeps_the_order_of_its_list_and_reads_released_keypoints(luperson):
    save_released(luperson / "LUPerson-pose" / "x" / "2.npy", person(2))
    dataset = load_dataset("luperson_train", luperson.parent)
    assert dataset.name == "luperson_train"
    assert names_of(dataset) == ["x/2.jpg", "x/1.jpg"]
    np.testing.assert_array_equal(dataset.records[0].label.keypoints, person(2))
    assert dataset.records[1].label.keypoints is None
    assert dataset.records.num_without_keypoints is None
    assert names_of(load_unlabelled("luperson_train", luperson.parent, fraction=0.5)) == ["x/2.jpg"]


def test_lupersons_index_goes_before_its_released_keypoints(luperson):
    save_released(luperson / "LUPerson-pose" / "x" / "2.npy", person(2))
    write_index(luperson / "keypoints.npz", make_index(["x/1.jpg", "x/2.jpg"], [person(7), person(8)]))
    dataset = load_dataset("luperson_train", luperson.parent)
    np.testing.assert_array_equal(dataset.records[0].label.keypoints, person(8))
    assert dataset.records.num_without_keypoints == 0


def test_luperson_may_have_a_text_list_but_must_have_one(luperson):
    (luperson / "cfs_list.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r'neither cfs_list\.pkl nor list\.txt .* see "LUPerson"'):
        load_dataset("luperson_train", luperson.parent)
    (luperson / "list.txt").write_text("x/1.jpg\n")
    assert names_of(load_dataset("luperson_train", luperson.parent)) == ["x/1.jpg"]


@pytest.mark.parametrize(
    ("name", "folder"), [("synth_luperson_train", "synth_mini"), ("synth_b_luperson_train", "synth_b")]
)
def test_rendered_crops_are_read_as_they_are_written(tmp_path, name, folder):
    base = tmp_path / folder / "LUPerson"
    crop(base / "images" / "0000000.jpg")
    (base / "list.txt").write_text("images/0000000.jpg\n")
    np.savez_compressed(base / "keypoints.npz", names=np.array(["images/0000000.jpg"]), keypoints=person(4)[None])
    (record,) = load_dataset(name, tmp_path).records
    assert os.path.isfile(record.image)
    np.testing.assert_array_equal(record.label.keypoints, person(4))


def test_real_crops_have_the_released_keypoints(dev_data):
    dataset = load_dataset("luperson_train", dev_data)
    inside = 0
    for record in dataset.records:
        height, width = cv2.imread(record.image).shape[:2]
        points = record.label.keypoints
        inside += ((points[:, :2] >= 0) & (points[:, :2] < (width, height))).all(axis=1).sum()
    assert inside > 0.7 * 17 * len(dataset.records)
