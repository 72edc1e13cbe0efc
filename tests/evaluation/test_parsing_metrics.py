import json
import math
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation import parsing
from unihap.evaluation.parsing import confusion_matrix, segmentation_metrics
from unihap.structures import Dataset, ParsingLabel, Record

MAPS = {
    "a.png": np.array([[0, 0, 1], [0, 255, 1]], dtype=np.uint8),
    "b.png": np.array([[0, 0, 0, 2]], dtype=np.uint8),
}


@pytest.fixture
def data() -> Dataset:
    records = [Record(name, name, ParsingLabel(name)) for name in MAPS]
    return Dataset("toy_val", "parsing", records, classes=("ground", "hat", "bag", "coat"), read_label_map=MAPS.get)


def test_confusion_counts_rows_of_truth_and_columns_of_prediction():
    table = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_ignored_pixels_do_not_count_whatever_is_predicted_there():
    assert confusion_matrix(np.array([255, 1]), np.array([77, 1]), 2).tolist() == [[0, 0], [0, 1]]
    assert confusion_matrix(np.array([9, 1]), np.array([0, 1]), 2, ignore=9).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 1], [0], r"truth \(2,\), prediction \(1,\)"),
        ([0, 2], [0, 0], "truth holds class 2 on 1 pixels; classes are 0-1"),
        ([0, 1], [5, 255], "prediction holds class 5 on 2 pixels"),
        ([0, -1], [0, 0], "truth holds class -1"),
    ],
)
def test_maps_that_do_not_fit_are_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(prediction), 2)


def test_perfect_prediction_scores_100():
    result = segmentation_metrics(np.diag([5, 3]))
    assert result == {"mIoU": 100.0, "pixel_accuracy": 100.0, "mean_accuracy": 100.0, "IoU": [100.0, 100.0]}


def test_everything_wrong_scores_0():
    result = segmentation_metrics(np.array([[0, 4], [6, 0]]))
    assert result == {"mIoU": 0.0, "pixel_accuracy": 0.0, "mean_accuracy": 0.0, "IoU": [0.0, 0.0]}


def test_hand_computed_table():
    # IoU: 3 / (4 + 5 - 3) and 4 / (6 + 5 - 4); accuracies 3/4 and 4/6
    result = segmentation_metrics(np.array([[3, 1], [2, 4]]))
    assert result["IoU"] == pytest.approx([50, 100 * 4 / 7])
    assert result["mIoU"] == pytest.approx((50 + 100 * 4 / 7) / 2)
    assert result["pixel_accuracy"] == pytest.approx(70)
    assert result["mean_accuracy"] == pytest.approx(100 * (3 / 4 + 4 / 6) / 2)


def test_a_class_that_is_only_predicted_is_not_averaged_but_takes_pixels_away():
    result = segmentation_metrics(np.array([[6, 0, 2], [0, 2, 0], [0, 0, 0]]))
    assert result["mIoU"] == pytest.approx((75 + 100) / 2)
    assert math.isnan(result["IoU"][2])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((2, 2), int), "2 classes holds no pixel"),
        (np.ones((2, 3), int), r"shape \(2, 3\); expected a square"),
        (np.array([[1, -1], [0, 1]]), "the count -1"),
        (np.array([[1, 0.5], [0, 1]]), "hold 0.5"),
        (np.array([[1, np.nan], [0, 1]]), "hold nan"),
        (np.ones(4, int), "expected 2 axes"),
    ],
)
def test_impossible_tables_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(table)


def test_summary_adds_the_tables_of_all_images_in_any_order(data):
    predictions = [np.array([[0, 1, 1], [0, 0, 1]]), np.array([[0, 0, 0, 0]])]
    made = [parsing.row({"label_map": p}, r, data) for p, r in zip(predictions, data.records, strict=True)]
    assert json.loads(json.dumps(made)) == made
    result = parsing.summary(made[::-1], data)
    # pixels: ground 6 (5 right, 1 called hat), hat 2 right, bag 1 called ground
    assert result == pytest.approx(
        {
            "mIoU": 100 * (5 / 7 + 2 / 3 + 0) / 3,
            "pixel_accuracy": 100 * 7 / 9,
            "mean_accuracy": 100 * (5 / 6 + 1 + 0) / 3,
            "IoU/ground": 100 * 5 / 7,
            "IoU/hat": 100 * 2 / 3,
            "IoU/bag": 0,
        }
    )


def test_the_label_map_of_the_record_is_used_when_it_was_read_already(data):
    record = Record("a.png", "a.png", ParsingLabel("missing.png", label_map=np.array([[3]])))
    assert parsing.row({"label_map": np.array([[3]])}, record, data)["cells"] == [15]


def test_a_result_of_another_size_is_refused_with_its_record(data):
    with pytest.raises(ValueError, match=r"toy_val, record a.png: shapes differ: truth \(2, 3\), prediction \(2, 2\)"):
        parsing.row({"label_map": np.zeros((2, 2), int)}, data.records[0], data)


def test_chance_is_what_an_empty_background_scores(data):
    made = [parsing.row({"label_map": 0 * MAPS[r.id]}, r, data) for r in data.records]
    assert parsing.chance(data) == {"mIoU": pytest.approx(parsing.summary(made, data)["mIoU"])}
    assert parsing.chance(data)["mIoU"] == pytest.approx(100 * 6 / 9 / 3)


@pytest.mark.parametrize("case", ["A_pred_as_stored", "B_pred_with_classes_3_and_4_set_to_0"])
def test_parsing_agrees_with_detectron2(golden: Path, case: str):
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["parsing"]["expected"][case]["detectron2"]
    table = np.zeros((20, 20), dtype=np.int64)
    with np.load(golden / "metrics" / "parsing_maps.npz") as f:
        for i in range(5):
            prediction = f[f"pred_{i}"]
            if case.startswith("B"):
                prediction = np.where(np.isin(prediction, (3, 4)), 0, prediction)
            table += confusion_matrix(f[f"gt_{i}"], prediction, 20)
    result = segmentation_metrics(table)
    assert result["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-6)
    assert result["pixel_accuracy"] == pytest.approx(expected["pixel_acc"], abs=1e-6)
    assert result["mean_accuracy"] == pytest.approx(expected["mean_acc"], abs=1e-6)
    # null in the reference: the class does not occur in the truth
    wanted = [math.nan if v is None else v for v in expected["IoU"].values()]
    assert result["IoU"] == pytest.approx(wanted, abs=1e-6, nan_ok=True)
