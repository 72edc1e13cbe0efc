"""The command that fills a keypoint index: by a task of ours, by ONNX models, from released keypoints."""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import extract_keypoints

from unihap.checkpoints.files import save_weights
from unihap.data.crops import pose_transform
from unihap.data.images import read_image
from unihap.data.keypoint_index import read_index
from unihap.data.loader import TaskDataset, collate
from unihap.engine.checkpoint import base_card, load_model, spec_to_json
from unihap.engine.evaluate import predict_batch
from unihap.engine.extract import encode_nothing, extract
from unihap.engine.onnx_pose import OnnxDetector, OnnxTransform, decode_simcc, simcc_order
from unihap.models.unihap import Architecture
from unihap.structures import Dataset, Label, PoseLabel, Record
from unihap.tasks import TASKS, TaskOptions

SIZE = (64, 48)
TASK = TASKS["coco_pose"]("coco_pose", TaskOptions(input_size=SIZE))


def run(*words):
    return extract_keypoints.main(list(map(str, words)))


def index_of(folder):
    return read_index(folder / "keypoints.npz")


def save_model(folder, encoder):
    """A checkpoint of a tiny random model with two tasks; returns its folder."""
    torch.manual_seed(0)
    architecture = Architecture(encoder, (4, 4), 0.0, 32, 2, 2, 32)
    tasks = {"coco_pose": TASK, "h36m_pose": TASKS["h36m_pose"]("h36m_pose", TaskOptions())}
    model = architecture.make([task.spec for task in tasks.values()])
    cards = {name: {"kind": task.kind, "spec": spec_to_json(task.spec)} for name, task in tasks.items()}
    save_weights(folder / "weights.safetensors", model.state_dict(), base_card(architecture, cards))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("weights"), "vit_pico_patch16")


@pytest.fixture
def folder(tmp_path):
    """Five crops of different sizes."""
    for number in range(5):
        path = tmp_path / "crops" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (50 + number, 20 + 3 * number, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), pixels)
    return tmp_path / "crops"


NAMES = ["0/0.png", "0/2.png", "0/4.png", "1/1.png", "1/3.png"]


def by_weights(folder, weights, *more):
    return run(folder, "--weights", weights, "--input-size", *SIZE, "--batch-size", 2, *more)


# a task of ours


def test_keypoints_are_those_of_the_tasks_evaluation_with_the_whole_crop_as_the_box(folder, weights, capsys):
    assert by_weights(folder, weights) == 0
    index = index_of(folder)
    assert [name.decode() for name in index.names] == NAMES
    assert "5 are new" in capsys.readouterr().out
    assert index.source.startswith("coco_pose of weights.safetensors, sha256 ")
    model = load_model(weights)
    for name, found in zip(NAMES, index.keypoints, strict=True):
        height, width = read_image(folder / name).shape[:2]
        label = PoseLabel(np.zeros((17, 3)), np.array([0.0, 0, width - 1, height - 1]), 0)
        dataset = Dataset("one", "pose", [Record(name, str(folder / name), label)])
        samples = TaskDataset(dataset, TASK.transform(train=False), encode_nothing, seed=0)
        (result,) = predict_batch(model, TASK, collate("coco_pose", [samples[0]]), False, None)
        np.testing.assert_allclose(found, result["keypoints"], rtol=1e-4, atol=1e-3)


