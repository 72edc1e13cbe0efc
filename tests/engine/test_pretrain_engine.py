"""Pre-training: its rates, its groups, its batches, its checkpoints and what it refuses."""

import json
import sys
from pathlib import Path

import crops
import pytest
import torch
from torch import nn

from unihap.build import Device, build_model, build_pretraining
from unihap.build.pretrain import learning_rate, num_iterations, pretrain_plan
from unihap.config import get_cfg
from unihap.engine.checkpoint import load_model, read_weights
from unihap.engine.loop import train
from unihap.engine.optimizer import schedule
from unihap.engine.pretrain import load_pretraining, weights_of
from unihap.models.position import resize_table

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

CPU = Device(torch.device("cpu"), torch.float32, None)
DOUBLE = Device(torch.device("cpu"), torch.float64, None)
# Alignment compares the samples of one pass, and drop path draws for each pass.
SEPARABLE = ["PRETRAIN.ALIGN.WEIGHT", 0.0, "MODEL.ENCODER.DROP_PATH", 0.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return crops.make(tmp_path_factory.mktemp("crops") / "people")


@pytest.fixture
def config(folder, tmp_path):
    """The toy config, with changes, and an OUTPUT_DIR of its own for every call."""
    file = tmp_path / "toy.yaml"
    file.write_text(crops.CONFIG)
    made = []

    def make(*overrides):
        cfg = get_cfg()
        cfg.merge_from_file(file)
        output = tmp_path / f"out{len(made)}"
        output.mkdir()
        made.append(output)
        cfg.merge_from_list(["OUTPUT_DIR", str(output), "PRETRAIN.DATASETS", [str(folder)], *overrides])
        return cfg

    return make


def run(cfg, device=CPU, resume=False):
    built = build_pretraining(cfg, device, resume=resume)
    train(built)
    return built


def last_checkpoint(cfg):
    return max((Path(cfg.OUTPUT_DIR) / "checkpoints").iterdir())


def lines(cfg):
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A finished run, not to be changed."""
    cfg = get_cfg()
    root = tmp_path_factory.mktemp("trained")
    (root / "toy.yaml").write_text(crops.CONFIG)
    cfg.merge_from_file(root / "toy.yaml")
    cfg.merge_from_list(["OUTPUT_DIR", str(root), "PRETRAIN.DATASETS", [str(folder)]])
    run(cfg)
    return cfg


# ------------------------------------------------------------------------------------------ rate and length


def test_the_paper_s_rate_by_hand(config):
    """1.5e-4 * 4096 / 256 = 2.4e-3, in a line over 40 of 400 epochs, then half a cosine."""
    cfg = config("PRETRAIN.BATCH_SIZE", 256, "PRETRAIN.ACCUMULATE", 1, "PRETRAIN.BLR", 1.5e-4)
    rate = learning_rate(cfg, pretrain_plan(cfg, 16))
    assert rate == pytest.approx(2.4e-3)
    multiplier = schedule(warmup_start=0.0, warmup=40 / 400)
    by_epoch = [rate * multiplier(epoch / 400) for epoch in (0, 20, 40, 220, 399.999)]
    assert by_epoch == pytest.approx([0, 1.2e-3, 2.4e-3, 1.2e-3, 0], abs=1e-9)


def test_a_rate_of_its_own_replaces_the_rule(config):
    cfg = config("PRETRAIN.LR", 1.5e-3)
    assert learning_rate(cfg, pretrain_plan(cfg, 8)) == 1.5e-3


@pytest.mark.parametrize(("num_images", "iterations"), [(12, 6), (13, 6), (15, 8), (1, 1)])
def test_iterations_are_epochs_of_images_over_all_processes(config, num_images, iterations):
    """2 epochs of 12 images in batches of 2 x 2 are 6 iterations."""
    cfg = config()
    assert num_iterations(cfg, pretrain_plan(cfg, 1), num_images) == iterations


def test_every_line_holds_iteration_epoch_terms_rate_speed_and_memory(trained):
    written = lines(trained)
    assert [line["iteration"] for line in written] == list(range(6))
    assert [line["epoch"] for line in written] == pytest.approx([4 * n / 12 for n in range(1, 7)])
    base = 0.05 * 4 / 256
    # Iteration 2 of 6 is 1 / 9 of the way from the end of the warm-up, at 1.5, to the end: (1 + cos(pi / 9)) / 2.
    assert [line["lr"] for line in written[:3]] == pytest.approx([0, base * 2 / 3, base * 0.969846])
    for line in written:
        assert line["task"] == "pretrain"
        assert line["loss"] == pytest.approx(line["loss_reconstruction"] + line["loss_alignment"], rel=1e-5)
        assert line["images_per_second"] > 0
        assert line["peak_memory_mb"] > 0
    # The person of the last image was not seen.  A line holds the mean over two passes.
    assert sum(line["images_without_keypoints"] for line in written) == 2 / 2


def test_adamw_decays_matrices_and_tokens_but_no_vector(config):
    built = build_pretraining(config(), CPU, resume=False)
    assert isinstance(built.optimizer, torch.optim.AdamW)
    assert all(group["betas"] == (0.9, 0.95) for group in built.optimizer.param_groups)
    assert all(group["lr_scale"] == 1.0 for group in built.optimizer.param_groups)
    decay = {name: group["weight_decay"] for group in built.optimizer.param_groups for name in group["names"]}
    shapes = {name: value.ndim for name, value in weights_of(built.objective.model).items()}
    assert {name for name, value in decay.items() if value} == {name for name in decay if shapes[name] > 1}
    assert set(decay.values()) == {0.0, 0.05}
    assert decay["pretrain.cls_token"] == decay["pretrain.decoder.mask_token"] == 0.05
    assert decay["shared.encoder.norm.weight"] == decay["pretrain.decoder.predict.bias"] == 0.0
    assert "shared.encoder.position.table" not in decay


def test_passes_of_an_iteration_count_like_one_batch_of_all_their_samples(config):
    two = run(config(*SEPARABLE, "PRETRAIN.BATCH_SIZE", 2, "PRETRAIN.ACCUMULATE", 2), DOUBLE)
    one = run(config(*SEPARABLE, "PRETRAIN.BATCH_SIZE", 4, "PRETRAIN.ACCUMULATE", 1), DOUBLE)
    a, b = weights_of(two.objective.model), weights_of(one.objective.model)
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-9


def test_the_gradient_is_clipped_to_the_norm_of_the_config(config):
    norms = []
    built = build_pretraining(config("SOLVER.CLIP_GRADIENT_NORM", 0.01, "PRETRAIN.EPOCHS", 0.6), CPU, resume=False)
    step = built.optimizer.step

    def spy():
        gradients = [p.grad for p in built.objective.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        step()

    built.optimizer.step = spy
    train(built)
    assert len(norms) == 2
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


@pytest.mark.parametrize(
    "overrides",
    [
        ["PRETRAIN.FRAMEWORK", "cae"],
        ["PRETRAIN.FRAMEWORK", "cae", "PRETRAIN.CAE.TOKENIZER", "random", "PRETRAIN.ALIGN.VIEWS", "none"],
        ["PRETRAIN.ALIGN.LOSS", "simsiam", "PRETRAIN.ALIGN.VIEWS", "masked_global"],
        ["PRETRAIN.MASK.GUIDANCE", "attention", "PRETRAIN.ALIGN.VIEWS", "masked_visible"],
    ],
    ids=["cae-kmeans", "cae-random-one-view", "simsiam", "attention"],
)
def test_every_variant_trains(config, overrides):
    cfg = config(*overrides, "PRETRAIN.EPOCHS", 1, "MODEL.ENCODER.DROP_PATH", 0.0)
    before = build_pretraining(cfg, CPU, resume=False).objective.model.state_dict()
    after = run(cfg).objective.model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still <= {"encoder.position.table", "decoder.position"}
    assert all(torch.isfinite(value).all() for value in after.values())


# -------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_names_the_encoder_as_the_joint_model_does(trained):
    weights, card = read_weights(last_checkpoint(trained))
    own = {name for name in weights if name.startswith("pretrain.")}
    assert {"pretrain.cls_token", "pretrain.decoder.mask_token", "pretrain.decoder.embed.weight"} <= own
    assert all(name.startswith("shared.encoder.") for name in set(weights) - own)
    assert card["kind"] == "pretrain"
    assert card["encoder"] == {
        "name": "vit_pico_patch16",
        "num_heads": 2,
        "position_grid": [4, 2],
        "class_token": "pretrain.cls_token",
    }
    assert card["trained_on"] == list(trained.PRETRAIN.DATASETS)
    assert (card["iteration"], card["num_images"], card["samples_per_iteration"]) == (6, 12, 4)
    assert card["settings"]["MASK"]["RATIO"] == 0.5
    assert {path.name for path in last_checkpoint(trained).iterdir()} >= {"weights.safetensors", "card.json"}


def test_joint_mode_starts_from_a_pre_training_checkpoint(trained, toy_config):
    folder = last_checkpoint(trained)
    weights, _ = read_weights(folder)
    for source in (folder, folder / "weights.safetensors"):
        cfg = get_cfg()
        cfg.merge_from_file(toy_config)
        cfg.merge_from_list(["MODEL.ENCODER.WEIGHTS", str(source)])
        encoder = build_model(cfg).shared.encoder
        for name, value in encoder.state_dict().items():
            given = weights[f"shared.encoder.{name}"]
            assert torch.equal(value, resize_table(given, (8, 8)) if name == "position.table" else given), name


def test_a_pre_training_checkpoint_is_no_model_to_predict_with(trained):
    with pytest.raises(ValueError, match="is not a whole model"):
        load_model(last_checkpoint(trained))


def test_pre_training_starts_from_an_encoder_and_its_class_token_alone(trained, config):
    source = last_checkpoint(trained)
    weights, _ = read_weights(source)
    fresh = weights_of(build_pretraining(config(), CPU, resume=False).objective.model)
    started = weights_of(
        build_pretraining(config("MODEL.ENCODER.WEIGHTS", str(source)), CPU, resume=False).objective.model
    )
    for name, value in started.items():
        taken = name.startswith("shared.encoder.") or name == "pretrain.cls_token"
        assert torch.equal(value, weights[name] if taken else fresh[name]), name


def test_pre_training_starts_from_everything_of_another_run(trained, config):
    source = last_checkpoint(trained)
    built = build_pretraining(config("MODEL.WEIGHTS", str(source)), CPU, resume=False)
    weights, _ = read_weights(source)
    assert all(torch.equal(value, weights[name]) for name, value in weights_of(built.objective.model).items())
    assert built.first_iteration == 0


def test_another_model_s_checkpoint_is_refused_with_the_first_difference(trained):
    weights, _ = read_weights(last_checkpoint(trained))
    model = nn.Module()
    model.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match=r"it holds another pre-training model .*unexpected pretrain\.decoder"):
        load_pretraining(model, weights, "it")
    with pytest.raises(ValueError, match=r"cls_token has shape \(1, 1, 64\), the model \(1, 1, 3\)"):
        load_pretraining(model, {"pretrain.cls_token": weights["pretrain.cls_token"]}, "it")


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("framework", ["mae", "cae"])
def test_a_run_that_goes_on_ends_with_the_same_bits(config, framework):
    """Killed in iteration 5 of 6, after the checkpoint of iteration 4."""
    whole, broken = config("PRETRAIN.FRAMEWORK", framework), config("PRETRAIN.FRAMEWORK", framework)
    run(whole)
    built = build_pretraining(broken, CPU, resume=False)
    step, done = built.optimizer.step, []

    def dying():
        if len(done) == 4:
            raise Killed
        done.append(step())

    built.optimizer.step = dying
    with pytest.raises(Killed):
        train(built)
    assert last_checkpoint(broken).name == "iteration_00000004"
    run(broken, resume=True)
    (a, _), (b, _) = read_weights(last_checkpoint(whole)), read_weights(last_checkpoint(broken))
    assert a.keys() == b.keys()
    assert ("pretrain.tokenizer.prototypes" in a) == (framework == "cae")
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    losses = [[line["loss"] for line in lines(cfg)] for cfg in (whole, broken)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["PRETRAIN.BATCH_SIZE", 3], r"samples_per_iteration is 4, now 6; BATCH_SIZE \* ACCUMULATE \* processes"),
        (["PRETRAIN.NUM_SAMPLES", 10], "num_images is 12, now 10; the training images must stay"),
    ],
)
def test_other_batches_cannot_resume(trained, overrides, message):
    cfg = trained.clone()
    cfg.merge_from_list(overrides)
    with pytest.raises(ValueError, match=message):
        build_pretraining(cfg, CPU, resume=True)


def test_the_same_samples_in_another_split_can_resume(trained):
    cfg = trained.clone()
    cfg.merge_from_list(["PRETRAIN.BATCH_SIZE", 4, "PRETRAIN.ACCUMULATE", 1, "PRETRAIN.EPOCHS", 4])
    built = build_pretraining(cfg, CPU, resume=True)
    assert (built.first_iteration, built.last_iteration) == (6, 12)


# ------------------------------------------------------------------------------------------------- refusals


def words(folder, tmp_path, *overrides):
    file = tmp_path / "toy.yaml"
    file.write_text(crops.CONFIG)
    return list(
        map(str, ["--config", file, "OUTPUT_DIR", tmp_path / "out", "PRETRAIN.DATASETS", f"[{folder}]", *overrides])
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.MAX_ITERATIONS", 9], "has no effect in TRAIN.MODE pretrain: set PRETRAIN.EPOCHS"),
        (["SOLVER.OPTIMIZER", "adamw"], "SOLVER.OPTIMIZER has no effect"),
        (["PRETRAIN.WARMUP_EPOCHS", 2], "PRETRAIN.WARMUP_EPOCHS 2 must be at least 0 and less than EPOCHS 2"),
        (["PRETRAIN.BATCH_SIZE", 0], "PRETRAIN.BATCH_SIZE must be at least 1, got 0"),
        (["PRETRAIN.BLR", 0], "PRETRAIN.BLR 0.0 must be positive"),
        (["PRETRAIN.ALIGN.WEIGHT", -1], "PRETRAIN.ALIGN.WEIGHT must not be negative"),
        (["PRETRAIN.INPUT_SIZE", "[64, 40]"], "[64, 40] must be multiples of the encoder's patch, 16"),
        (["PRETRAIN.MASK.PARTS", "[3]"], "PRETRAIN.MASK.PARTS must be two numbers, got [3]"),
        (["PRETRAIN.FRAMEWORK", "mea"], "unknown PRETRAIN.FRAMEWORK 'mea'; did you mean mae?"),
        (["PRETRAIN.ALIGN.LOSS", "info_nce"], "unknown PRETRAIN.ALIGN.LOSS 'info_nce'; did you mean infonce?"),
        (["PRETRAIN.ALIGN.VIEWS", "masked"], "unknown PRETRAIN.ALIGN.VIEWS 'masked'"),
        (["PRETRAIN.MASK.GUIDANCE", "parts"], "did you mean part?"),
        (["PRETRAIN.DATASETS", "[]"], "set PRETRAIN.DATASETS"),
        (["PRETRAIN.DATASETS", "[nowhere]"], "no crops 'nowhere'"),
        (["PRETRAIN.FRACTION", "[0.5, 0.5]"], "PRETRAIN.FRACTION has 2 entries for 1 datasets"),
        (["PRETRAIN.KEYPOINTS", "[a.npz, b.npz]"], "PRETRAIN.KEYPOINTS has 2 entries for 1 datasets"),
        (["MODEL.ENCODER.WEIGHTS", "nowhere"], "no weights at nowhere"),
        (["PRETRAIN.FRAMEWORK", "cae", "PRETRAIN.CAE.TOKENIZER", "dvae"], "set PRETRAIN.CAE.TOKENIZER_WEIGHTS"),
        (["--eval-only"], "--eval-only has nothing to evaluate in TRAIN.MODE pretrain"),
        (["TRAIN.MODE", "pretraining"], "unknown TRAIN.MODE 'pretraining'; did you mean pretrain?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(folder, tmp_path, capsys, overrides, message):
    assert train_net.main(words(folder, tmp_path, *overrides)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_images_of_a_task_with_whole_scenes_are_no_crops(toy_root, tmp_path, capsys):
    given = words("coco_keypoints_train", tmp_path, "DATA.ROOT", toy_root)
    assert train_net.main(given) == 2
    assert "coco_keypoints_train is for pose, its images are not crops" in capsys.readouterr().err


def test_images_of_a_labelled_dataset_of_crops_are_crops(toy_root, tmp_path):
    given = words("market1501_train", tmp_path, "DATA.ROOT", toy_root, "PRETRAIN.NUM_SAMPLES", 4)
    assert train_net.main([*given, "PRETRAIN.EPOCHS", "1"]) == 0
    card = json.loads((tmp_path / "out" / "checkpoints" / "iteration_00000001" / "card.json").read_text())
    assert card["num_images"] == 4


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_the_batch(folder, tmp_path, capsys, monkeypatch):
    build = train_net.build_pretraining

    def broken(*arguments, **options):
        built = build(*arguments, **options)
        with torch.no_grad():
            built.objective.model.cls_token.fill_(torch.nan)
        return built

    monkeypatch.setattr(train_net, "build_pretraining", broken)
    assert train_net.main(words(folder, tmp_path)) == 1
    said = capsys.readouterr().err
    assert "the run failed: loss is not finite at iteration 0: task pretrain, reconstruction=nan" in said
    assert "lower PRETRAIN.BLR or look at these images" in said
    bad = torch.load(tmp_path / "out" / "bad_batch_pretrain.pth", weights_only=False)
    assert all(path in said for path in bad["batch"].paths)


def test_a_dry_run_says_what_an_iteration_is_and_makes_nothing(folder, tmp_path, capsys):
    assert train_net.main([*words(folder, tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "iteration: 4 samples, of 1 processes x 2 passes x 2; learning rate 0.00078" in said
    assert "crop: 4 x 2 patches, 4 masked" in said
    assert not (tmp_path / "out").exists()
