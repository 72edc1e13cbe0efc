"""Which classes a record shows, by kind of task: the rules of few-shot training sets."""

import numpy as np
import pytest

from unihap.structures import AttributesLabel, Dataset, DetectionLabel, ParsingLabel, PoseLabel, Record, ReIDLabel
from unihap.tasks import TASKS, TaskOptions
from unihap.tasks.reid import merge

WEIGHTS = {"detection": {"class": 1.0, "l1": 1.0, "giou": 1.0}, "parsing": {}, "pose": {}, "attributes": {}, "reid": {}}
OPTIONS = TaskOptions(loss_weights=WEIGHTS)


def present(task, label, classes=(), read_label_map=None):
    record = Record("r", "r.jpg", label)
    made = TASKS[task](task, OPTIONS)
    return made.present(record, Dataset("d", made.kind, [record], classes, read_label_map=read_label_map))


def test_a_person_shows_the_labelled_keypoints():
    keypoints = np.zeros((17, 3))
    keypoints[[0, 9], 2] = 1
    keypoints[3] = (5, 5, 0)  # a place without a label
    assert present("coco_pose", PoseLabel(keypoints, np.zeros(4), 1)) == [0, 9]


def test_a_label_map_shows_its_classes_and_background_is_one_of_them():
    label_map = np.array([[0, 0, 19], [255, 5, 5]], np.uint8)
    names = tuple(f"class {i}" for i in range(20))
    assert present("lip_parsing", ParsingLabel("map.png"), names, lambda path: label_map) == [0, 5, 19]
    assert present("lip_parsing", ParsingLabel("map.png"), names, lambda path: label_map[:, 2:]) == [5, 19]


def test_a_person_shows_the_attributes_they_have_and_neither_absent_nor_unknown_ones():
    values = np.full(26, -1, np.int8)
    values[[2, 4]], values[[0, 25]] = 0, 1
    assert present("pa100k_attributes", AttributesLabel(values)) == [0, 25]


def test_a_crop_shows_its_identity_as_the_merged_training_set_numbers_it():
    records = [Record(str(i), "", ReIDLabel(identity, 1, "train")) for i, identity in enumerate((1501, 7, 1501))]
    merged = merge([Dataset("d", "reid", records)])
    task = TASKS["general_reid"]("general_reid", OPTIONS)
    assert [task.present(record, merged) for record in merged.records] == [[0], [1], [0]]


@pytest.mark.parametrize(("people", "expected"), [(0, []), (1, [0]), (5, [0])])
def test_a_picture_shows_people_or_nobody(people, expected):
    assert present("pedestrian_detection", DetectionLabel(np.zeros((people, 4)), np.zeros((3, 4)))) == expected


@pytest.mark.parametrize("task", ["synth_b_pose", "synth_b_parsing", "synth_b_attributes"])
def test_tasks_of_domain_b_have_its_own_data(task):
    made = TASKS[task](task, OPTIONS)
    assert made.spec.num_queries == {"pose": 15, "parsing": 20, "attributes": 49}[made.kind]
    assert all(name.startswith("synth_b_") for name in (*made.train_datasets, *made.test_datasets))
