import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_datasets.py"


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def market(tmp_path):
    """Different one-colour crops in train, query and gallery."""
    for i, folder in enumerate(("bounding_box_train", "query", "bounding_box_test")):
        write(tmp_path, folder, "0001_c1s1_000001_00.jpg", 50 * i)
    return tmp_path


def write(root, folder, name, grey):
    path = root / "Market-1501-v15.09.15" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 8, 3), grey, np.uint8)).save(path)
    return path


def table(text):
    """Dataset name to its row, by column."""
    lines = [line.split() for line in text.splitlines() if "  " in line]
    header = lines[0]
    return {row[0]: dict(zip(header, row, strict=True)) for row in lines[1:]}


def test_sound_datasets_pass(main, market, capsys):
    assert main(["--root", str(market)]) == 0
    out = capsys.readouterr().out
    rows = table(out)
    assert set(rows) == {f"market1501_{split}" for split in ("train", "query", "gallery", "test")}
    assert rows["market1501_test"] == {
        "dataset": "market1501_test", "status": "ok", "folder": "Market-1501-v15.09.15", "records": "2", "images": "2",
        "unreadable": "0", "duplicates": "0", "leaked": "0", "skipped": "0",
    }  # fmt: skip
    assert out.endswith("no problems found\n")


def test_unreadable_image_is_a_problem_unless_fast(main, market, capsys):
    path = write(market, "query", "0002_c1s1_000001_00.jpg", 99)
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["market1501_query", "--root", str(market)]) == 1
    out = capsys.readouterr().out
    assert table(out)["market1501_query"]["unreadable"] == "1"
    assert "0002_c1s1_000001_00.jpg is truncated" in out
    assert main(["market1501_query", "--root", str(market), "--fast"]) == 0


def test_same_content_in_a_split_is_a_duplicate(main, market, capsys):
    write(market, "bounding_box_train", "0003_c1s1_000001_00.jpg", 0)
    assert main(["market1501_train", "--root", str(market)]) == 1
    assert table(capsys.readouterr().out)["market1501_train"]["duplicates"] == "1"


def test_same_content_in_train_and_test_is_a_leak(main, market, capsys):
    write(market, "bounding_box_test", "0003_c1s1_000001_00.jpg", 0)
    assert main(["market1501_train", "market1501_gallery", "--root", str(market)]) == 1
    out = capsys.readouterr().out
    assert table(out)["market1501_gallery"]["leaked"] == "1"
    assert table(out)["market1501_train"]["leaked"] == "0"
    assert "(market1501_train)" in out


def test_split_that_was_asked_for_must_be_there(main, tmp_path, capsys):
    write(tmp_path, "query", "0001_c1s1_000001_00.jpg", 0)
    assert main(["market1501_train", "--root", str(tmp_path)]) == 1
    assert 'see "Market-1501"' in capsys.readouterr().out


def test_split_that_nobody_asked_for_may_be_absent(main, tmp_path, capsys):
    write(tmp_path, "query", "0001_c1s1_000001_00.jpg", 0)
    assert main(["--root", str(tmp_path)]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["market1501_query"]["status"] == "ok"
    assert rows["market1501_train"]["status"] == "absent"


def test_folder_of_which_nothing_can_be_read_is_a_problem(main, tmp_path, capsys):
    (tmp_path / "LIP").mkdir()
    assert main(["--root", str(tmp_path)]) == 1
    assert table(capsys.readouterr().out)["lip_train"]["status"] == "problems"
    assert main(["--root", str(tmp_path / "LIP")]) == 1
    assert "no dataset found" in capsys.readouterr().out


def test_broken_annotation_is_a_problem_not_a_crash(main, tmp_path, capsys):
    write(tmp_path, "query", "holiday.jpg", 0)
    assert main(["market1501_query", "--root", str(tmp_path)]) == 1
    assert "holiday.jpg: expected a name like" in capsys.readouterr().out


def test_label_map_of_another_size_is_a_problem(main, tmp_path, capsys):
    base = tmp_path / "LIP"
    for folder, name, shape in (
        ("TrainVal_images/val_images", "a.jpg", (4, 6)),
        ("TrainVal_parsing_annotations/val_segmentations", "a.png", (6, 4)),
    ):
        (base / folder).mkdir(parents=True)
        Image.fromarray(np.zeros(shape, np.uint8)).save(base / folder / name)
    (base / "TrainVal_images" / "val_id.txt").write_text("a\n")
    assert main(["lip_val", "--root", str(tmp_path)]) == 1
    assert "the label map is 4x6 pixels but its image is 6x4" in capsys.readouterr().out


def test_bad_arguments_give_one_line_and_status_two(main, tmp_path, capsys):
    for arguments, message in (
        (["market1501_tset", "--root", str(tmp_path)], "did you mean market1501_test?"),
        (["--root", str(tmp_path / "none")], "set UNIHAP_DATASETS or --root"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    with pytest.raises(SystemExit) as caught:
        main(["--slow"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_script_exits_with_the_status(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["check_datasets.py", "nonsense", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert caught.value.code == 2


def test_real_datasets_pass(main, dev_data, capsys):
    names = [f"{d}_{s}" for d in ("cuhk01_as_market", "ccp_as_pa100k") for s in ("train", "test")]
    assert main([*names, "coco_keypoints_val", "lip_train", "--root", str(dev_data)]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["cuhk01_as_market_test"]["skipped"] == "6"
    assert (rows["coco_keypoints_val"]["records"], rows["coco_keypoints_val"]["images"]) == ("19", "8")
