"""The command that writes MODEL_ZOO.md from model_zoo/ and makes records of runs."""

import json
import re
import shutil
import sys
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import update_model_zoo

from unihap.engine import few_shot, ladder
from unihap.zoo import page

ROOT = Path(__file__).parents[2]
CONFIG = "configs/quick/toy.yaml"
COMMAND = "python tools/train_net.py --config configs/quick/toy.yaml"
RECORD = {
    "name": "toy", "section": "few_shot", "config": CONFIG, "command": COMMAND, "commit": "a" * 40,
    "checkpoint": "b" * 64, "time": "3 min 4 s", "hardware": "2 cores of Abacus 9", "date": "2026-11-22",
    "results": [{"dataset": "synth_lip_val", "task": "lip_parsing", "metric": "mIoU", "value": 77.72, "chance": 4.25}],
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """A copy of the repository's model zoo without its measured runs."""
    shutil.copytree(ROOT / "model_zoo", tmp_path / "model_zoo", ignore=shutil.ignore_patterns("measured"))
    (tmp_path / "model_zoo" / "measured").mkdir()
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("SEED: 1\n")
    return tmp_path


def put(root, **changes):
    """Writes a record, with some keys changed and those that are None left out."""
    record = {key: value for key, value in {**RECORD, **changes}.items() if value is not None}
    path = root / "model_zoo" / "measured" / f"{record.get('name', 'toy')}.json"
    path.write_text(json.dumps(record))
    return path


def result(**changes):
    return [{key: value for key, value in {**RECORD["results"][0], **changes}.items() if value is not None}]


def written(root):
    assert update_model_zoo.main([], root) == 0
    return (root / "MODEL_ZOO.md").read_text()


def tables(text):
    """Every table as heading above it and lines of cells."""
    found, heading = [], ""
    for block in text.split("\n\n"):
        heading = block.lstrip("# ") if block.startswith("#") else heading
        if block.startswith("|"):
            found.append((heading, [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]))
    return found


def section(text, title):
    return re.search(rf"^### {re.escape(title)}\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def test_the_page_of_the_repository_is_not_older_than_its_numbers():
    assert update_model_zoo.main(["--check"]) == 0


def test_check_writes_nothing_and_tells_a_stale_page_by_its_status(root, capsys):
    assert update_model_zoo.main(["--check"], root) == 1
    assert not (root / "MODEL_ZOO.md").exists()
    before = written(root)
    assert update_model_zoo.main(["--check"], root) == 0
    put(root)
    assert update_model_zoo.main(["--check"], root) == 1
    assert "stale; run python tools/update_model_zoo.py" in capsys.readouterr().err
    assert (root / "MODEL_ZOO.md").read_text() == before
    assert written(root) == written(root) != before


def test_every_published_number_stands_in_its_table_of_the_published_section():
    text = (ROOT / "MODEL_ZOO.md").read_text().split("## Measured by us")[0].split("## Published")[1]
    published = json.loads((ROOT / "model_zoo" / "published.json").read_text(), parse_float=Decimal)
    titles = {table["id"]: table["title"] for table in published["tables"]}
    assert len(published["rows"]) >= 180
    grids = tables(text)
    for row in published["rows"]:
        (grid,) = [lines for heading, lines in grids if heading.split(": ", 1)[1] == titles[row["table"]]]
        benchmark = f"{row['dataset']} {row['metric']}" + (f", {row['setting']}" if "setting" in row else "")
        cells = {(line[0], head): cell for line in grid[2:] for head, cell in zip(grid[0], line, strict=True)}
        found = cells.get((row["method"], benchmark)) or cells[benchmark, row["method"]]
        assert found == str(row["value"]) + (f" ± {row['std']}" if "std" in row else "")
    numbers = [c for _, g in grids for line in g[2:] for c in line[1:] if c != "–"]
    assert len(numbers) == len(published["rows"])


def test_known_published_numbers_keep_their_digits():
    text = (ROOT / "MODEL_ZOO.md").read_text()
    assert "| Human3.6M mIoU | 65.90 | 65.95 |" in text
    assert "| prompt tuning, one-shot | 93.65 ± 0.77 | 83.8 ± 5.08 |" in text
    assert "| HAP: all | 76.4 | 91.8 | 68.05 | 56.0 | 86.54 |" in text


def test_a_published_and_a_measured_number_never_share_a_table(root):
    put(root, results=result(benchmark="LIP"))
    text = written(root)
    published, measured = text.split("## Measured by us")
    assert all("ours" not in lines[0] for _, lines in tables(published))
    assert "77.7" not in published
    values = {str(row["value"]) for row in page.load_zoo(root).published["rows"]}
    assert not [c for _, lines in tables(measured) for line in lines for c in line if c.split(" ")[0] in values]
    assert ["LIP", "`lip_parsing`", "mIoU", "77.7 (toy)"] in tables(measured)[0][1]


def test_what_nobody_measured_says_so(root):
    text = written(root)
    grid = next(lines for heading, lines in tables(text) if heading == "The papers' benchmarks")
    assert {line[-1] for line in grid[2:]} == {"not measured"}
    for title in page.SECTIONS.values():
        assert "Nobody has measured this yet." in section(text, title)


def test_a_piece_with_a_benchmarks_dataset_name_does_not_fill_its_cell(root):
    put(root, results=[{"dataset": "lip_val", "task": "lip_parsing", "metric": "mIoU", "value": 77.7}])
    text = section(written(root), "The papers' benchmarks")
    assert "77.7" not in text


def test_a_run_is_shown_with_all_that_is_needed_to_repeat_it(root):
    put(root, note="Of wood.")
    shown = section(written(root), "Few-shot")
    assert "| `synth_lip_val` | `lip_parsing` | mIoU | 77.7 | 4.2 | `toy` |" in shown
    for fact in (f"[{CONFIG}]({CONFIG})", "commit `aaaaaaaaaaaa`;", "weights `bbbbbbbbbbbbbbbb`;", "3 min 4 s"):
        assert fact in shown
    assert "hardware 2 cores of Abacus 9; date 2026-11-22. Of wood." in shown
    assert f"\n      {COMMAND}" in shown


def test_a_spread_over_seeds_is_mean_deviation_and_number(root):
    put(root, results=result(method="prompt", std=1.26, seeds=[0, 1, 2], digits=2, trained=0.4321))
    assert "| `synth_lip_val` | prompt | `lip_parsing` | mIoU | 77.72 ± 1.26 | 3 | 4.25 | 0.43 % | `toy` |" in written(
        root
    )


def test_a_wide_table_has_a_line_for_every_method_and_the_guesses_first(root):
    other = result(method="hap", value=80, metric="PCK", chance=None)
    put(root, layout="wide", results=[*result(method="none"), *result(method="hap", value=79.96), *other])
    grid = tables(section(written(root), "Few-shot"))[0][1]
    assert grid[0] == ["", "`synth_lip_val` mIoU", "`synth_lip_val` PCK"]
    assert grid[2:] == [["blind guess", "4.2", "–"], ["none", "77.7", "not measured"], ["hap", "80.0", "80.0"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": None}, "commit is missing"),
        ({"hardware": ""}, "hardware is missing"),
        ({"results": []}, "results is missing"),
        ({"commit": "abc"}, "commit is 'abc', not a commit's 40 hexadecimal digits"),
        ({"checkpoint": ["c" * 64, "d"]}, "checkpoint is 'd', not a SHA-256"),
        ({"date": "yesterday"}, "date is 'yesterday', not a date"),
        ({"section": "elsewhere"}, "section is 'elsewhere', not one of rendered_a"),
        ({"config": "configs/gone.yaml"}, "config: no file configs/gone.yaml in the repository"),
        ({"tmie": "2 s"}, "tmie is not a known key"),
        ({"time": 3}, "time is 3, of the wrong type"),
        ({"results": result(value="77")}, "results[0].value is '77', of the wrong type"),
        ({"results": result() + result(metric=None)}, "results[1].metric is missing"),
        ({"results": result(std=1.0, seeds=[3])}, "results[0].std needs at least two seeds in results[0].seeds"),
        ({"results": result(benchmark="LIPS")}, "results[0].benchmark 'LIPS' has no 'mIoU' in benchmarks.json"),
        ({"results": result(task="a | b")}, "results[0].task is 'a | b'; a bar"),
        ({"layout": "wide"}, "results[0].method is missing"),
    ],
)
def test_a_broken_record_is_refused_with_its_file_and_key(root, capsys, changes, said):
    path = put(root, **changes)
    assert update_model_zoo.main([], root) == 2
    assert capsys.readouterr().err.startswith(f"update_model_zoo.py: {path}: {said}")
    assert not (root / "MODEL_ZOO.md").exists()


def test_a_record_that_is_not_json_and_two_of_one_name_are_refused(root, capsys):
    path = put(root)
    (path.parent / "again.json").write_text(path.read_text())
    assert update_model_zoo.main([], root) == 2
    assert "two records are called 'toy'" in capsys.readouterr().err
    (path.parent / "again.json").write_text("{")
    assert update_model_zoo.main([], root) == 2
    assert "again.json: not JSON" in capsys.readouterr().err


def test_a_broken_published_number_is_refused_with_its_file_and_key(root, capsys):
    path = root / "model_zoo" / "published.json"
    content = json.loads(path.read_text())
    content["rows"][2]["source"] = ["hearsay"]
    path.write_text(json.dumps(content))
    assert update_model_zoo.main([], root) == 2
    assert f"{path}: rows[2].source 'hearsay' is not among the sources" in capsys.readouterr().err
    content["rows"][2] = content["rows"][1]
    path.write_text(json.dumps(content))
    assert update_model_zoo.main([], root) == 2
    assert f"{path}: rows[2].value: the table unihcp_results has two values" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """A finished toy run: two tasks, one with its own test set and one with another."""
    folder = tmp_path / "out"
    weights = folder / "checkpoints" / "iteration_00000006" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    weights.with_name("card.json").write_text(json.dumps({"git_commit": "c" * 40}))
    tests = "TASKS: {coco_pose: {TEST: [toy_val]}, lip_parsing: {TEST: []}}"
    (folder / "config.yaml").write_text(f"TRAIN: {{TASKS: [coco_pose, lip_parsing]}}\n{tests}\n")
    metrics = {"toy_val": {"AP": 12.345678, "PCK@0.2": 60.0, "AR": 3.0}, "lip_val": {"mIoU": 7.0, "IoU/hat": 1.0}}
    (folder / "results.json").write_text(json.dumps(metrics))
    return folder


def add(root, run, *more):
    words = ["--add", str(run), "--name", "new", "--config", CONFIG, "--command", COMMAND, *more]
    return update_model_zoo.main(words, root)


def test_a_run_becomes_a_record_and_a_part_of_the_page(root, run, capsys):
    more = ["--time", "5 s", "--metric", "PCK@0.2", "--chance", "toy_val:PCK@0.2=42.9", "--section", "real"]
    assert add(root, run, *more) == 0
    path = root / "model_zoo" / "measured" / "new.json"
    assert capsys.readouterr().out == f"wrote {path}\n"
    record = json.loads(path.read_text())
    assert record["commit"] == "c" * 40
    assert record["checkpoint"] == sha256(b"weights").hexdigest()
    assert record["hardware"].count("torch ") == 1
    assert re.fullmatch(r"\d+ cores of .+", record["hardware"])
    assert record["results"] == [
        {"dataset": "toy_val", "task": "coco_pose", "metric": "AP", "value": 12.3457},
        {"dataset": "toy_val", "task": "coco_pose", "metric": "PCK@0.2", "value": 60.0, "chance": 42.9},
        {"dataset": "lip_val", "task": "lip_parsing", "metric": "mIoU", "value": 7.0},
    ]
    assert "| `toy_val` | `coco_pose` | AP | 12.3 | – | `new` |" in (root / "MODEL_ZOO.md").read_text()
    assert add(root, run, *more) == 2
    assert "new.json exists already" in capsys.readouterr().err


def test_the_protocol_tells_task_records_and_whose_results_they_are(root, run, capsys):
    stated = {
        "task": "mpii_pose",
        "num_records": 9,
        "weights": [{"file": "w", "sha256": sha256(b"weights").hexdigest()}],
    }
    (run / "results.json").write_text(json.dumps({"elsewhere": {"PCKh": 50.0}}))
    (run / "protocols.json").write_text(json.dumps({"elsewhere": stated}))
    assert add(root, run, "--time", "5 s") == 0
    record = json.loads((root / "model_zoo" / "measured" / "new.json").read_text())
    assert record["results"] == [
        {"dataset": "elsewhere", "task": "mpii_pose", "metric": "PCKh", "value": 50.0, "records": 9}
    ]
    (run / "checkpoints" / "iteration_00000006" / "weights.safetensors").write_bytes(b"others")
    assert add(root, run, "--time", "5 s", "--name", "other") == 2
    assert "protocols.json: weights: the results are of " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "more", "said"),
    [
        (lambda run: (run / "results.json").unlink(), (), "no results.json or ladder.json or few_shot.json in"),
        (lambda run: (run / "config.yaml").unlink(), ("--time", "1 s"), "no evaluated task has toy_val"),
        (lambda run: (run / "config.yaml").touch(), (), "do not tell how long the run took; give --time"),
        (lambda run: None, ("--time", "1 s", "--chance", "toy_val=3"), "'toy_val=3' is not DATASET:METRIC=VALUE"),
        (lambda run: None, ("--time", "1 s", "--weights", "nowhere"), "no weights at nowhere"),
        (lambda run: None, ("--time", "1 s", "--config", "configs/gone.yaml"), "config: no file configs/gone.yaml"),
    ],
)
def test_a_run_that_lacks_something_is_refused_and_leaves_no_record(root, run, capsys, spoil, more, said):
    spoil(run)
    assert add(root, run, *more) == 2
    assert said in capsys.readouterr().err
    assert list((root / "model_zoo" / "measured").iterdir()) == []


