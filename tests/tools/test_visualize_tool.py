"""The command that draws pre-training: reconstructions, masks and attention."""

import shutil
import sys
from pathlib import Path

import crops
import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import visualize

from unihap.build.pretrain_model import build_pretrain_model
from unihap.build.pretrain_pictures import find_config, find_weights, gather_crops, read_pretrain_config
from unihap.checkpoints.files import save_weights
from unihap.engine.pretrain import weights_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run's folder with one checkpoint of random weights, and crops."""
    root = tmp_path_factory.mktemp("visualize")
    run = root / "run"
    run.mkdir()
    (run / "config.yaml").write_text(crops.CONFIG)
    model = build_pretrain_model(read_pretrain_config(run / "config.yaml"))
    save_weights(run / "checkpoints" / "iteration_00000002" / "weights.safetensors", weights_of(model), {"format": 1})
    crops.make(root / "people")
    return root


def run(toy, what, *words, crops_of=None, weights="run"):
    out = ["--out", toy / "sheet.png"] if "--out" not in words else []
    given = [*(crops_of or [toy / "people"]), *out]
    if weights:
        given += ["--weights", toy / weights]
    return visualize.main(["hap", what, *map(str, [*given, *words])])


@pytest.fixture
def cells(monkeypatch):
    """Captions and pictures of the sheets that are drawn, with their headings."""
    drawn, lay_out = [], visualize.lay_out
    monkeypatch.setattr(visualize, "lay_out", lambda *sheet: drawn.append(sheet) or lay_out(*sheet))
    return drawn


def names(sheet):
    return [name for name, _ in sheet[0]]


