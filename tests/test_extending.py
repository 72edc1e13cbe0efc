"""What a newcomer must be able to do, and nothing changed elsewhere.

A dataset in 40 lines, a kind of task in 200, a prompt for a new dataset in a config of 10.
"""

import ast
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import train_net
from examples import corridor, counting

from unihap import load_prompt
from unihap.data.catalog import DATASETS
from unihap.engine.checkpoint import load_model
from unihap.structures import Dataset, Record
from unihap.tasks import TASKS

EXAMPLES = Path(__file__).with_name("examples")


def run(*words):
    return train_net.main(list(map(str, words)))


def lines_of(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def corridor_root(tmp_path):
    """Three people with two crops each."""
    rng, rows = np.random.default_rng(0), []
    for person in range(3):
        for camera in (1, 2):
            rows.append(f"{person}_{camera}.jpg,{person},{camera}\n")
            image = toy.person(rng, 64, 32, (60 * person + 60, 90, 200))
            toy.write(tmp_path / "data" / "corridor" / "crops" / f"{person}_{camera}.jpg", image)
    (tmp_path / "data" / "corridor" / "train.csv").write_text("".join(rows))
    return tmp_path / "data"


@pytest.fixture
def tiny(tmp_path):
    """Writes a config of the toy model with a TASKS block of one's own."""

    def write(name, block):
        text = toy.CONFIG.split("TRAIN:")[0]
        text += f"TRAIN: {{TASKS: [{name}], LOG_PERIOD: 1}}\nTASKS: {{{name}: {block}}}\n"
        text += "SOLVER: {OPTIMIZER: adamw, MAX_ITERATIONS: 3, WARMUP_ITERATIONS: 1}\nDATA: {NUM_WORKERS: 0}\n"
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return write


REID = "{TRAIN: [corridor_train], BATCH_SIZE: 4, IMAGES_PER_PERSON: 2, INPUT_SIZE: [64, 32]}"


def test_a_new_dataset_is_one_function_and_one_table_entry(tiny, corridor_root, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "corridor_train", corridor.DATASETS["corridor_train"])
    words = ["DATA.ROOT", corridor_root, "OUTPUT_DIR", tmp_path / "out", "TRAIN.EVAL_AT_END", False]
    assert run("--config", tiny("general_reid", REID), *words) == 0
    assert [line["iteration"] for line in lines_of(tmp_path / "out")] == [0, 1, 2]
    assert all(np.isfinite(line["loss_identity"]) for line in lines_of(tmp_path / "out"))


def test_a_mistake_in_the_files_of_a_new_dataset_is_one_line_with_exit_status_2(
    tiny, corridor_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(DATASETS, "corridor_train", corridor.DATASETS["corridor_train"])
    with open(corridor_root / "corridor" / "train.csv", "a", encoding="utf-8") as file:
        file.write("7.jpg,seven,1\n")
    words = ["DATA.ROOT", corridor_root, "OUTPUT_DIR", tmp_path / "out", "TRAIN.EVAL_AT_END", False]
    assert run("--config", tiny("general_reid", REID), *words) == 2
    assert "train.csv line 7: expected 'file,person,camera'" in capsys.readouterr().err


def test_a_new_kind_of_task_trains_evaluates_and_loads(tiny, toy_root, tmp_path, monkeypatch, caplog):
    for name, read in counting.DATASETS.items():
        monkeypatch.setitem(DATASETS, name, read)
    monkeypatch.setitem(TASKS, "crowd_counting", counting.TASKS["crowd_counting"])
    config = tiny("crowd_counting", "{BATCH_SIZE: 3, INPUT_SIZE: [32, 48]}")
    output = tmp_path / "out"
    assert run("--config", config, "DATA.ROOT", toy_root, "OUTPUT_DIR", output, "TEST.VISUALIZE", 2) == 0

    lines = lines_of(output)
    assert [line["task"] for line in lines] == ["crowd_counting"] * 3
    assert all(line["loss"] == line["loss_count"] > 0 for line in lines)
    results = json.loads((output / "results.json").read_text())
    assert results.keys() == {"crowdhuman_count_val"}
    assert 0 < results["crowdhuman_count_val"]["MAE"] <= counting.MOST
    assert (output / "visualizations" / "crowdhuman_count_val.jpg").stat().st_size > 0

    monkeypatch.undo()  # a checkpoint holds what its model needs
    model = load_model(max((output / "checkpoints").iterdir()))
    assert model(torch.zeros(2, 3, 32, 48, dtype=torch.uint8), "crowd_counting")[-1].logit.shape == (2, 1)


def test_a_prompt_for_a_new_dataset_is_one_config(tiny, corridor_root, toy_root, tmp_path, monkeypatch):
    market = REID.replace("corridor_train", "market1501_train")
    words = ["DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "trained", "TRAIN.EVAL_AT_END", False]
    assert run("--config", tiny("general_reid", market), *words) == 0
    base = max((tmp_path / "trained" / "checkpoints").iterdir())

    monkeypatch.setitem(DATASETS, "corridor_train", corridor.DATASETS["corridor_train"])
    (tmp_path / "model.yaml").write_text(toy.CONFIG.split("TRAIN:")[0] + "DATA: {NUM_WORKERS: 0}\n")
    config = Path(shutil.copy(EXAMPLES / "corridor_prompt.yaml", tmp_path))
    words = ["DATA.ROOT", corridor_root, "OUTPUT_DIR", tmp_path / "prompt", "MODEL.WEIGHTS", base]
    assert run("--config", config, *words) == 0
    assert [line["iteration"] for line in lines_of(tmp_path / "prompt")] == [0, 1, 2]

    model, crops = load_model(base), torch.zeros(2, 3, 64, 32, dtype=torch.uint8)
    before = model(crops, "general_reid")[-1].feature
    assert load_prompt(model, max((tmp_path / "prompt" / "checkpoints").iterdir())) == "general_reid"
    assert not torch.equal(model(crops, "general_reid")[-1].feature, before)


def test_the_new_kind_s_judge_agrees_with_a_hand_count():
    judge = counting.CountEvaluator()
    records = [Record(str(n), "", counting.CountLabel(n)) for n in (1, 3, 8)]
    data = Dataset("toy", "counting", records)
    rows = [judge.row({"people": 4.0}, record, data) for record in records]
    assert judge.summary(rows, data)["MAE"] == pytest.approx((3 + 1 + 4) / 3)
    assert judge.chance(data)["MAE"] == pytest.approx((2 + 0 + 5) / 3)


@pytest.mark.parametrize(
    ("name", "promised"), [("corridor.py", 40), ("counting.py", 200), ("corridor_prompt.yaml", 10)]
)
def test_the_additions_are_as_short_as_promised(name, promised):
    assert len((EXAMPLES / name).read_text().splitlines()) <= promised


def test_the_prompts_that_come_with_the_project_are_as_short():
    configs = sorted((Path(__file__).parents[1] / "configs" / "prompt").glob("*.yaml"))
    assert configs
    assert all(len(config.read_text().splitlines()) <= 10 for config in configs)


@pytest.mark.parametrize("name", ["corridor.py", "counting.py"])
def test_the_additions_touch_neither_model_nor_engine_nor_loader(name):
    tree = ast.parse((EXAMPLES / name).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {m for m in modules if m.startswith(("unihap.models", "unihap.engine", "unihap.data.loader"))}
