import json
import logging
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from unihap.synth.layouts.base import Amount

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "synthesize_people.py"
SMALL = [
    "--count", "market1501=3,3", "--count", "pa100k=2,2", "--count", "lip=2,2", "--count", "coco_keypoints=2,2",
    "--count", "crowdhuman=2,2", "--count", "prcc=2,2", "--count", "luperson=3", "--count", "cuhkpedes=2,2",
    "--count", "threedpw=1,1",
]  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def studio():
    """People as rectangles, drawn in this process."""
    sys.path.append(str(ROOT / "tests" / "synth"))
    from fake_studio import FakeStudio

    return FakeStudio


@pytest.fixture(scope="module", params=["a", "b"])
def rendered(request, tool, studio, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "people"
    arguments = ["--out", str(folder), "--people", "2", "--seed", "4", "--domain", request.param, "--workers", "0"]
    assert tool["main"]([*arguments, "--sheets", "4", *SMALL], studio) == 0
    return folder


def test_every_dataset_is_written_and_drawn(rendered):
    manifest = json.loads((rendered / "manifest.json").read_text())
    assert set(manifest["counts"]) == {
        "market1501", "pa100k", "lip", "coco_keypoints", "crowdhuman", "prcc", "luperson", "cuhkpedes", "threedpw",
    }  # fmt: skip
    assert manifest["counts"]["lip"]["pictures"] == {"train": 2, "val": 2}
    assert {path.stem for path in (rendered / "sheets").iterdir()} == {
        "market1501_train", "market1501_test", "pa100k_train", "pa100k_test", "lip_train", "lip_val",
        "coco_keypoints_train", "coco_keypoints_val", "crowdhuman_train", "crowdhuman_val", "prcc_train",
        "prcc_test", "luperson", "cuhkpedes", "threedpw",
    }  # fmt: skip
    for path in (rendered / "sheets").iterdir():
        sheet = cv2.imread(str(path))
        assert (sheet.reshape(-1, 3).std(0) > 10).all()
    assert not [name for name in manifest["files"] if name.startswith("sheets")]


def test_label_maps_are_drawn_in_colour(rendered, studio):
    sheet = cv2.imread(str(rendered / "sheets" / "lip_train.png")).astype(int)
    assert (np.ptp(sheet, axis=2) > 120).mean() > 0.01


def test_a_finished_folder_verifies_and_a_changed_one_does_not(tool, rendered, capsys):
    assert tool["main"](["--out", str(rendered), "--verify"]) == 0
    assert capsys.readouterr().out == "every file is as it was rendered\n"
    path = rendered / "LIP" / "TrainVal_images" / "train_id.txt"
    before = path.read_text()
    path.write_text("")
    assert tool["main"](["--out", str(rendered), "--verify"]) == 1
    path.write_text(before)
    assert capsys.readouterr().out == f"{path} has changed\n1 files differ from the manifest\n"


def test_resuming_a_finished_run_changes_nothing(tool, studio, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    arguments = ["--out", str(tmp_path), "--people", "1", "--datasets", "luperson", "--count", "luperson=1"]
    arguments += ["--workers", "0", "--sheets", "0"]
    assert tool["main"](arguments, studio) == 0
    before = (tmp_path / "manifest.json").stat().st_mtime_ns
    assert not (tmp_path / "sheets").exists()
    assert tool["main"]([*arguments, "--resume"], studio) == 0
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == before
    assert "is finished already" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--people", "0"], "0 people make no dataset"),
        ([], "how many people? give their number or a preset"),
        (["--people", "3", "--datasets", "pa100"], "did you mean pa100k?"),
        (["--people", "3", "--count", "lip=many"], "--count lip=many: expected NAME=TRAIN,TEST, e.g. pa100k=700,200"),
        (["--people", "3", "--domain", "c"], "unknown domain 'c'"),
        (["--people", "3", "--preset", "mini"], "leave the number of people out"),
        (["--people", "3", "--workers", "-1"], "must not be negative"),
        (["--verify"], "no manifest.json in"),
    ],
)
def test_bad_arguments_give_one_line_and_status_two(tool, studio, tmp_path, capsys, arguments, message):
    assert tool["main"](["--out", str(tmp_path / "out"), *arguments], studio) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("synthesize_people.py: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_option_gives_one_line_and_status_two(tool, capsys):
    with pytest.raises(SystemExit) as caught:
        tool["main"](["--people", "3"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "synthesize_people.py: the following arguments are required: --out; see --help\n"


def test_a_missing_extra_is_named(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unihap.synth.generate.find_spec", lambda name: None)
    assert tool["main"](["--out", str(tmp_path), "--people", "3"]) == 1
    assert 'pip install "unihap[synth]"' in capsys.readouterr().err


def test_a_folder_with_something_in_it_is_refused(tool, studio, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert tool["main"](["--out", str(tmp_path), "--people", "3"], studio) == 2
    assert "is not empty and holds no unfinished run" in capsys.readouterr().err


def test_stopping_says_how_to_go_on(tool, studio, tmp_path, capsys):
    class Stopped(studio):
        def crop(self, *arguments, **rest):
            raise KeyboardInterrupt

    arguments = ["--out", str(tmp_path), "--people", "1", "--workers", "0", "--datasets", "lip"]
    assert tool["main"](arguments, Stopped) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err


def test_the_help_tells_what_a_hundred_people_give(tool, capsys):
    with pytest.raises(SystemExit):
        tool["main"](["--help"])
    assert "market1501      train 100, test 40" in capsys.readouterr().out


def test_a_preset_is_brief_unless_told_otherwise(tool, studio, tmp_path, monkeypatch):
    monkeypatch.setitem(tool["PRESETS"], "tiny", {"luperson": Amount({"train": 1}, (32, 16))})
    for name, more in (("brief", []), ("full", ["--extra", "full"])):
        arguments = ["--out", str(tmp_path / name), "--preset", "tiny", "--workers", "0", "--sheets", "0", *more]
        assert tool["main"](arguments, studio) == 0
        assert json.loads((tmp_path / name / "manifest.json").read_text())["options"]["extra"] == name
