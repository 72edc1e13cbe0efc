"""The command that pre-trains the cells of a ladder, probes them and tabulates."""

import json
import sys
from pathlib import Path

import crops
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import run_ladder
import train_net

from unihap.build.probe import first_encoder, pretrained_encoder
from unihap.config import get_cfg

real_call = run_ladder.call
PROBE = ["--reid", "market1501_test", "--attributes", "pa100k_train,pa100k_test"]
PROBE += ["--keypoints", "coco_keypoints_train,coco_keypoints_val"]


@pytest.fixture
def ran(monkeypatch):
    """Runs train_net.py inside this process; the commands of all runs."""
    commands = []

    def call(command, log):
        assert command[:2] == [sys.executable, str(run_ladder.TRAIN)]
        commands.append(command[2:])
        log.touch()
        return train_net.main(command[2:])

    monkeypatch.setattr(run_ladder, "call", call)
    return commands


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Two cells of one iteration, as files."""
    folder = tmp_path_factory.mktemp("cells") / "toy"
    people = crops.make(folder.parent / "people")
    folder.mkdir()
    (folder / "one.yaml").write_text(crops.CONFIG.replace("PRETRAIN:", f"PRETRAIN:\n  DATASETS: ['{people}']"))
    (folder / "two.yaml").write_text("_BASE_: one.yaml\nPRETRAIN: {MASK: {RATIO: 0.75}}\n")
    return folder


@pytest.fixture
def ladder(cell, toy_root, tmp_path):
    """Runs the command on both cells and none."""

    def run(*more, cells="none,{0}/one.yaml,{0}/two.yaml", seeds="0,1"):
        words = ["--out", tmp_path / "out", "--cells", cells.format(cell), "--seeds", seeds, *PROBE, *more]
        short = ["DATA.ROOT", toy_root, "PRETRAIN.EPOCHS", "0.3", "PRETRAIN.WARMUP_EPOCHS", "0"]
        return run_ladder.main(list(map(str, [*words, *short])))

    return run


def table(tmp_path):
    return json.loads((tmp_path / "out" / "ladder.json").read_text())


def test_a_ladder_is_run_probed_and_tabulated_and_not_run_again(ladder, ran, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    assert ladder() == 0
    assert [Path(words[-3]).relative_to(tmp_path / "out").as_posix() for words in ran] == [
        "toy-one/seed_0", "toy-two/seed_0", "toy-one/seed_1", "toy-two/seed_1",
    ]  # fmt: skip
    assert all("DATA.ROOT" in words and "--resume" in words for words in ran)
    assert "[6/6] toy-two, seed 1: reid_mAP" in caplog.text
    assert "left 0:00:00" in caplog.text
    found = table(tmp_path)
    assert [row["name"] for row in found["rows"]] == ["none", "toy-one", "toy-two"]
    assert [[run["seed"] for run in row["runs"]] for row in found["rows"]] == [[0, 1]] * 3
    assert found["rows"][1]["runs"][0]["checkpoint"] == "iteration_00000001"
    assert found["rows"][1]["difference"]["attributes_mA"]["num"] == 2
    assert "| none -> toy-one | 2 |" in (tmp_path / "out" / "ladder.md").read_text()
    assert (tmp_path / "out" / "ladder.md").read_text() in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "ladder.json", "ladder.md", "none", "toy-one", "toy-two",
    ]  # fmt: skip

    # the encoder that is probed is the one that was trained, from the one that "none" is
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "out" / "toy-one" / "seed_1" / "config.yaml")
    before, (after, _) = first_encoder(cfg), pretrained_encoder(cfg)
    assert torch.equal(before.position.table, after.position.table)
    moved = (before.patch_embed.proj.weight - after.patch_embed.proj.weight).abs().max()
    assert 0 < moved < 0.01

    # a finished run is left alone; one that lost its result goes on from its checkpoint
    again = tmp_path / "out" / "toy-two" / "seed_1" / "result.json"
    lost = json.loads(again.read_text())["metrics"]
    again.unlink()
    ran.clear()
    assert ladder() == 0
    assert [Path(words[-3]).parent.name for words in ran] == ["toy-two"]
    assert json.loads(again.read_text())["metrics"] == lost

    # other settings, other data, and what is harmless
    assert ladder("PRETRAIN.BLR", "0.1") == 2
    assert "holds a run with other settings" in capsys.readouterr().err
    assert ladder("--reid", "market1501_train") == 2
    assert "was probed on other datasets" in capsys.readouterr().err
    ran.clear()
    assert ladder("TRAIN.LOG_PERIOD", "7", cells="{0}/two.yaml", seeds="1") == 0
    assert ran == []
    assert [row["name"] for row in table(tmp_path)["rows"]] == ["toy-two"]


def test_a_run_that_fails_does_not_stop_the_others(ladder, ran, tmp_path, capsys, monkeypatch):
    inner = run_ladder.call

    def call(command, log):
        if "one.yaml" not in command[3]:
            return inner(command, log)
        script = "import sys; print('Traceback'); sys.exit('it broke')"
        return real_call([sys.executable, "-c", script], log)

    monkeypatch.setattr(run_ladder, "call", call)
    assert ladder(seeds="0") == 1
    assert "toy-one, seed 0: train_net.py ended with status 1: it broke (see " in capsys.readouterr().err
    assert [len(row["runs"]) for row in table(tmp_path)["rows"]] == [1, 0, 1]


def test_a_refused_run_stops_with_its_reason(ladder, capsys, monkeypatch):
    def call(command, log):
        return real_call([sys.executable, "-c", "import sys; print('no such file'); sys.exit(2)"], log)

    monkeypatch.setattr(run_ladder, "call", call)
    assert ladder(seeds="0", cells="{0}/one.yaml") == 2
    assert "toy-one, seed 0: train_net.py ended with status 2: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        (
            (),
            {"cells": "nowhere.yaml"},
            "no cell 'nowhere.yaml': neither a config file nor one of ladder, table3, none",
        ),
        ((), {"cells": "none,none"}, "none twice"),
        ((), {"cells": ","}, "at least one cell"),
        ((), {"seeds": "1,1"}, "none twice"),
        (("SEED", "3"), {}, "SEED is set by a ladder itself"),
        (("PRETRAIN.EPOCS", "3"), {}, "PRETRAIN.EPOCHS"),
        (("PRETRAIN.DATASETS", "[no_such_thing]"), {}, "no_such_thing"),
        (("PRETRAIN.ALIGN.WEIGHT", "-1"), {}, "PRETRAIN.ALIGN.WEIGHT must not be negative"),
        (("--attributes", "pa100k_train"), {}, "--attributes must be TRAIN,TEST"),
        (("--reid", "pa100k_test"), {}, "dataset pa100k_test is for attributes, the probe needs one for reid"),
        (("--reid", "lost"), {}, "unknown dataset 'lost'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_before_anything_is_made(
    ladder, ran, tmp_path, capsys, more, options, message
):
    assert ladder(*more, **options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert ran == []
    assert not (tmp_path / "out").exists()


def test_a_config_of_joint_training_is_no_cell(ladder, toy_config, capsys):
    assert ladder(cells=str(toy_config)) == 2
    assert "of TRAIN.MODE joint; a cell must be of pretrain" in capsys.readouterr().err


def test_the_built_in_ladders_are_the_rows_of_table_3_in_order():
    cells = run_ladder.find_cells(["ladder"])
    assert [cell.name for cell in cells] == ["none", "baseline", "hap_0", "hap_1", "hap"]
    assert [cell.trains for cell in cells] == [False, True, True, True, True]
    assert cells[0].config == cells[1].config
    assert [cell.name for cell in run_ladder.find_cells(["table3"])] == ["none", *run_ladder.ROWS]


def test_time_left_is_that_of_the_same_cell_or_of_all():
    one, two, none = (run_ladder.Cell(name, Path(), trains=name != "none") for name in ("one", "two", "none"))
    assert run_ladder.time_left({"none": [5.0]}, [one]) == "?"
    assert run_ladder.time_left({"none": [5.0], "one": [60.0, 80.0]}, [one, two, none]) == "0:02:25"
    assert run_ladder.time_left({}, []) == "0:00:00"
