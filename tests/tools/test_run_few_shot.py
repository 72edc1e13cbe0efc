"""The command that adapts a model to few pictures by several methods, and tabulates."""

import json
import sys
from pathlib import Path

import pytest
import toy

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import run_few_shot

from unihap.build import build_model
from unihap.build.training import build_card
from unihap.checkpoints.files import save_weights
from unihap.config import get_cfg

BASE = (
    toy.CONFIG.split("TRAIN:")[0]
    + """
TRAIN: {MODE: prompt, TASKS: [lip_parsing], LOG_PERIOD: 1}
TASKS: {lip_parsing: {BATCH_SIZE: 2, INPUT_SIZE: [64, 64], SHOTS: 1}}
LOSS: {PARSING: {NUM_POINTS: 64}}
SOLVER: {OPTIMIZER: adamw, BASE_LR: 0.01, MAX_ITERATIONS: 2, WARMUP_ITERATIONS: 0}
DATA: {NUM_WORKERS: 0}
TEST: {VISUALIZE: 0, FLIP: False}
"""
)
METHODS = {
    "prompt": "_BASE_: ../base.yaml",
    "finetune": "{_BASE_: ../base.yaml, TRAIN: {MODE: finetune}}",
    "linear": (
        "{_BASE_: ../base.yaml, MODEL: {READOUT: linear}, TRAIN: {MODE: finetune}, FINETUNE: {PARTS: [private]}}"
    ),
    "full_data": "{_BASE_: finetune.yaml, TASKS: {lip_parsing: {SHOTS: 0}}}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task with four methods, another one with one, and a model of both."""
    root = tmp_path_factory.mktemp("few_shot")
    (root / "base.yaml").write_text(BASE)
    (root / "lip_parsing").mkdir()
    for name, text in METHODS.items():
        (root / "lip_parsing" / f"{name}.yaml").write_text(text)
    (root / "coco_pose").mkdir()
    (root / "coco_pose" / "prompt.yaml").write_text(
        BASE.replace("lip_parsing", "coco_pose").replace("INPUT_SIZE: [64, 64]", "INPUT_SIZE: [64, 48]")
    )
    cfg = get_cfg()
    cfg.merge_from_file(root / "base.yaml")
    cfg.TRAIN.MODE, cfg.TEST.TASKS = "joint", ["lip_parsing", "coco_pose"]
    card = build_card(cfg, ["lip_parsing", "coco_pose"], {})
    save_weights(root / "joint" / "weights.safetensors", build_model(cfg).state_dict(), card)
    return root


@pytest.fixture
def run(folder, toy_root, tmp_path, monkeypatch):
    """Runs the command."""
    monkeypatch.setattr(run_few_shot, "CONFIGS", folder)

    def command(*more, tasks="lip_parsing", weights=folder / "joint", seeds=2):
        words = ["--weights", weights, "--out", tmp_path / "out", "--tasks", tasks, "--seeds", seeds, *more]
        return run_few_shot.main(list(map(str, [*words, "DATA.ROOT", toy_root])))

    return command


def table(tmp_path):
    return json.loads((tmp_path / "out" / "few_shot.json").read_text())


def test_methods_are_run_from_the_same_pictures_and_tabulated_and_not_run_again(run, tmp_path, caplog, capsys):
    caplog.set_level("INFO", "run_few_shot")
    assert run() == 0
    out = tmp_path / "out"
    assert "[8/8] lip_parsing, full_data, seed 1: mIoU" in caplog.text
    assert "left 0:00:00" in caplog.text
    rows = {row["method"]: row for row in table(tmp_path)["rows"]}
    assert list(rows) == ["linear", "finetune", "prompt", "full_data"]
    assert all([run["seed"] for run in row["runs"]] == [0, 1] for row in rows.values())
    assert (out / "few_shot.md").read_text() in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"few_shot.json", "few_shot.md", "few_shot.png", "lip_parsing"}

    # who trains what
    assert rows["finetune"]["trainable"] == rows["finetune"]["parameters"]
    assert rows["prompt"]["trainable"] == 20 * 2 * 32  # content and position of every query
    assert rows["prompt"]["parameters"] == rows["finetune"]["parameters"]
    assert 0 < rows["linear"]["trainable"] < rows["finetune"]["trainable"]
    assert rows["prompt"]["difference"]["num"] == 2

    # the same seed draws the same pictures for every method, and full data draw none
    shots = [out / "lip_parsing" / name / "seed_1" / "shots.json" for name in METHODS]
    assert [path.is_file() for path in shots] == [True, True, True, False]
    assert len({path.read_text() for path in shots[:3]}) == 1
    drawn = json.loads(shots[0].read_text())["lip_parsing"]
    assert (drawn["dataset"], drawn["shots"], drawn["seed"]) == ("lip_train", 1, 1)
    assert 1 <= len(drawn["records"]) <= 3  # three classes occur
    assert rows["prompt"]["runs"][1]["records"] == len(drawn["records"])
    assert rows["full_data"]["records"] is None
    log = (shots[0].parent / "train.log").read_text()
    assert f"1 for each of 20 classes by seed 1: {' '.join(drawn['records'])}" in log
    assert "no record of lip_train shows" in log

    # a finished run is left alone; one that lost its result is run anew and comes out the same
    lost = shots[0].with_name("result.json")
    before = json.loads(lost.read_text())["metrics"]
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    assert run() == 0
    assert json.loads(lost.read_text())["metrics"] == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    # other settings are refused, harmless ones and fewer methods are not
    assert run("SOLVER.BASE_LR", "0.1") == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert run("--methods", "prompt", "--first-seed", "1", "TRAIN.LOG_PERIOD", "7", seeds=1) == 0
    (row,) = table(tmp_path)["rows"]
    assert (row["method"], [run["seed"] for run in row["runs"]]) == ("prompt", [1])


