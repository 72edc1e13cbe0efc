"""The command line: exit status, one line for a user's mistake, and what a run leaves behind."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

from unihap.engine.checkpoint import load_model


def run(*words):
    return train_net.main(list(map(str, words)))


@pytest.fixture(scope="module")
def trained(toy_config, toy_root, tmp_path_factory):
    """A finished toy run with its evaluation."""
    output = tmp_path_factory.mktemp("run") / "out"
    words = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", output, "SOLVER.MAX_ITERATIONS", 6]
    assert run(*words, "TEST.VISUALIZE", 2, "TRAIN.LOG_LAYERS", True) == 0
    return output


def test_a_run_leaves_what_the_contract_says(trained):
    assert {path.name for path in trained.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "results.json",
        "protocols.json",
        "checkpoints",
        "visualizations",
    }
    results = json.loads((trained / "results.json").read_text())
    main = {"market1501_test": "mAP", "pa100k_test": "mA", "coco_keypoints_val": "AP", "lip_val": "mIoU"}
    assert set(results) == {*main, "crowdhuman_val"}
    assert all(0 <= results[name][metric] <= 100 for name, metric in main.items())
    assert {"AP", "MR-2", "JI", "recall"} <= set(results["crowdhuman_val"])
    kinds = ("", "_best", "_worst")
    sheets = {f"{name}{kind}.jpg" for name in results for kind in kinds}
    assert {path.name for path in (trained / "visualizations").iterdir()} == sheets


def test_every_line_of_the_log_names_iteration_task_terms_rate_speed_and_memory(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * 5
    by_task = {line["task"]: line for line in lines}
    assert {"loss_identity", "loss_triplet"} <= set(by_task["general_reid"])
    assert {"loss_mask", "loss_dice", "loss_probability", "loss_mask_0", "loss_mask_2"} <= set(by_task["lip_parsing"])
    for line in lines:
        assert {"iteration", "loss", "lr", "images_per_second", "peak_memory_mb"} <= set(line)
        terms = [v for k, v in line.items() if (k.startswith("loss_") and not k[-1].isdigit()) or k == "loss_l1"]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-4)


def test_a_checkpoint_loads_as_a_model_that_predicts(trained):
    model = load_model(max((trained / "checkpoints").iterdir()))
    assert not model.training
    assert model.tasks == ["general_reid", "pa100k_attributes", "coco_pose", "lip_parsing", "pedestrian_detection"]
    assert model(torch.zeros(1, 3, 64, 48, dtype=torch.uint8), "coco_pose")[-1].heatmap.shape == (1, 17, 16, 12)


def test_a_run_into_a_full_folder_is_refused_and_deletes_nothing(trained, toy_config, toy_root, capsys):
    before = sorted(path.name for path in trained.rglob("*"))
    assert run("--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", trained) == 2
    assert "is not empty; give --resume to go on, or another OUTPUT_DIR" in capsys.readouterr().err
    assert sorted(path.name for path in trained.rglob("*")) == before


def test_evaluation_alone_repeats_the_numbers_of_the_run(trained, toy_config, toy_root, tmp_path):
    weights = max((trained / "checkpoints").iterdir())
    words = ["--config", toy_config, "--eval-only", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "eval"]
    assert run(*words, "MODEL.WEIGHTS", weights) == 0
    again = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert again == json.loads((trained / "results.json").read_text())


def test_a_trained_model_is_evaluated_on_other_datasets_by_overrides_alone(trained, toy_config, dev_data, tmp_path):
    words = ["--config", toy_config, "--eval-only", "DATA.ROOT", dev_data, "OUTPUT_DIR", tmp_path / "eval"]
    words += ["MODEL.WEIGHTS", max((trained / "checkpoints").iterdir())]
    words += ["TASKS.general_reid.TEST", "[cuhk01_as_market_train, cuhk01_as_market_test]"]
    words += ["TASKS.coco_pose.TEST", "('coco_keypoints_val', 'mpii_coco_keypoints_val')"]
    words += ["TASKS.lip_parsing.TEST", "[ccp_lip_classes_val]", "TASKS.lip_parsing.MAX_RECORDS", 2]
    words += ["TASKS.pedestrian_detection.TEST", "[pennfudan_test]", "TASKS.pedestrian_detection.MAX_RECORDS", 2]
    assert run(*words) == 0
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    main = {
        "cuhk01_as_market_train": "mAP",
        "cuhk01_as_market_test": "mAP",
        "pa100k_test": "mA",
        "coco_keypoints_val": "PCK@0.2",
        "mpii_coco_keypoints_val": "PCK@0.2",
        "ccp_lip_classes_val": "mIoU",
        "pennfudan_test": "AP",
    }
    assert set(results) == set(main)
    assert all(0 <= results[name][metric] <= 100 for name, metric in main.items())
    assert not {"IoU/face", "IoU/left_leg", "IoU/right_shoe"} & set(results["ccp_lip_classes_val"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["TRAIN.TASKS", "[coco_pse]"], "unknown task 'coco_pse'; did you mean coco_pose?"),
        (["TRAIN.TASK", "[coco_pose]"], "unknown config key TRAIN.TASK; did you mean TRAIN.TASKS?"),
        (["TASKS.coco_pose.BATCHSIZE", "1"], "unknown config key TASKS.coco_pose.BATCHSIZE"),
        (["TASKS.coco_pose.TRAIN", "[coco_keypoint_train]"], "did you mean coco_keypoints_train?"),
        (["TASKS.coco_pose.TRAIN", "[lip_train]"], "dataset lip_train is for parsing, task coco_pose is pose"),
        (["TASKS.lip_parsing.TRAIN", "[cihp_train]"], "instance-level_human_parsing"),
        (["TASKS.general_reid.BATCH_SIZE", "3"], "BATCH_SIZE 3 must be a multiple of IMAGES_PER_PERSON 2"),
        (["TASKS.coco_pose.GPUS", "0"], "TASKS.coco_pose.GPUS must be at least 1"),
        (["MODEL.ENCODER.NAME", "vit_pico_patch61"], "did you mean vit_pico_patch16?"),
        (["MODEL.WEIGHTS", "nowhere.safetensors"], "no weights at nowhere.safetensors"),
        (["SOLVER.OPTIMIZER", "sgd"], "unknown SOLVER.OPTIMIZER 'sgd'"),
        (["TRAIN.PRECISION", "float16"], "unknown TRAIN.PRECISION 'float16'"),
        (["TRAIN.MODE", "finetun"], "unknown TRAIN.MODE 'finetun'; did you mean finetune?"),
        (["TASKS.coco_pose.POSITIVE_RATIO", "[0.5]"], "task coco_pose needs 17 positive ratios, got (1,)"),
        (["SOLVER.WARMUP_ITERATIONS", "50"], "SOLVER.WARMUP_ITERATIONS must be less than MAX_ITERATIONS"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy_and_exit_status_2(
    words, message, toy_config, toy_root, tmp_path, capsys
):
    assert run("--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out", *words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert said[-1].startswith("train_net.py: ")


def test_nothing_to_evaluate_is_refused(toy_config, toy_root, tmp_path, capsys):
    assert run("--config", toy_config, "--eval-only", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out") == 2
    assert "set MODEL.WEIGHTS, or give --resume" in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused(trained, toy_config, toy_root, tmp_path, capsys):
    weights = max((trained / "checkpoints").iterdir())
    words = ["--config", toy_config, "--eval-only", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    assert run(*words, "MODEL.WEIGHTS", weights, "MODEL.DECODER.WIDTH", 64) == 2
    assert "holds another architecture than this model" in capsys.readouterr().err


def test_the_dry_run_shows_config_plan_and_parameters_and_makes_nothing(toy_config, tmp_path, capsys):
    assert run("--config", toy_config, "--dry-run", "OUTPUT_DIR", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "NAME: vit_pico_patch16" in said
    assert "general_reid" in said
    assert "shared  encoder" in said
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_fails_the_run_with_its_name_or_is_skipped_and_counted(
    toy_config, toy_root, tmp_path, capsys
):
    root = tmp_path / "data"
    shutil.copytree(toy_root, root)
    for image in sorted((root / "PA-100K" / "data").glob("*.jpg"))[:4]:
        image.write_bytes(image.read_bytes()[:300])
    words = ["--config", toy_config, "DATA.ROOT", root, "SOLVER.MAX_ITERATIONS", 4, "TRAIN.EVAL_AT_END", False]
    assert run(*words, "OUTPUT_DIR", tmp_path / "error") == 1
    said = capsys.readouterr().err
    assert "the run failed: record" in said
    assert "DATA.ON_BAD_IMAGE skip" in said
    assert run(*words, "OUTPUT_DIR", tmp_path / "skip", "DATA.ON_BAD_IMAGE", "skip") == 0
    lines = [json.loads(line) for line in (tmp_path / "skip" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["unreadable_images"] for line in lines if line["task"] == "pa100k_attributes") > 0


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(toy_config, toy_root, tmp_path, capsys):
    words = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    assert run(*words, "SOLVER.MAX_ITERATIONS", 6, "LOSS.POSE.HEATMAP", "1e39") == 1
    said = capsys.readouterr().err
    assert "loss is not finite at iteration 0: task coco_pose, heatmap=inf" in said
    saved = torch.load(tmp_path / "out" / "bad_batch_coco_pose.pth", weights_only=False)
    assert saved["batch"].images.shape == (2, 3, 64, 48)


def test_recomputed_activations_train_the_same_weights(toy_config, toy_root, tmp_path):
    """Drop path draws the same when a block runs again in the backward pass."""
    from safetensors.torch import load_file

    words = ["--config", toy_config, "DATA.ROOT", toy_root, "SOLVER.MAX_ITERATIONS", 3, "TRAIN.EVAL_AT_END", False]
    checkpointed = [
        word for task in ("coco_pose", "lip_parsing") for word in (f"TASKS.{task}.CHECKPOINT_ACTIVATIONS", True)
    ]
    assert run(*words, "OUTPUT_DIR", tmp_path / "kept") == 0
    assert run(*words, "OUTPUT_DIR", tmp_path / "again", *checkpointed) == 0
    a, b = (
        load_file(next((tmp_path / n / "checkpoints").iterdir()) / "weights.safetensors") for n in ("kept", "again")
    )
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "words", [["TRAIN.PRECISION", "bfloat16"], ["SOLVER.OPTIMIZER", "adafactor"], ["DATA.NUM_WORKERS", 1]]
)
def test_other_ways_to_train_run_too(words, toy_config, toy_root, tmp_path):
    base = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out", "SOLVER.MAX_ITERATIONS", 3]
    assert run(*base, *words) == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 15
    assert all(loss > 0 for loss in losses)