def test_the_patches_are_those_of_the_checkpoint(folder, tmp_path):
    (tmp_path / "model").mkdir()
    model = save_model(tmp_path / "model", "vit_micro_patch8")
    words = ["--weights", str(model), "--input-size", *map(str, SIZE)]
    detector = extract_keypoints.task_detector(extract_keypoints.parse([str(folder), *words]))
    assert detector.task.encode(PoseLabel(np.zeros((17, 3)), np.array([0.0, 0, 9, 9]), 0), SIZE)["heatmap"].shape == (
        17,
        *(side // 8 * 4 for side in SIZE),
    )
    assert by_weights(folder, model) == 0
    assert len(index_of(folder).names) == len(NAMES)


def test_what_the_index_has_is_left_alone(folder, weights, capsys):
    assert by_weights(folder, weights) == 0
    first = (folder / "keypoints.npz").read_bytes()
    assert by_weights(folder, weights) == 0
    assert (folder / "keypoints.npz").read_bytes() == first
    assert "5 crops were there, 0 are new" in capsys.readouterr().out
    (folder / "new.png").write_bytes((folder / NAMES[0]).read_bytes())
    assert by_weights(folder, weights) == 0
    assert "5 crops were there, 1 are new" in capsys.readouterr().out
    index = index_of(folder)
    np.testing.assert_allclose(index.keypoints[-1], index.keypoints[0], atol=1e-3)


class Detector:
    """Says how many crops it has seen, and fails when it is told to."""

    name = "counter"
    source = "counter"

    def __init__(self, fail_at=None):
        self.transform = OnnxTransform(SIZE, udp=True)
        self.seen = 0
        self.fail_at = fail_at

    def __call__(self, batch):
        if self.seen == self.fail_at:
            raise KeyboardInterrupt
        self.seen += len(batch)
        return np.stack([np.full((17, 3), int(Path(record.id).stem)) for record in batch.records]).astype(float)


@pytest.mark.parametrize("save_period", [0.0, 300.0])
def test_a_run_that_is_stopped_goes_on_where_it_was(folder, save_period):
    path = folder / "keypoints.npz"
    stopped, after = Detector(fail_at=2), Detector()
    with pytest.raises(KeyboardInterrupt):
        extract(folder, NAMES, path, stopped, batch_size=2, save_period=save_period)
    assert [name.decode() for name in read_index(path).names] == NAMES[:2]
    done = extract(folder, NAMES, path, after, batch_size=2, save_period=save_period)
    assert (done.num_known, done.num_new, after.seen) == (2, 3, 3)
    index = read_index(path)
    assert [name.decode() for name in index.names] == NAMES
    assert index.keypoints[:, 0, 0].tolist() == [0, 2, 4, 1, 3]


def test_crops_below_the_lowest_score_have_nobody(folder):
    done = extract(folder, NAMES, folder / "k.npz", Detector(), min_score=2.0)
    index = read_index(folder / "k.npz")
    assert index.has_person.tolist() == [False, True, True, False, True]
    assert index.keypoints[0, 0].tolist() == [-1, -1, 0]
    assert done.num_without_person == 2


def test_numbers_that_are_not_finite_end_the_run(folder):
    class Broken(Detector):
        def __call__(self, batch):
            return np.full((len(batch), 17, 3), np.nan)

    with pytest.raises(RuntimeError, match=r"not finite for .*0\.png"):
        extract(folder, NAMES, folder / "k.npz", Broken())


def test_unreadable_crops_are_counted_and_tried_again_next_time(folder, weights, capsys):
    sound = (folder / NAMES[1]).read_bytes()
    (folder / NAMES[1]).write_bytes(b"no image")
    assert by_weights(folder, weights) == 0
    assert "1 crops cannot be read: 0/2.png" in capsys.readouterr().out
    assert len(index_of(folder)) == 4
    (folder / NAMES[1]).write_bytes(sound)
    assert by_weights(folder, weights) == 0
    assert len(index_of(folder)) == 5


def test_unreadable_crops_may_be_an_error_and_nothing_but_them_is_one(folder, weights, capsys):
    (folder / NAMES[1]).write_bytes(b"no image")
    assert by_weights(folder, weights, "--on-bad-image", "error") == 1
    assert "0/2.png" in capsys.readouterr().err
    for name in NAMES:
        (folder / name).write_bytes(b"no image")
    assert by_weights(folder, weights, "--out", folder / "other.npz") == 1


def test_an_index_of_another_detector_is_refused(folder, weights, capsys):
    extract(folder, NAMES[:3], folder / "keypoints.npz", Detector())
    assert by_weights(folder, weights) == 2
    assert "begun by counter, not by coco_pose of weights.safetensors" in capsys.readouterr().err
    assert len(index_of(folder)) == 3


def test_a_list_and_a_fraction_choose_the_crops(folder, weights):
    (folder / "best.txt").write_text("\n".join(reversed(NAMES)))
    assert by_weights(folder / "best.txt", weights, "--fraction", 0.5, "--float16", "--flip") == 0
    index = index_of(folder)
    assert [name.decode() for name in index.names] == ["1/3.png", "1/1.png"]
    assert index.keypoints.dtype == np.float16
    assert index.source.endswith(", flipped")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of the arguments --weights --onnx --legacy is required"),
        (["--weights", "missing"], "no weights at missing"),
        (["--weights", "W", "--task", "coco_poes"], "unknown task 'coco_poes'; did you mean coco_pose"),
        (["--weights", "W", "--task", "h36m_pose"], "h36m_pose does not predict COCO's keypoints"),
        (["--weights", "W", "--task", "lip_parsing"], "lip_parsing does not predict COCO's keypoints"),
        (["--weights", "W", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--weights", "W", "--fraction", "2"], "must be above 0 and at most 1, got 2"),
        (["--weights", "W", "--input-size", "0", "4"], "--input-size must be two sizes in pixels"),
        (["--onnx", "missing.onnx"], "no ONNX model missing.onnx"),
        (["--legacy", "missing"], "no folder of keypoints missing"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(folder, weights, capsys, words, message):
    words = [str(weights) if word == "W" else word for word in words]
    try:
        status = run(folder, *words)
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "keypoints.npz").exists()


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path, weights, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "missing", "--weights", weights) == 2
    assert run(tmp_path / "empty", "--weights", weights) == 2
    assert "the folder is empty" in capsys.readouterr().err


def test_released_keypoints_become_an_index(folder, tmp_path, capsys):
    content = np.empty((1, 1), object)
    content[0, 0] = {"keypoints": np.full((17, 3), 7.0)}
    (tmp_path / "pose").mkdir()
    np.save(tmp_path / "pose" / "2.npy", content, allow_pickle=True)
    assert run(folder, "--legacy", tmp_path / "pose") == 0
    assert "1 of 5 crops have keypoints" in capsys.readouterr().out
    index = index_of(folder)
    assert index.has_person.tolist() == [False, True, False, False, False]
    assert index.keypoints[1, 0].tolist() == [7, 7, 7]
    assert run(folder, "--legacy", tmp_path / "pose") == 2
    assert "exists; give another --out" in capsys.readouterr().err


# ONNX models


class Session:
    """Stands in for onnxruntime's session: a model that finds the brightest spot."""

    def __init__(self, kind, shape=("batch", 3, 64, 48), num_keypoints=17, dtype="tensor(float)"):
        self.kind = kind
        self.num_keypoints = num_keypoints
        self.inputs = [SimpleNamespace(name="input", type=dtype, shape=list(shape))]
        self.batches = []

    def get_inputs(self):
        return self.inputs

    def get_outputs(self):
        count = {"simcc": 2, "swapped": 2, "heatmap": 1, "maps": 2, "three": 3}[self.kind]
        return [SimpleNamespace(name=f"output{i}") for i in range(count)]

    def run(self, names, feed):
        images = feed["input"].astype(np.float32)
        self.batches.append(images.shape[0])
        grey = images.mean(axis=1)
        grey -= grey.min(axis=(1, 2), keepdims=True)

        def repeated(values):
            return np.repeat(values[:, None], self.num_keypoints, axis=1)

        if self.kind in ("heatmap", "maps"):
            height, width = grey.shape[1:]  # cells whose first and last are the first and last pixels, as in UDP
            rows, columns = (np.linspace(0, n - 1, n // 4).round().astype(int) for n in (height, width))
            maps = [cv2.GaussianBlur(g, (0, 0), 8)[np.ix_(rows, columns)] for g in grey]  # sigma of 2 cells
            heatmap = repeated(np.stack(maps))
            return [heatmap] * len(self.get_outputs())
        x = repeated(np.repeat(grey.max(axis=1), 2, axis=1))  # two bins to a pixel
        y = repeated(np.repeat(grey.max(axis=2), 2, axis=1))
        return [y, x] if self.kind == "swapped" else [x, y]


def spot(path, size, place):
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = 250 * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 3.0**2))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.repeat(image[..., None], 3, axis=2).astype(np.uint8))


@pytest.fixture
def spots(tmp_path):
    """Crops with a bright spot each, and where it is."""
    places = {"a.png": ((120, 50), (20, 30)), "b.png": ((90, 90), (70, 41)), "c.png": ((60, 30), (9, 50))}
    for name, (size, place) in places.items():
        spot(tmp_path / "spots" / name, size, place)
    return tmp_path / "spots", [place for _, place in places.values()]


def detector(kind, **options):
    return OnnxDetector(Session(kind, **options), name="m.onnx", source="m")


@pytest.mark.parametrize(
    ("kind", "num_keypoints", "size", "error"),
    # a pixel of 64 x 48 is up to 2.8 pixels of these crops
    [("simcc", 17, (64, 48), 2.0), ("swapped", 133, (64, 48), 2.0), ("heatmap", 17, (256, 192), 1.0)],
)
def test_both_kinds_of_model_find_a_spot_in_source_pixels(spots, kind, num_keypoints, size, error):
    folder, places = spots
    found = detector(kind, num_keypoints=num_keypoints, shape=("batch", 3, *size))
    extract(folder, ["a.png", "b.png", "c.png"], folder / "k.npz", found)
    index = read_index(folder / "k.npz")
    for keypoints, place in zip(index.keypoints, places, strict=True):
        np.testing.assert_allclose(keypoints[:, :2], [place] * 17, atol=error)
        assert (keypoints[:, 2] > 0.05).all()


def test_simcc_is_decoded_to_the_middle_of_the_highest_bin():
    x, y = np.zeros((1, 2, 96)), np.zeros((1, 2, 128))
    x[0, 0, 21], y[0, 0, 100] = 0.5, 0.75
    x[0, 1, 95], y[0, 1, 0] = 0.9, 0.25
    np.testing.assert_allclose(decode_simcc(x, y, (64, 48))[0], [[10.5, 50, 0.5], [47.5, 0, 0.25]])


def test_rows_and_columns_are_told_apart_by_their_lengths():
    x, y = np.zeros((1, 17, 384)), np.zeros((1, 17, 512))
    assert simcc_order(x, y, (256, 192))[0] is x
    assert simcc_order(y, x, (256, 192))[0] is x
    assert simcc_order(x, y, (256, 256)) is None
    assert simcc_order(x, np.zeros((1, 17, 16, 12)), (256, 192)) is None


def test_the_crop_is_cut_out_as_each_kind_of_model_was_trained():
    """Box 50 x 120, at 48:64 and 1.25 times: region 112.5 x 150 around (25, 60)."""
    image = np.zeros((120, 50, 3), np.uint8)
    plain = OnnxTransform((64, 48), udp=False)(image, Label(), np.random.default_rng(0)).matrix
    np.testing.assert_allclose(plain, [[48 / 112.5, 0, 24 - 25 * 48 / 112.5], [0, 64 / 150, 32 - 60 * 64 / 150]])
    udp = OnnxTransform((64, 48), udp=True)(image, Label(), np.random.default_rng(0)).matrix
    np.testing.assert_allclose(udp, [[47 / 112.5, 0, 23.5 - 25 * 47 / 112.5], [0, 63 / 150, 31.5 - 60 * 63 / 150]])
    ours = pose_transform((64, 48), mirror=(), upper_body=(), train=False)
    label = PoseLabel(np.zeros((17, 3)), np.array([0.0, 0, 50, 120]), 0)
    np.testing.assert_allclose(udp, ours(image, label, np.random.default_rng(0)).matrix)


def test_pixels_are_normalised_rgb(spots):
    found = detector("simcc")
    fed = []
    found.session.run = lambda names, feed: fed.append(feed["input"]) or [np.ones((1, 17, 96)), np.ones((1, 17, 128))]
    record = Record("a", "a.png", Label())
    images = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 64, 48)
    batch = SimpleNamespace(images=images, matrices=np.eye(3)[None, :2], records=[record])
    found(batch)
    np.testing.assert_allclose(
        fed[0][0, :, 0, 0], [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375], rtol=1e-5
    )
    assert fed[0].dtype == np.float32