def test_a_run_that_fails_does_not_stop_the_others(run, tmp_path, capsys, monkeypatch):
    inner = run_few_shot.train

    def train(started):
        if "finetune" in str(started.output):
            raise FloatingPointError("loss is not finite")
        inner(started)

    monkeypatch.setattr(run_few_shot, "train", train)
    assert run("--methods", "finetune,prompt", seeds=1) == 1
    assert "lip_parsing, finetune, seed 0: loss is not finite" in capsys.readouterr().err
    assert [row["method"] for row in table(tmp_path)["rows"]] == ["prompt"]


def test_an_override_of_one_task_leaves_the_others_alone(run, tmp_path):
    assert run("--methods", "prompt", "TASKS.coco_pose.SHOTS", "2", tasks="lip_parsing,coco_pose", seeds=1) == 0
    for task, shots in (("lip_parsing", 1), ("coco_pose", 2)):
        result = json.loads((tmp_path / "out" / task / "prompt" / "seed_0" / "result.json").read_text())
        blocks = result["settings"]["TASKS"]
        assert {name: block["SHOTS"] for name, block in blocks.items()} == {task: shots}


def test_a_folder_that_holds_something_else_is_not_deleted(run, tmp_path, capsys):
    other = tmp_path / "out" / "lip_parsing" / "prompt" / "seed_0" / "thesis.txt"
    other.parent.mkdir(parents=True)
    other.write_text("years of work")
    assert run("--methods", "prompt", seeds=1) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert other.read_text() == "years of work"


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ((), {"tasks": "nowhere"}, "no task 'nowhere': neither a folder of configs nor one of coco_pose, joint"),
        (("--methods", "magic"), {}, "has no method 'magic'; it has finetune, full_data, linear, prompt"),
        (("--methods", "prompt,prompt"), {}, "nothing twice"),
        ((), {"seeds": 0}, "--seeds must be at least 1 and --first-seed 0, got 0 and 0"),
        (("--methods", "prompt"), {"weights": "lost"}, "no weights at lost"),
        (("SEED", "3"), {}, "SEED is set by run_few_shot.py itself"),
        (("TASKS.lip_parsing.SHOT_SEED", "3"), {}, "SHOT_SEED is set by run_few_shot.py itself"),
        (("SOLVER.BASE_LT", "3"), {}, "SOLVER.BASE_LR"),
        (("TRAIN.TASKS", "[lip_parsing, coco_pose]"), {}, "trains lip_parsing, coco_pose, not lip_parsing alone"),
        (("TASKS.lip_parsing.TEST", "[lost]"), {}, "unknown dataset 'lost'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_before_anything_is_made(run, tmp_path, capsys, more, options, message):
    assert run(*more, **options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_negative_shots_are_refused(run, capsys):
    assert run("--methods", "prompt", "TASKS.lip_parsing.SHOTS", "-1", seeds=1) == 2
    assert "SHOTS and SHOT_SEED must not be negative, got -1 and 0" in capsys.readouterr().err


def test_time_left_is_that_of_the_same_row_or_of_all():
    one, two = (run_few_shot.Cell("task", name, Path()) for name in ("one", "two"))
    assert run_few_shot.time_left({}, [one]) == "?"
    assert run_few_shot.time_left({}, []) == "0:00:00"
    assert run_few_shot.time_left({one: [60.0, 80.0]}, [one, two]) == "0:02:20"
    assert run_few_shot.time_left({one: [60.0], two: [5.0]}, [two, two]) == "0:00:10"


def test_the_built_in_tasks_have_the_same_methods_in_the_same_order():
    cells = run_few_shot.find_cells(run_few_shot.TASKS, ())
    methods = {task: [cell.method for cell in cells if cell.task == task] for task in run_few_shot.TASKS}
    assert methods == {task: list(run_few_shot.ORDER) for task in run_few_shot.TASKS}
