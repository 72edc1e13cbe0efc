import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from unihap.build import build_task
from unihap.config import get_cfg
from unihap.engine import evaluate as module
from unihap.engine.evaluate import EvaluationJob, evaluate, predict_batch, write_merged
from unihap.models.unihap import Architecture
from unihap.structures import AttributesLabel, Batch, Dataset, Prediction, Record, Target

NAME = "hardhc_attributes"


class Recorder:
    """An evaluator whose summary is the rows it was given."""

    def row(self, result, record, dataset):
        return {"id": record.id, "probability": result["probability"].tolist()}

    def summary(self, rows, dataset):
        self.ids = [row["id"] for row in rows]
        return {"mA": float(len(rows))}

    def chance(self, dataset):
        self.guessed = [record.id for record in dataset.records]
        return {"mA": 0.0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    names = (NAME, "coco_pose")
    return Architecture("vit_pico_patch16", (4, 4), 0.0, 32, 2, 1, 32).make(
        build_task(get_cfg(), n).spec for n in names
    )


@pytest.fixture
def task():
    return replace(build_task(get_cfg(), NAME), evaluator=Recorder())


def dataset(number, name="toy"):
    label = AttributesLabel(np.zeros(14, dtype=np.int8))
    return Dataset(name, "attributes", [Record(f"r{i}", f"{i}.jpg", label) for i in range(number)])


def batch(data, *numbers, skipped=()):
    images = torch.stack([torch.full((3, 16, 16), 20 * n, dtype=torch.uint8) for n in numbers]) if numbers else None
    return Batch(
        NAME,
        torch.empty(0, 3, 0, 0, dtype=torch.uint8) if images is None else images,
        None,
        Target(),
        [data.records[n] for n in numbers],
        np.zeros((len(numbers), 2, 3)),
        [(16, 16)] * len(numbers),
        tuple(skipped),
    )


def test_rows_come_to_the_summary_once_each_and_in_the_order_of_the_dataset(model, task, tmp_path):
    data = dataset(4)
    job = EvaluationJob(task, data, [batch(data, 3, 1), batch(data, 0, 3), batch(data, 2)], False)
    assert evaluate(model, [job], tmp_path) == {"toy": {"mA": 4.0}}
    assert task.evaluator.ids == ["r0", "r1", "r2", "r3"]


def test_rows_of_all_processes_are_summarised_together(model, task, tmp_path, monkeypatch):
    data = dataset(3)
    other = ([{"id": "r2"}, {"id": "r0"}], [])
    monkeypatch.setattr(module, "gather", lambda value: [value, other])
    evaluate(model, [EvaluationJob(task, data, [batch(data, 1, 0)], False)], tmp_path)
    assert task.evaluator.ids == ["r0", "r1", "r2"]


def test_a_process_that_is_not_the_first_returns_and_writes_nothing(model, task, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "gather", lambda value: None)
    data = dataset(1)
    job = EvaluationJob(task, data, [batch(data, 0)], False, lambda numbers: pytest.fail("predicted again"))
    assert evaluate(model, [job], tmp_path, num_pictures=1) == {}
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_image_is_reported_and_left_out_of_metric_and_chance(model, task, tmp_path, caplog):
    data = dataset(4)
    batches = [batch(data, 0, skipped=["r1"]), batch(data, skipped=["r2"]), batch(data, 3)]
    with caplog.at_level(logging.WARNING):
        results = evaluate(model, [EvaluationJob(task, data, batches, False)], tmp_path)
    assert results == {"toy": {"mA": 2.0}}
    assert task.evaluator.ids == task.evaluator.guessed == ["r0", "r3"]
    assert "toy: 2 of 4 records have no result because their image could not be read: r1, r2" in caplog.text


def test_a_record_that_silently_has_no_result_raises(model, task, tmp_path):
    data = dataset(3)
    job = EvaluationJob(task, data, [batch(data, 0, skipped=["r1"])], False)
    with pytest.raises(RuntimeError, match="toy: 2 records have no result, 1 of them known"):
        evaluate(model, [job], tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_results_are_valid_json_and_keep_the_numbers_of_other_datasets(model, task, tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    write_merged(tmp_path / "results.json", {"old": {"AP": 12.5}, "toy": {"mA": 99.0}})
    jobs = [EvaluationJob(task, data, [batch(data, 0, 1)], False) for data in (dataset(2), dataset(2, "second"))]
    evaluate(model, jobs, tmp_path)
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert written == {"old": {"AP": 12.5}, "toy": {"mA": 2.0}, "second": {"mA": 2.0}}


def test_the_table_shows_the_main_metric_beside_chance(model, task, tmp_path, caplog):
    data = dataset(2)
    with caplog.at_level(logging.INFO):
        evaluate(model, [EvaluationJob(task, data, [batch(data, 0, 1)], False)], tmp_path)
    line = next(line for line in caplog.text.splitlines() if line.startswith("toy"))
    assert line.split() == ["toy", NAME, "mA", "2.00", "0.00"]
    protocol = caplog.text.splitlines()[caplog.text.splitlines().index(line) + 1]
    assert protocol.strip().startswith("2 records, split ")
    assert protocol.endswith(", input 256 x 192, no flip, float32")


def test_a_main_metric_that_a_dataset_does_not_define_shows_as_nan(model, task, tmp_path, caplog):
    data = dataset(1)
    job = EvaluationJob(replace(task, main_metric="AP"), data, [batch(data, 0)], False)
    with caplog.at_level(logging.INFO):
        assert evaluate(model, [job], tmp_path) == {"toy": {"mA": 1.0}}
    line = next(line for line in caplog.text.splitlines() if line.startswith("toy"))
    assert line.split() == ["toy", NAME, "AP", "nan", "nan", "mA", "1.00", "(0.00)"]


class Scorer(Recorder):
    """Scores a record by its number; the last of every five has no score."""

    def scores(self, rows, dataset):
        numbers = [int(row["id"][1:]) for row in rows]
        return [float(number * 7 % 10) if number % 5 < 4 else None for number in numbers]

    def company(self, chosen, rows, dataset):
        return [0]


def draw_into(monkeypatch):
    """Sheets by file name instead of on disk."""
    drawn = {}

    def draw(task, data, shown, path, *, heading, scores, company):
        ids = [[record.id for record, _ in pairs] for pairs in (shown, company)]
        assert all(result["probability"].shape == (14,) for _, result in [*shown, *company])
        drawn[path.name] = (ids[0], list(scores), ids[1], heading)

    monkeypatch.setattr(module, "draw_sheet", draw)
    return drawn


def loaded(data, size=2):
    return lambda numbers: [batch(data, *numbers[i : i + size]) for i in range(0, len(numbers), size)]


@pytest.mark.parametrize(
    ("number", "pictures", "shown"),
    [(8, 2, ["r0", "r4"]), (5, 3, ["r0", "r1", "r3"]), (3, 9, ["r0", "r1", "r2"])],
)
def test_pictures_are_spread_evenly_over_the_dataset(model, task, tmp_path, monkeypatch, number, pictures, shown):
    drawn, data = draw_into(monkeypatch), dataset(number)
    batches = [batch(data, i) for i in reversed(range(number))]
    evaluate(model, [EvaluationJob(task, data, batches, False, loaded(data))], tmp_path, num_pictures=pictures)
    assert drawn == {"toy.jpg": (shown, [], [], "")}  # an evaluator without scores has no best and no worst


def test_best_and_worst_are_predicted_again_with_what_their_pictures_need(model, task, tmp_path, monkeypatch):
    drawn, data = draw_into(monkeypatch), dataset(10)
    task = replace(task, evaluator=Scorer())
    batches = [batch(data, *range(0, 10, 2)), batch(data, *range(1, 10, 2))]
    evaluate(model, [EvaluationJob(task, data, batches, False, loaded(data))], tmp_path, num_pictures=2)
    # scores of r0 ... r9: 0 7 4 1 - 5 2 9 6 -
    assert drawn["toy_best.jpg"] == (["r7", "r1"], [9.0, 7.0], ["r0"], "the best by score")
    assert drawn["toy_worst.jpg"] == (["r0", "r3"], [0.0, 1.0], ["r0"], "the worst by score")


def test_no_pictures_are_drawn_when_none_are_asked_for_or_none_can_be_read(model, task, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "draw_sheet", lambda *_, **__: pytest.fail("drew a sheet"))
    data = dataset(2)
    evaluate(model, [EvaluationJob(task, data, [batch(data, 0, 1)], False, loaded(data))], tmp_path, num_pictures=0)
    job = EvaluationJob(task, data, [batch(data, 1, skipped=["r0"])], False, loaded(data))
    assert evaluate(model, [job], tmp_path, num_pictures=1) == {"toy": {"mA": 1.0}}


def test_every_result_has_its_protocol(model, task, tmp_path):
    data, weights = dataset(4), tmp_path / "weights.bin"
    weights.write_bytes(b"abc")
    job = EvaluationJob(task, data, [batch(data, 0, 1, 2, skipped=["r3"])], True, batch_size=4)
    evaluate(model, [job], tmp_path, weights=[weights])
    results, protocols = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("results", "protocols"))
    assert results.keys() == protocols.keys() == {"toy"}
    protocol = protocols["toy"]
    assert len(protocol.pop("split")) == 64
    assert protocol == {
        "task": NAME,
        "num_records": 4,
        "num_unreadable": 1,
        "annotation": None,
        "boxes": None,
        "input_size": [256, 192],
        "flip": False,  # attributes have no flip testing
        "batch_size": 4,
        "precision": "float32",
        # SHA-256 of "abc", FIPS 180-4
        "weights": [
            {
                "file": "weights.bin",
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            }
        ],
        "conventions": None,
    }


def test_an_evaluation_may_have_threads_of_its_own(model, task, tmp_path):
    before, seen = torch.get_num_threads(), []
    data = dataset(1)

    def batches():
        seen.append(torch.get_num_threads())
        yield batch(data, 0)

    for number in (before + 1, 0):
        evaluate(model, [EvaluationJob(task, data, batches(), False)], tmp_path, num_threads=number)
    assert seen == [before + 1, before]
    assert torch.get_num_threads() == before


def test_flip_testing_averages_with_the_prediction_of_the_mirrored_image_turned_round(model):
    seen = []

    def decode(prediction, batch):
        seen.append(prediction)
        return []

    task = replace(build_task(get_cfg(), "coco_pose"), decode=decode)
    images = torch.randint(0, 256, (2, 3, 32, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    records = dataset(2).records
    one = Batch("coco_pose", images, None, Target(), list(records), np.zeros((2, 2, 3)), [(32, 16)] * 2)
    model.eval()
    for flip in (False, True):
        predict_batch(model, task, one, flip, None)
    with torch.inference_mode():
        plain, mirrored = (model(x, "coco_pose")[-1] for x in (images, images.flip(-1)))
        mirrored = task.unflip(mirrored)
    assert isinstance(seen[0], Prediction)
    torch.testing.assert_close(seen[0].heatmap, plain.heatmap)
    torch.testing.assert_close(seen[1].heatmap, (plain.heatmap + mirrored.heatmap) / 2)
    torch.testing.assert_close(seen[1].logit, (plain.logit + mirrored.logit) / 2)