def test_a_model_of_a_fixed_batch_gets_batches_of_its_size(spots):
    folder, places = spots
    found = detector("simcc", shape=(2, 3, 64, 48), dtype="tensor(float16)")
    extract(folder, ["a.png", "b.png", "c.png"], folder / "k.npz", found)
    assert found.session.batches == [2, 2]
    np.testing.assert_allclose(read_index(folder / "k.npz").keypoints[2, 0, :2], places[2], atol=2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "three"}, r"one output \(heatmaps\) or two \(SimCC x and y\), not 3: output0, output1, output2"),
        ({"kind": "simcc", "dtype": "tensor(uint8)"}, r"images \(B, 3, H, W\) of floats, not input tensor.uint8"),
        ({"kind": "simcc", "shape": (1, 128)}, "must have one input of images"),
        ({"kind": "simcc", "shape": (1, 3, "h", "w")}, "leaves the size of its input open .* give --input-size H W"),
    ],
)
def test_models_of_another_kind_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        detector(**options)


def test_an_input_size_fills_what_is_open_and_may_not_contradict():
    session = Session("simcc", shape=(1, 3, "h", "w"))
    assert OnnxDetector(session, name="m", source="m", input_size=(64, 48)).size == (64, 48)
    with pytest.raises(ValueError, match=r"takes inputs of \[64, 48\] pixels, not \[256, 192\]"):
        OnnxDetector(Session("simcc"), name="m", source="m", input_size=(256, 192))