@pytest.mark.parametrize(
    "words",
    [("reconstruct",), ("reconstruct", "--variant", "both"), ("mask",), ("attention",), ("attention", "--head", "1")],
)
def test_the_same_command_writes_the_same_bytes_and_another_seed_others(toy, words):
    what, *more = words
    assert run(toy, what, *more, "--num", 3) == 0
    first = (toy / "sheet.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert run(toy, what, *more, "--num", 3) == 0
    assert (toy / "sheet.png").read_bytes() == first
    assert run(toy, what, *more, "--num", 3, "--seed", 5) == 0
    assert (toy / "sheet.png").read_bytes() != first


@pytest.mark.parametrize("place", ["run", "run/checkpoints/iteration_00000002", "weights.safetensors"])
def test_a_run_a_checkpoint_and_its_file_find_their_config(toy, place, cells):
    checkpoint = toy / "run" / "checkpoints" / "iteration_00000002"
    place = checkpoint / place if place.endswith(".safetensors") else toy / place
    assert find_config(place) == toy / "run" / "config.yaml"
    assert find_weights(place) == (place if place.is_file() else checkpoint)
    assert run(toy, "reconstruct", "--num", 1, weights=place) == 0
    assert "iteration_00000002" in cells[0][1]


def test_reconstruct_and_mask_hide_the_same_patches(toy, monkeypatch):
    seen = {}
    for what in ("reconstruction_cell", "mask_cell"):
        cell = getattr(visualize, what)
        monkeypatch.setattr(
            visualize, what, lambda *a, what=what, cell=cell: seen.setdefault(what, []).append(a) or cell(*a)
        )
    assert run(toy, "reconstruct", "--num", 4) == 0
    assert run(toy, "mask", "--num", 4) == 0
    for reconstruction, mask in zip(*seen.values(), strict=True):
        assert reconstruction[0] == mask[0]
        assert reconstruction[2].sum() == 4  # of 4 x 2 patches
        assert (reconstruction[2] == mask[5]).all()


def test_pasted_pixels_are_the_true_ones_where_visible_and_the_sheet_says_which_variant(toy, monkeypatch, cells):
    seen = []
    cell = visualize.reconstruction_cell
    monkeypatch.setattr(visualize, "reconstruction_cell", lambda *a: seen.append(a) or cell(*a))
    assert run(toy, "reconstruct", "--num", 2, "--variant", "both") == 0
    for _, image, mask, painted in seen:
        hidden = mask.repeat(16, 0).repeat(16, 1)
        assert (painted["pasted"][~hidden] == image[~hidden]).all()
        assert (painted["pasted"][hidden] == painted["whole"][hidden]).all()
        assert (painted["whole"][~hidden] != image[~hidden]).any()
    assert "pasted: true pixels where visible; whole: prediction everywhere; mean and contrast" in cells[0][2]
    assert run(toy, "reconstruct", "--num", 1, "--set", "PRETRAIN.NORMALIZE_TARGET", "false") == 0
    assert cells[1][2] == "pasted: true pixels where visible"


def test_asked_parts_are_hidden_and_absent_ones_left_out(toy, monkeypatch):
    seen = []
    cell = visualize.mask_cell
    monkeypatch.setattr(visualize, "mask_cell", lambda *a: seen.append(a) or cell(*a))
    assert run(toy, "mask", "--num", 12, "--parts", "left_leg", "head", weights="run") == 0
    assert {tuple(a[4]) for a in seen[:-1]} == {("left_leg", "head")}
    assert tuple(seen[-1][4]) == ()  # the last crop has no keypoints
    for a in seen[:-1]:
        left_leg = a[4]["left_leg"]
        assert (a[5] & left_leg).sum() == min(4, left_leg.sum())


def test_masks_need_no_weights(toy):
    config = toy / "run" / "config.yaml"
    assert run(toy, "mask", "--config", config, weights=None) == 0
    assert run(toy, "mask", "--config", config, "--set", "PRETRAIN.MASK.GUIDANCE", "keypoint", weights=None) == 0
    assert run(toy, "mask", "--config", config, "--set", "PRETRAIN.MASK.COMPAT", "release", weights=None) == 0


def test_attention_is_asked_by_the_patch_of_the_keypoint_and_crops_without_it_are_passed_over(toy, monkeypatch):
    seen = []
    cell = visualize.attention_cell
    monkeypatch.setattr(visualize, "attention_cell", lambda *a: seen.append(a) or cell(*a))
    assert run(toy, "attention", "--num", 12, "--keypoint", "left_ankle") == 0
    assert len(seen) == 11
    shown = gather_crops(read_pretrain_config(toy / "run" / "config.yaml"), [str(toy / "people")])
    for index, (name, _, attention, query, _, asked) in enumerate(seen):
        x, y, _ = shown[index].keypoints[15].tolist()
        assert query == (int(y) // 16, int(x) // 16)
        assert attention.sum() == pytest.approx(1)
        assert (name, asked) == (f"{index:03d}.png", "left_ankle")
    assert run(toy, "attention", "--num", 12, "--patch", 1, 0) == 0
    assert {a[3] for a in seen[11:]} == {(1, 0)}
    assert len(seen) == 11 + 12


def test_attention_of_a_block_is_the_models(toy, monkeypatch):
    seen = []
    cell = visualize.attention_cell
    monkeypatch.setattr(visualize, "attention_cell", lambda *a: seen.append(a) or cell(*a))
    assert run(toy, "attention", "--num", 1, "--patch", 3, 1, "--block", 0, "--head", 1) == 0
    model = visualize.load_autoencoder(read_pretrain_config(toy / "run" / "config.yaml"), find_weights(toy / "run"))
    image = torch.from_numpy(seen[0][1].copy()).permute(2, 0, 1)[None]
    row = model.attention(image, 0)[0, 1, 1 + 3 * 2 + 1].numpy()
    np.testing.assert_allclose(seen[0][2].ravel(), row[1:] / row[1:].sum(), atol=1e-6)
    assert seen[0][4] == pytest.approx(row[0], abs=1e-6)


def test_image_files_take_keypoints_of_the_nearest_index_above_and_all_are_drawn(toy, cells, tmp_path):
    files = [toy / "people" / f"{i:03d}.png" for i in (*range(9), 11)]
    assert run(toy, "mask", crops_of=files) == 0
    assert names(cells[0]) == [file.name for file in files]
    assert run(toy, "attention", crops_of=files) == 0
    assert names(cells[1]) == [file.name for file in files[:-1]]
    alone = tmp_path / "alone.png"
    shutil.copy(files[0], alone)
    assert (
        run(
            toy,
            "mask",
            crops_of=[alone, toy / "people"],
        )
        == 0
    )
    assert len(cells[2][0]) == visualize.NUM_CROPS


def test_a_context_autoencoder_shows_attention_and_paints_nothing(toy, capsys):
    cae = ["--set", "PRETRAIN.FRAMEWORK", "cae"]
    assert run(toy, "attention", *cae) == 0
    assert run(toy, "reconstruct", *cae) == 2
    assert "predicts tokens and paints no pixels" in capsys.readouterr().err


def test_masks_by_attention_are_the_models(toy, capsys):
    guided = ["--set", "PRETRAIN.MASK.GUIDANCE", "attention"]
    assert run(toy, "reconstruct", *guided) == 0
    assert run(toy, "mask", *guided) == 2
    assert "draw hap reconstruct instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reconstruct", "P"], "give --weights W"),
        (["mask", "P"], "give --weights W or --config FILE"),
        (["mask", "P", "--weights", "missing"], "no weights at missing"),
        (["mask", "P", "--weights", "P"], "give --config FILE"),
        (["mask", "missing", "--weights", "R"], "no crops 'missing'"),
        (["mask", "missing.png", "--weights", "R"], "no image missing.png"),
        (["mask", "P", "--weights", "R", "--keypoints", "missing.npz"], "no keypoint index missing.npz"),
        (["mask", "P", "--weights", "R", "--num", "0"], "--num must be at least 1, got 0"),
        (["mask", "P", "--weights", "R", "--parts", "hed"], "unknown part 'hed'; did you mean head"),
        (["mask", "P", "--weights", "R", "--set", "PRETRAIN.MASK.RATIO", "2"], "between 0 and 1, got 2"),
        (["mask", "P", "--weights", "R", "--set", "TRAIN.MODE", "joint"], "give the config of a pre-training run"),
        (
            ["mask", "P", "--weights", "R", "--set", "PRETRAIN.MASK.COMPAT", "release", "--parts", "head"],
            "--parts hides whole parts",
        ),
        (["attention", "P", "--weights", "R", "--keypoint", "left_hand"], "unknown keypoint 'left_hand'"),
        (["attention", "P", "--weights", "R", "--head", "7"], "no head 7: the block has 2"),
        (["attention", "P", "--weights", "R", "--head", "best"], "--head must be mean or a number"),
        (["attention", "P", "--weights", "R", "--block", "2"], "no block 2: the encoder has 2"),
        (["attention", "P", "--weights", "R", "--patch", "4", "0"], "no patch (4, 0)"),
        (["attention", "N", "--weights", "R"], "no crop has a left_wrist"),
        (["reconstruct", "P", "--weights", "R", "--out", "sheet.gif"], "--out must be a .png file, got sheet.gif"),
        (["reconstruct", "P", "--weights", "R", "--variant", "half"], "invalid choice: 'half'"),
        (["reconstruct", "P", "--weights", "R", "--set", "PRETRAIN.DECODER.WIDTH", "32"], "another pre-training model"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(toy, capsys, tmp_path, words, message):
    shutil.copy(toy / "people" / "000.png", tmp_path)
    places = {"P": toy / "people", "R": toy / "run", "N": tmp_path}
    words = [str(places.get(word, word)) for word in words]
    if "--out" not in words:
        words += ["--out", str(tmp_path / "sheet.png")]
    try:
        status = visualize.main(["hap", *words])
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "sheet.png").exists()


def test_an_encoder_without_a_class_token_is_refused(toy, tmp_path, capsys):
    cfg = read_pretrain_config(toy / "run" / "config.yaml")
    weights = weights_of(build_pretrain_model(cfg))
    weights.pop("pretrain.cls_token")
    save_weights(tmp_path / "weights.safetensors", weights, {"format": 1})
    words = ["--config", toy / "run" / "config.yaml"]
    assert run(toy, "attention", *words, weights=tmp_path) == 2
    assert "has no class token" in capsys.readouterr().err


def test_an_unreadable_crop_ends_the_run_with_status_1(toy, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert run(toy, "mask", crops_of=[tmp_path / "broken.png"]) == 1
    assert "the run failed" in capsys.readouterr().err


def test_an_image_outside_the_folder_of_the_given_index_is_refused(toy, tmp_path, capsys):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 4, 3), np.uint8))
    assert run(toy, "mask", "--keypoints", toy / "people" / "keypoints.npz", crops_of=[tmp_path / "a.png"]) == 2
    assert "does not lie under the folder of the index" in capsys.readouterr().err
