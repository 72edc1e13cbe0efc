import io
import logging
import os
import pickle

import numpy as np
import pytest

from unihap.data.keypoint_index import (
    KeypointIndex,
    LegacyKeypoints,
    as_names,
    convert_legacy,
    make_index,
    read_index,
    read_legacy,
    write_index,
)
from unihap.data.restricted_pickle import BadPickleError, read_object_array, read_plain


def person(number=0):
    points = np.random.default_rng(number).uniform(0, 100, (17, 3))
    return points.astype(np.float32)


# the packed index


@pytest.mark.parametrize(("precision", "error"), [("float32", 0), ("float16", 0.04)])
def test_an_index_comes_back_as_it_was_written(tmp_path, precision, error):
    write_index(tmp_path / "new" / "k.npz", make_index(["a/1.jpg", "ü.png"], [person(), None], precision, "me"))
    index = read_index(tmp_path / "new" / "k.npz")
    assert [name.decode() for name in index.names] == ["a/1.jpg", "ü.png"]
    assert index.keypoints.dtype == precision
    np.testing.assert_allclose(index.keypoints[0], person(), atol=error)
    assert index.keypoints[1].tolist() == [[-1, -1, 0]] * 17
    assert index.has_person.tolist() == [True, False]
    assert index.source == "me"
    assert os.listdir(tmp_path / "new") == ["k.npz"]


def test_text_names_without_flags_mean_everybody_is_there(tmp_path):
    np.savez_compressed(tmp_path / "k.npz", names=np.array(["a.jpg", "bb.jpg"]), keypoints=np.zeros((2, 17, 3), "f4"))
    index = read_index(tmp_path / "k.npz")
    assert index.names.tolist() == [b"a.jpg", b"bb.jpg"]
    assert index.has_person.all()
    assert index.source == ""


def test_rows_are_found_by_name_in_any_order():
    index = make_index(["b", "a", "cc"], [person(i) for i in range(3)])
    assert index.rows(as_names(["cc", "c", "a", "zzz", "", "b"])).tolist() == [2, -1, 1, -1, -1, 0]
    assert index.rows(index.names).tolist() == [0, 1, 2]
    assert make_index([], []).rows(as_names(["a"])).tolist() == [-1]


def test_an_index_grows_by_another(tmp_path):
    index = make_index([], [], "float16", "me").extended(make_index(["b.jpg"], [None]))
    index = index.extended(make_index(["a longer name.jpg"], [person(1)]))
    assert index.names.tolist() == [b"b.jpg", b"a longer name.jpg"]
    assert index.keypoints.dtype == np.float16
    assert index.has_person.tolist() == [False, True]
    assert index.source == "me"


def test_a_write_that_is_killed_leaves_the_old_index(tmp_path, monkeypatch):
    path = tmp_path / "k.npz"
    write_index(path, make_index(["a.jpg"], [person()]))

    def half(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        write_index(path, make_index(["b.jpg"], [None]))
    assert read_index(path).names.tolist() == [b"a.jpg"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keypoints": np.zeros((1, 16, 3), "f4")}, r"k.npz: keypoints must be \(1, 17, 3\).*not \(1, 16, 3\)"),
        ({"keypoints": np.zeros((1, 17, 3), "f8")}, "not .* of float64"),
        ({"names": np.array(["a", "a"]), "keypoints": np.zeros((2, 17, 3), "f4")}, "a occurs twice"),
        ({"names": np.zeros(1)}, r"names must be a list of paths, not \(1,\) of float64"),
        ({"has_person": np.ones(2, bool)}, r"has_person must be \(1,\) bool"),
        ({"keypoints": np.array([{}])}, "k.npz is no keypoint index .Object arrays cannot be loaded"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, arrays, message):
    sound = {"names": np.array(["a"]), "keypoints": np.zeros((1, 17, 3), "f4")}
    np.savez(tmp_path / "k.npz", **{**sound, **arrays})
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path / "k.npz")


@pytest.mark.parametrize("content", [b"", b"no index", pickle.dumps([1])])
def test_a_file_that_is_no_index_is_refused(tmp_path, content):
    (tmp_path / "k.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"k\.npz is no keypoint index .*extract_keypoints\.py"):
        read_index(tmp_path / "k.npz")


def test_a_missing_index_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no keypoint index .*extract_keypoints\.py"):
        read_index(tmp_path / "k.npz")


def test_impossible_indices_are_not_made(tmp_path):
    with pytest.raises(ValueError, match="float16, float32, not 'float64'"):
        make_index(["a"], [None], "float64")
    with pytest.raises(ValueError, match="a occurs twice"):
        make_index(["a", "a"], [None, None])
    broken = KeypointIndex(as_names(["a"]), np.zeros((2, 17, 3), np.float32), np.ones(1, bool))
    with pytest.raises(ValueError, match="keypoints must be"):
        write_index(tmp_path / "k.npz", broken)


# one .npy for each image


def objects(*items, shape=None):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape or (len(items),))


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)
    return path