@pytest.mark.parametrize(
    ("kind", "num_keypoints", "message"),
    [
        ("simcc", 14, r"answers \(3, 14, 96\), \(3, 14, 128\); its keypoints must begin"),
        ("maps", 17, "neither heatmaps"),
    ],
)
def test_answers_of_another_kind_are_refused(spots, kind, num_keypoints, message):
    folder, _ = spots
    with pytest.raises(ValueError, match=message):
        extract(folder, ["a.png", "b.png", "c.png"], folder / "k.npz", detector(kind, num_keypoints=num_keypoints))


def test_without_onnxruntime_the_command_says_how_to_get_it(spots, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "m.onnx").write_bytes(b"a model")
    assert run(spots[0], "--onnx", tmp_path / "m.onnx") == 1
    assert "pip install onnxruntime" in capsys.readouterr().err


class NotAModelError(Exception):
    pass


@pytest.fixture
def runtime(monkeypatch):
    """A module onnxruntime whose sessions are stand-ins, but for files that are no model."""
    faults = types.ModuleType("onnxruntime.capi.onnxruntime_pybind11_state")
    for name in ("Fail", "InvalidProtobuf", "InvalidGraph", "NotImplemented", "NoModel"):
        setattr(faults, name, NotAModelError)
    runtime, capi = types.ModuleType("onnxruntime"), types.ModuleType("onnxruntime.capi")

    def session(path, providers):
        if Path(path).read_bytes() != b"a model":
            raise NotAModelError("protobuf parsing failed")
        return Session("simcc")

    runtime.InferenceSession, runtime.get_available_providers, runtime.capi = session, lambda: ["CPU"], capi
    capi.onnxruntime_pybind11_state = faults
    for module in (runtime, capi, faults):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_command_runs_an_onnx_model(spots, runtime, tmp_path, capsys):
    folder, places = spots
    (tmp_path / "m.onnx").write_bytes(b"a model")
    assert run(folder, "--onnx", tmp_path / "m.onnx") == 0
    index = index_of(folder)
    np.testing.assert_allclose(index.keypoints[:, 3, :2], places, atol=2.0)
    assert index.source == "m.onnx, sha256 97ff8a35544d"
    (tmp_path / "other.onnx").write_bytes(b"no model")
    assert run(folder, "--onnx", tmp_path / "other.onnx") == 2
    assert "is no ONNX model that onnxruntime can run (protobuf parsing failed)" in capsys.readouterr().err