def test_a_record_needs_its_config_and_command(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        update_model_zoo.parse(["--add", str(run)])
    assert "--add needs --config and --command" in capsys.readouterr().err


def test_a_ladder_becomes_a_wide_table(root, tmp_path):
    def rung(name, *values):
        results = {
            seed: {"metrics": dict.fromkeys(ladder.TITLES, value), "checkpoint": "", "seconds": 40.0}
            for seed, value in enumerate(values)
        }
        return ladder.Rung(name, "x.yaml", results)

    table = ladder.tabulate([rung("none", 1.0), rung("hap", 2.0, 4.0)], dict.fromkeys(ladder.TITLES, 0.5))
    about = {"git_commit": "d" * 40, "probe": {"reid": "r", "attributes": ["a", "b"], "keypoints": ["k", "l"]}}
    (tmp_path / "ladder.json").write_text(json.dumps({**about, **table}))
    assert add(root, tmp_path, "--section", "encoders") == 0
    text = section((root / "MODEL_ZOO.md").read_text(), "Encoders: HAP's ladder")
    grid = tables(text)[0][1]
    assert grid[0] == ["", "`r` mAP", "`b` mA", "`l` PCK"]
    assert grid[2:] == [["blind guess", *["0.5"] * 3], ["none", *["1.0"] * 3], ["hap", *["3.0 ± 1.4"] * 3]]
    assert "time 2 min 0 s in 3 runs" in text


def test_a_few_shot_comparison_becomes_a_line_for_every_method(root, tmp_path):
    def run(value):
        about = {"dataset": "toy_val", "records": 3, "iterations": 5, "memory_mb": None, "metrics": {"mIoU": value}}
        return {**about, "trainable": 10, "parameters": 1000, "seconds": 9.0, "wall_seconds": 20.0}

    method = few_shot.Method("toy_parsing", "prompt", "x.yaml", "mIoU", {"mIoU": 2.0}, {0: run(10.0), 1: run(12.0)})
    about = {"git_commit": "d" * 40, "weights_sha256": "e" * 64, "rows": few_shot.tabulate([method])}
    (tmp_path / "few_shot.json").write_text(json.dumps(about))
    assert add(root, tmp_path, "--section", "few_shot") == 0
    text = section((root / "MODEL_ZOO.md").read_text(), "Few-shot")
    assert "| `toy_val` | prompt | `toy_parsing` | mIoU | 11.0 ± 1.4 | 2 | 2.0 | 1.00 % | 9 | `new` |" in text
    assert "weights `eeeeeeeeeeeeeeee`; time 0 min 40 s in 2 runs" in text
