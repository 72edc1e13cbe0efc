"""What model, loader and loss rely on, for every named task."""

import numpy as np
import pytest
import torch

from unihap.build import build_task
from unihap.config import get_cfg
from unihap.data.geometry import IDENTITY
from unihap.data.loader import collate
from unihap.models.unihap import Architecture, task_forward
from unihap.structures import (
    AttributesLabel,
    Dataset,
    DetectionLabel,
    ParsingLabel,
    PoseLabel,
    Prediction,
    Record,
    ReIDLabel,
    Sample,
    Supervision,
    Unit,
)
from unihap.tasks import TASKS, Statistics
from unihap.tasks.task import concatenate

SIZE = (32, 32)
UNIT_FIELDS = {
    Unit.FEATURE: {"feature", "normed_feature"},
    Unit.PROBABILITY: {"logit"},
    Unit.HEATMAP: {"heatmap"},
    Unit.BOX: {"box"},
}
UNIT_WEIGHTS = {
    Unit.FEATURE: (),
    Unit.PROBABILITY: ("to_logit",),
    Unit.HEATMAP: ("to_kernel", "upsample", "to_pixel"),
    Unit.BOX: ("to_box",),
}
TARGET_FIELDS = {
    "reid": {"identity"},
    "attributes": {"probability"},
    "pose": {"heatmap", "heatmap_weight"},
    "parsing": {"label_map"},
    "detection": {"box", "ignore_box"},
}
NUM_LAYERS = 2


@pytest.fixture(scope="module")
def tasks():
    cfg = get_cfg()
    sizes = [word for name in TASKS for word in (f"TASKS.{name}.INPUT_SIZE", str(list(SIZE)))]
    cfg.merge_from_list([*sizes, "MODEL.NUM_ANCHORS", "4", "LOSS.PARSING.NUM_POINTS", "32"])
    return {name: build_task(cfg, name) for name in TASKS}


@pytest.fixture(scope="module")
def model(tasks):
    torch.manual_seed(0)
    architecture = Architecture("vit_pico_patch16", (8, 8), 0.0, 32, 2, NUM_LAYERS, 32)
    return architecture.make(task.spec for task in tasks.values()).train()


def label_of(task, number):
    queries = task.spec.num_queries
    if task.kind == "reid":
        return ReIDLabel(number, 1, "train")
    if task.kind == "attributes":
        return AttributesLabel((np.arange(queries) % 3 - 1).astype(np.int8))
    if task.kind == "pose":
        return PoseLabel(np.tile([20.0, 12.0, 1.0], (queries, 1)), np.array([5.0, 5, 30, 30]), 1)
    if task.kind == "parsing":
        return ParsingLabel("", (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 16 % queries).astype(np.uint8))
    return DetectionLabel(np.array([[4.0, 4, 20, 30]] * number).reshape(-1, 4), np.zeros((0, 4)))


def batch_of(task):
    samples = []
    for number in range(2):
        label = label_of(task, number)
        image = torch.full((3, *SIZE), 50 + 100 * number, dtype=torch.uint8)
        samples.append(Sample(Record(str(number), "", label), image, task.encode(label, SIZE), IDENTITY, SIZE))
    return collate(task.spec.name, samples, task.pad_multiple)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_builds_with_default_options(name):
    task = build_task(get_cfg(), name)
    assert task.spec.name == name
    assert task.kind in TARGET_FIELDS
    assert task.loss_lambda > 0
    assert (task.spec.num_anchors > 0) == (Unit.BOX in task.spec.units)
    assert task.spec.feature_norm == (Unit.FEATURE in task.spec.units)


@pytest.mark.parametrize("name", TASKS)
def test_open_units_fill_their_fields_and_their_weights_learn_and_closed_ones_do_not(name, tasks, model):
    task = tasks[name]
    batch = batch_of(task)
    target_fields = {field for field, value in vars(batch.target).items() if value is not None}
    assert target_fields == TARGET_FIELDS[task.kind]

    predictions = task_forward(model.shared, model.private[name], batch.images, batch.sizes, all_layers=True)
    layers = {Supervision.LAST: 1, Supervision.LAYERS: NUM_LAYERS, Supervision.LAYERS_AND_QUERIES: NUM_LAYERS + 1}
    assert len(predictions) == layers[task.spec.supervision]
    expected = set().union(*(UNIT_FIELDS[unit] for unit in task.spec.units))
    for p in predictions:
        assert {field for field, value in vars(p).items() if value is not None} == expected

    known = Statistics(torch.full((task.spec.num_queries,), 0.3), num_identities=2)
    criterion = task.criterion(known, 32)
    terms = criterion(predictions, batch.target, max(1, task.count_items(batch.target)))
    assert {term.shape for term in terms.values()} == {(len(predictions),)}
    model.zero_grad(set_to_none=True)
    torch.stack([term.sum() for term in terms.values()]).sum().backward()
    for unit, modules in UNIT_WEIGHTS.items():
        for module in modules:
            grads = [p.grad for p in getattr(model.shared.interpreter, module).parameters()]
            if unit in task.spec.units:
                assert all(grad is not None for grad in grads), module
                assert any(grad.any() for grad in grads), module
            else:
                assert all(grad is None for grad in grads), module
    with_gradient = {other for other in tasks if any(p.grad is not None for p in model.private[other].parameters())}
    assert with_gradient == {name}


@pytest.mark.parametrize("name", TASKS)
def test_a_result_per_record_comes_out_of_every_task(name, tasks, model):
    task, batch = tasks[name], batch_of(tasks[name])
    with torch.no_grad():
        prediction = task_forward(model.shared, model.private[name], batch.images, batch.sizes, all_layers=False)[-1]
    assert len(task.decode(prediction, batch)) == 2


def test_a_mirrored_prediction_turned_round_twice_is_itself_for_every_task_with_flip_testing(tasks):
    turned = [task for task in tasks.values() if task.unflip is not None]
    assert {task.kind for task in turned} == {"pose"}
    for task in turned:
        queries = task.spec.num_queries
        logit = torch.arange(queries, dtype=torch.float32)[None]
        heatmap = torch.arange(queries * 4, dtype=torch.float32).reshape(1, queries, 2, 2)
        again = task.unflip(task.unflip(Prediction(logit=logit, heatmap=heatmap)))
        assert torch.equal(again.logit, logit)
        assert torch.equal(again.heatmap, heatmap)


def test_datasets_of_the_same_classes_are_joined_with_unique_ids_and_others_refused():
    def data(name, classes):
        return Dataset(name, "attributes", [Record("1", "", AttributesLabel(np.zeros(2, np.int8)))], classes)

    joined = concatenate([data("a", ("x", "y")), data("b", ("x", "y"))])
    assert [record.id for record in joined.records] == ["a/1", "b/1"]
    assert joined.name == "a+b"
    with pytest.raises(ValueError, match="datasets a and c differ in kind or classes; train them as two tasks"):
        concatenate([data("a", ("x", "y")), data("c", ("x", "z"))])
    with pytest.raises(ValueError, match="no training dataset given"):
        concatenate([])