RESULT = {"bbox": np.array([0, 0, 10, 20, 0.9], np.float32), "keypoints": person(3), "score": np.float32(0.5)}


@pytest.mark.parametrize(
    "content",
    [
        objects([RESULT], []),  # what mmpose returns: people, and maps that were not asked for
        objects(RESULT, {"heatmap": np.zeros((1, 2, 2))}, shape=(2, 1)),
        objects(RESULT, shape=(1, 1)),
        objects([RESULT, {"keypoints": person(4)}], []),  # two people: the first
        objects({"keypoints": person(3).astype(np.float64)}, shape=()),
        objects([{"keypoints": np.asfortranarray(person(3))}], []),
        objects([{"keypoints": person(3).astype(">f4")}], []),
        person(3),
    ],
)
def test_the_first_person_of_a_released_file_is_read(tmp_path, content):
    keypoints = read_legacy(save(tmp_path / "a.npy", content))
    assert keypoints.dtype == np.float32
    np.testing.assert_array_equal(keypoints, person(3))


def test_files_of_older_numpy_versions_are_read(tmp_path):
    path = save(tmp_path / "a.npy", objects([RESULT], []))
    file = io.BytesIO(path.read_bytes())
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    header = file.getvalue()[: file.tell()]
    content = pickle.dumps(objects([RESULT], []), protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.")
    assert b"numpy.core.multiarray" in content
    path.write_bytes(header + content)
    np.testing.assert_array_equal(read_legacy(path), person(3))


def test_released_keypoints_are_those_that_numpy_reads(dev_data):
    paths = sorted((dev_data / "luperson" / "LUPerson-pose").glob("*.npy"))
    assert len(paths) > 100
    for path in paths:
        np.testing.assert_array_equal(read_legacy(path), np.load(path, allow_pickle=True)[0][0]["keypoints"])


@pytest.mark.parametrize("content", [objects([], []), np.empty(0, object), np.empty((0, 17, 3), object)])
def test_a_file_without_a_person_gives_none(tmp_path, content):
    assert read_legacy(save(tmp_path / "a.npy", content)) is None
    (tmp_path / "empty.npy").touch()
    assert read_legacy(tmp_path / "empty.npy") is None


class Call:
    """Pickled as a call of a function, which plain ``pickle`` makes when it reads."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


RECONSTRUCT = np.array(1).__reduce__()[0]


def array_of(dtype, shape, content):
    """A pickled array with any state."""
    return Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, content))


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path):
    sign = tmp_path / "sign"
    malice = Call(os.system, f"touch {sign}")
    path = save(tmp_path / "a.npy", objects([{"keypoints": malice}], []))
    np.load(path, allow_pickle=True)
    assert sign.exists()  # it works where pickles are obeyed
    sign.unlink()
    with pytest.raises(BadPickleError, match=r"a\.npy is refused: it asks for (posix|nt)\.system"):
        read_legacy(path)
    (tmp_path / "list.pkl").write_bytes(pickle.dumps(["a.jpg", malice]))
    with pytest.raises(BadPickleError, match=r"list\.pkl is refused: it asks for (posix|nt)\.system"):
        read_plain(tmp_path / "list.pkl")
    assert not sign.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Call(eval, "1"), r"asks for builtins\.eval"),
        (Call(getattr, "", "format"), r"asks for builtins\.getattr"),
        (Call(np.load, "x"), r"asks for numpy.*load"),
        (np.dtype, "holds more than data"),
        (array_of(np.dtype("O"), (1,), b"\x41" * 8), "another length than it says"),  # made-up pointers
        (array_of(np.dtype("O"), (2,), [1]), "another length than it says"),
        (array_of(np.dtype("f4"), (1000,), b"\0" * 8), "another length than it says"),
        (array_of(np.dtype("f4"), (-1,), b"\0" * 4), "broken array"),
        (array_of(np.dtype([("a", "O")]), (1,), b"\x41" * 8), "values of the type 'V8'"),
        (array_of(np.dtype("U3"), (1,), b"\0" * 12), "values of the type 'U3'"),
    ],
)
def test_whatever_is_more_than_data_is_refused(tmp_path, content, message):
    path = save(tmp_path / "a.npy", objects([{"keypoints": content}], []))
    with pytest.raises(BadPickleError, match=message):
        read_legacy(path)


def test_a_file_that_holds_itself_is_refused(tmp_path):
    endless: list = []
    endless.append(endless)
    with pytest.raises(BadPickleError, match="holds itself"):
        read_legacy(save(tmp_path / "a.npy", objects(endless)))


def test_what_is_in_many_places_is_unwrapped_once(tmp_path):
    many: list = [person()]
    for _ in range(5):
        many = [many] * 1000  # 10^15 arrays
    value = read_object_array(save(tmp_path / "a.npy", objects({"a": many})))
    for _ in range(5):
        many = value[0]["a"] if isinstance(value[0], dict) else value[999]
        value = many
        assert len(many) == 1000


@pytest.mark.parametrize(
    "content",
    [b"nothing", b"\x93NUMPY\x01\x00", np.zeros(3), objects([{"keypoints": np.zeros((16, 3))}], []), objects([{}], [])],
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)
    with pytest.raises(BadPickleError, match=r"a\.npy (is no \.npy file|holds no keypoints \(17, 3\)).*fetch it again"):
        read_legacy(path)


def test_a_file_cut_off_is_refused(tmp_path):
    path = save(tmp_path / "a.npy", objects([RESULT], []))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadPickleError, match=r"a\.npy is refused"):
        read_legacy(path)


# a folder of them


@pytest.fixture
def released(tmp_path):
    save(tmp_path / "sub" / "1.npy", objects([{"keypoints": person(1)}], []))
    save(tmp_path / "2.npy", objects([{"keypoints": person(2)}], []))
    save(tmp_path / "3.npy", objects([], []))
    return tmp_path


def test_a_crop_is_found_by_its_path_or_flat_by_its_name(released):
    legacy = LegacyKeypoints(released)
    np.testing.assert_array_equal(legacy.find("sub/1.jpg"), person(1))
    np.testing.assert_array_equal(legacy.find("any/where/2.jpeg"), person(2))
    assert legacy.find("3.jpg") is None
    assert legacy.find("4.jpg") is None


def test_a_folder_becomes_an_index_and_crops_without_keypoints_are_counted(released, caplog):
    with caplog.at_level(logging.WARNING):
        index = convert_legacy(released, ["sub/1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    assert "2 of 4 crops have no keypoints" in caplog.text
    assert index.has_person.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(index.keypoints[1], person(2))


def test_a_folder_of_other_crops_is_refused(released, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"keypoints for none of the 1 crops, e\.g\. 9\.jpg"):
        convert_legacy(released, ["9.jpg"])
    with pytest.raises(FileNotFoundError, match="no folder of keypoints"):
        convert_legacy(tmp_path / "missing", ["9.jpg"])
