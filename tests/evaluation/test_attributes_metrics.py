import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from unihap.evaluation import attributes
from unihap.evaluation.attributes import attribute_metrics
from unihap.structures import AttributesLabel, Dataset, Record

NAMES = {"mA", "accuracy", "precision", "recall", "F1"}


def dataset(labels: list[list[int]]) -> Dataset:
    records = [Record(str(i), f"{i}.jpg", AttributesLabel(np.array(v, dtype=np.int8))) for i, v in enumerate(labels)]
    return Dataset("toy_test", "attributes", records, classes=("hat", "bag")[: len(labels[0])])


def test_perfect_probabilities_score_100():
    labels = np.array([[1, 0], [0, 1], [1, 1]])
    assert attribute_metrics(labels, labels * 0.8 + 0.1) == dict.fromkeys(NAMES, 100.0)


def test_inverted_probabilities_score_0():
    labels = np.array([[1, 0], [0, 1]])
    assert attribute_metrics(labels, 1.0 - labels) == dict.fromkeys(NAMES, 0.0)


def test_hand_computed_people():
    # attribute 1: truth 1 1 0, predicted 1 0 0 -> TPR 1/2, TNR 1;  attribute 2: truth 0 1 1, predicted 1 1 1 -> 1, 0
    # person 1: hits 1, predicted 2, true 1;  person 2: hits 1, predicted 1, true 2;  person 3: 1, 1, 1
    result = attribute_metrics([[1, 0], [1, 1], [0, 1]], [[0.9, 0.6], [0.1, 0.9], [0.2, 0.7]])
    precision, recall = (1 / 2 + 1 + 1) / 3, (1 + 1 / 2 + 1) / 3
    assert result["mA"] == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert result["accuracy"] == pytest.approx(100 * (1 / 2 + 1 / 2 + 1) / 3)
    assert result["precision"] == pytest.approx(100 * precision)
    assert result["recall"] == pytest.approx(100 * recall)
    assert result["F1"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))


def test_f1_is_made_of_mean_precision_and_mean_recall():
    # precision 1 and 0, recall 1 and 0: F1 of the means is 1/2; so is the mean of F1 ...
    assert attribute_metrics([[1, 0], [1, 0]], [[1, 0], [0, 1]])["F1"] == pytest.approx(50)
    # ... but not here: precision 1/2 and 1, recall 1 and 1/2 give 3/4, each person's own F1 is 2/3
    assert attribute_metrics([[1, 0], [1, 1]], [[1, 1], [1, 0]])["F1"] == pytest.approx(75)


def test_a_probability_equal_to_the_threshold_is_absent():
    assert attribute_metrics([[1], [0]], [[0.5], [0.4]])["recall"] == 0
    assert attribute_metrics([[1], [0]], [[0.5], [0.4]], threshold=0.45)["recall"] == 50


def test_zero_by_zero_counts_as_zero():
    # nobody has the second attribute: its true positive rate is 0 although nothing is wrong
    assert attribute_metrics([[1, 0], [0, 0]], [[1, 0], [0, 0]])["mA"] == pytest.approx(100 * (1 + 0.5) / 2)


def test_unknown_labels_are_left_out_of_every_count():
    known = attribute_metrics([[1, 0], [0, 1]], [[0.9, 0.8], [0.7, 0.6]])
    # a third attribute and a third person about which nothing is known
    labels = [[1, 0, -1], [0, 1, -1], [-1, -1, -1]]
    assert attribute_metrics(labels, [[0.9, 0.8, 0.9], [0.7, 0.6, 0.1], [1, 0, 1]]) == pytest.approx(known)
    # the wrong answer on an unknown label is no false positive
    assert attribute_metrics([[1, -1], [0, 1]], [[0.9, 0.9], [0.1, 0.9]])["precision"] == 100


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([[1, 0]], [[0.5]], r"labels \(1, 2\), probabilities \(1, 1\)"),
        ([[1, 2]], [[0.5, 0.5]], "labels hold 2"),
        ([[1, 0]], [[0.5, 1.5]], "span 0.5 to 1.5"),
        ([[1, 0]], [[-0.5, 0.5]], "span -0.5 to 0.5"),
        ([[1, 0]], [[0.5, np.nan]], r"probabilities hold nan at \(0, 1\)"),
        ([[-1, -1]], [[0.5, 0.5]], "all 2 labels are -1"),
        (np.empty((0, 2)), np.empty((0, 2)), "labels are empty"),
        ([1, 0], [0.5, 0.5], "expected 2 axes"),
    ],
)
def test_impossible_input_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        attribute_metrics(labels, probabilities)


def test_a_threshold_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match=r"threshold 1.5"):
        attribute_metrics([[1]], [[1.0]], threshold=1.5)


def test_summary_pairs_rows_with_records_whatever_their_order():
    data = dataset([[1, 0], [0, 1], [1, 1]])
    results = [{"probability": np.array(p, dtype=np.float32)} for p in ([0.9, 0.2], [0.1, 0.3], [0.8, 0.7])]
    made = [attributes.row(result, record, data) for result, record in zip(results, data.records, strict=True)]
    assert json.loads(json.dumps(made)) == made
    assert attributes.summary(made, data) == attributes.summary(made[::-1], data)
    assert attributes.summary(made, data)["mA"] == pytest.approx(100 * (1 + 0.75) / 2)
    # the image of the second person could not be read
    assert attributes.summary([made[0], made[2]], data)["recall"] == 100


def test_another_number_of_probabilities_is_refused():
    data = dataset([[1, 0]])
    with pytest.raises(ValueError, match=r"0: \(3,\) probabilities for 2 attributes"):
        attributes.row({"probability": np.zeros(3)}, data.records[0], data)


def test_chance_is_what_a_constant_answer_scores():
    data = dataset([[1, 0], [0, 1], [1, 1]])
    constant = attribute_metrics([[1, 0], [0, 1], [1, 1]], np.tile([1.0, 0.0], (3, 1)))
    assert attributes.chance(data) == {"mA": pytest.approx(constant["mA"])}


@pytest.mark.parametrize("case", ["pa100k", "edge"])
def test_attributes_agree_with_rethinking_of_par(golden: Path, dev_data: Path, case: str):
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["par"]["expected"][case]
    with np.load(golden / "metrics" / "par_predictions.npz") as f:
        probability = f[f"{case}_prob_u8"] / 255
        if case == "edge":
            labels = f["edge_label"]
        else:
            table = loadmat(dev_data / "PA-100K" / "annotation_test10000_labels_only.mat")["test_label"]
            labels = table[f["pa100k_rows"]].astype(int)
    result = attribute_metrics(labels, probability)
    names = {"mA": "mA", "accuracy": "instance_acc", "precision": "instance_prec", "recall": "instance_recall"}
    for ours, theirs in names.items():
        assert result[ours] / 100 == pytest.approx(expected[theirs], abs=1e-9)
    # F1 of mean precision and recall; UniHCP's mean of F1s (golden key "unihcp") is another number
    assert result["F1"] / 100 == pytest.approx(expected["instance_f1"], abs=1e-9)
