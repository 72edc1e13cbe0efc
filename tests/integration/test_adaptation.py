"""Fine-tuning and prompt tuning of a trained model: what trains, what stays, and what is written."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import toy
from safetensors.torch import load_file
from test_distributed import run as run_processes

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import train_net

from unihap import load_model, load_prompt, save_prompt
from unihap.build import Device
from unihap.build.training import start_criteria
from unihap.checkpoints.files import save_weights
from unihap.engine.checkpoint import read_weights
from unihap.engine.loop import train

CPU = Device(torch.device("cpu"), torch.float32, None)
POSE = "coco_pose: {BATCH_SIZE: 2, INPUT_SIZE: [64, 48]}"
PARSING = "lip_parsing: {BATCH_SIZE: 1, INPUT_SIZE: [64, 64]}"
NEW = "vip_parsing: {TRAIN: [lip_train], TEST: [lip_val], BATCH_SIZE: 2, INPUT_SIZE: [64, 64]}"
REID = "general_reid: {TRAIN: [market1501_train], TEST: [market1501_test], BATCH_SIZE: 4, IMAGES_PER_PERSON: 2}"
DEEP = ["PROMPT.DECODER_LENGTH", 3, "PROMPT.ENCODER_LENGTH", 2]


def text(blocks, tasks, **train):
    return (
        toy.CONFIG.split("TRAIN:")[0]
        + f"TRAIN: {json.dumps({'TASKS': tasks, 'LOG_PERIOD': 1, 'EVAL_AT_END': False, **train})}\n"
        + f"TASKS: {{{', '.join(blocks)}}}\n"
        + "LOSS: {PARSING: {NUM_POINTS: 64}}\nDATA: {NUM_WORKERS: 0}\nTEST: {VISUALIZE: 0}\n"
        + "SOLVER: {OPTIMIZER: adamw, MAX_ITERATIONS: 3, WARMUP_ITERATIONS: 1}\n"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy_root):
    """Configs of every mode, and the checkpoint they start from: pose and parsing."""
    root = tmp_path_factory.mktemp("adaptation")
    (root / "joint.yaml").write_text(text([POSE, PARSING], ["coco_pose", "lip_parsing"]))
    for mode in ("finetune", "prompt"):
        for name, block in (("pose", POSE), ("parsing", PARSING), ("new", NEW), ("reid", REID)):
            task = block.partition(":")[0]
            (root / f"{mode}_{name}.yaml").write_text(text([block], [task], MODE=mode))
    words = ["--config", root / "joint.yaml", "DATA.ROOT", toy_root, "OUTPUT_DIR", root / "joint"]
    assert main(*words, "SOLVER.BASE_LR", 0.01) == 0
    return root


@pytest.fixture
def start(folder, toy_root, tmp_path):
    """Words of a command that adapts the joint model."""

    def words(config, *more, output="out"):
        words = ["--config", folder / f"{config}.yaml", *(word for word in more if str(word).startswith("--"))]
        words += ["DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / output, "MODEL.WEIGHTS", newest(folder / "joint")]
        return [*words, *(word for word in more if not str(word).startswith("--"))]

    return words


def main(*words):
    return train_net.main(list(map(str, words)))


def newest(output):
    return max((output / "checkpoints").glob("iteration_*"))


def prepared(words):
    """Everything built, nothing trained."""
    arguments = train_net.parse(list(map(str, words)))
    return train_net.prepare(arguments, train_net.load_config(arguments), CPU)


def shared_of(model):
    return {f"shared.{name}": value.clone() for name, value in model.shared.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("words", [[], DEEP], ids=["queries", "deep"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_prompt_tuning_leaves_every_shared_bit_and_gives_it_no_state(optimizer, words, folder, start):
    work = prepared(start("prompt_pose", "SOLVER.OPTIMIZER", optimizer, "SOLVER.WEIGHT_DECAY", 0.5, *words))
    base, _ = read_weights(newest(folder / "joint"))
    train(work.run)
    after = shared_of(work.model)
    assert changed({name: base[name] for name in after}, after) == set()
    assert all(p.grad is None and not p.requires_grad for p in work.model.shared.parameters())
    names = [name for group in work.run.optimizer.param_groups for name in group["names"]]
    deep = {"private.coco_pose.prompts.decoder", "private.coco_pose.prompts.encoder"} if words else set()
    assert set(names) == {"private.coco_pose.content", "private.coco_pose.position", *deep}
    assert len(work.run.optimizer.state) == len(names)
    saved, card = read_weights(newest(work.run.output))
    assert {name for name in saved if "criterion" not in name} == set(names)
    assert all(not torch.equal(saved[name], base[name]) for name in names if name in base)
    assert card["tasks"]["coco_pose"]["classes"][:2] == ["nose", "left_eye"]
    assert newest(work.run.output).joinpath("weights.safetensors").stat().st_size < 100_000


def test_the_queries_of_people_bring_their_norm_and_their_classifier(start):
    work = prepared(start("prompt_reid", "MODEL.NUM_FEATURE_QUERIES", 2))
    names = {name for group in work.run.optimizer.param_groups for name in group["names"]}
    own = {"content", "position", "feature_norm.weight", "criterion.classifier.weight"}
    assert names == {f"private.general_reid.{name}" for name in own}


def test_frozen_parts_do_not_drop_paths_and_trained_ones_do(start):
    for config, training in (("prompt_pose", False), ("finetune_pose", True)):
        work = prepared(start(config))
        work.run.objective.start(work.run.groups)
        assert work.model.shared.encoder.blocks[-1].training is training
        assert work.model.private["coco_pose"].training


@pytest.mark.parametrize("parts", [["encoder"], ["decoder"], ["interpreter", "private"], ["private"]])
def test_fine_tuning_trains_exactly_the_named_parts(parts, folder, start, tmp_path):
    assert main(*start("finetune_pose", "FINETUNE.PARTS", parts, "SOLVER.WEIGHT_DECAY", 0.5)) == 0
    base, _ = read_weights(newest(folder / "joint"))
    tuned, card = read_weights(newest(tmp_path / "out"))
    of = {name: next(p for p in ("encoder", "decoder", "interpreter", "private") if f"{p}." in name) for name in tuned}
    assert {of[name] for name in changed({name: base[name] for name in tuned}, tuned)} == set(parts)
    assert card["tasks"].keys() == {"coco_pose"}
    assert load_model(newest(tmp_path / "out")).tasks == ["coco_pose"]


@pytest.mark.parametrize("config", ["finetune_pose", "finetune_new"])
def test_a_linear_probe_trains_its_map_alone(config, folder, start, tmp_path):
    assert main(*start(config, "MODEL.READOUT", "linear", "FINETUNE.PARTS", "[private]")) == 0
    base, _ = read_weights(newest(folder / "joint"))
    tuned, _ = read_weights(newest(tmp_path / "out"))
    assert {name.split(".")[2] for name in tuned if name.startswith("private.")} == {"readout", "criterion"}
    assert changed({name: value for name, value in base.items() if name.startswith("shared.")}, tuned) == set()
    state = torch.load(newest(tmp_path / "out") / "training_state.pth", weights_only=True)["optimizer"]
    assert {".".join(name.split(".")[2:]) for name in state} == {
        f"readout.{unit}.{kind}" for unit in ("to_logit", "to_heatmap") for kind in ("weight", "bias")
    }


def test_every_part_learns_at_its_own_rate(start):
    scales = {"ENCODER": 0.5, "DECODER": 2.0, "INTERPRETER": 3.0, "PRIVATE": 4.0}
    words = [word for part, scale in scales.items() for word in (f"FINETUNE.LR_SCALE.{part}", scale)]
    work = prepared(start("finetune_pose", *words, "SOLVER.LAYER_DECAY", 0.5))
    rate = {n: group["lr_scale"] for group in work.run.optimizer.param_groups for n in group["names"]}
    assert rate["shared.encoder.norm.weight"] == 0.5
    assert rate["shared.encoder.blocks.1.norm1.weight"] == 0.25
    assert rate["shared.decoder.project.weight"] == 2.0
    assert rate["shared.interpreter.to_logit.weight"] == 3.0
    assert rate["private.coco_pose.content"] == 4.0


FREEZE = ["FINETUNE.FREEZE_ITERATIONS", 2, "SOLVER.MAX_ITERATIONS", 4]
EVERY = ["TRAIN.CHECKPOINT_PERIOD", 1, "TRAIN.KEEP_CHECKPOINTS", 9]


def at(output, iteration):
    return load_file(output / "checkpoints" / f"iteration_{iteration:08d}" / "weights.safetensors")


def test_shared_weights_are_frozen_first_and_released_then(folder, start, tmp_path):
    work = prepared(start("finetune_pose", *FREEZE, *EVERY))
    objective, encoder = work.run.objective, work.model.shared.encoder
    seen = []

    def prepare(iteration, batches, inner=objective.prepare):
        inner(iteration, batches)
        seen.append((encoder.blocks[0].training, encoder.norm.weight.requires_grad))

    objective.prepare = prepare
    train(work.run)
    assert seen == [(False, False), (False, False), (True, True), (True, True)]
    base, _ = read_weights(newest(folder / "joint"))
    moved = [{n.split(".")[0] for n in changed(base, {**base, **at(tmp_path / "out", i)})} for i in range(1, 5)]
    assert moved == [{"private"}, {"private"}, {"private", "shared"}, {"private", "shared"}]


@pytest.mark.parametrize(
    ("config", "words", "kept"),
    [
        ("finetune_pose", FREEZE, 1),
        ("finetune_pose", FREEZE, 2),
        ("finetune_pose", FREEZE, 3),
        ("prompt_pose", DEEP, 1),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(config, words, kept, start, tmp_path):
    assert main(*start(config, *words, *EVERY)) == 0
    shutil.copytree(tmp_path / "out", tmp_path / "broken")
    for checkpoint in sorted((tmp_path / "broken" / "checkpoints").iterdir())[kept:]:
        shutil.rmtree(checkpoint)
    assert main(*start(config, "--resume", *words, *EVERY, output="broken")) == 0
    whole, broken = (load_file(newest(tmp_path / name) / "weights.safetensors") for name in ("out", "broken"))
    assert whole.keys() == broken.keys()
    assert changed(whole, broken) == set()


def test_a_prompt_run_is_not_resumed_on_other_shared_weights(start, folder, toy_root, tmp_path, capsys):
    assert main(*start("prompt_pose", "SOLVER.MAX_ITERATIONS", 2)) == 0
    other = ["--config", folder / "joint.yaml", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "other", "SEED", 1]
    assert main(*other, "SOLVER.MAX_ITERATIONS", 2) == 0
    assert main(*start("prompt_pose", "--resume", "MODEL.WEIGHTS", newest(tmp_path / "other"))) == 2
    assert "was trained with other shared weights than MODEL.WEIGHTS has" in capsys.readouterr().err


def test_queries_of_a_new_task_are_copied_by_class_name_or_drawn(start, folder, caplog):
    caplog.set_level("INFO")
    base, _ = read_weights(newest(folder / "joint"))
    copied = prepared(start("prompt_new", "TASKS.vip_parsing.QUERIES_FROM", "lip_parsing")).model.private["vip_parsing"]
    assert torch.equal(copied.content, base["private.lip_parsing.content"])
    assert torch.equal(copied.position, base["private.lip_parsing.position"])
    assert "20 of 20 queries are those of lip_parsing; at random: none" in caplog.text
    drawn = prepared(start("prompt_new")).model.private["vip_parsing"]
    assert "vip_parsing: " in caplog.text
    assert "has no queries for it; they are drawn at random" in caplog.text
    assert not torch.equal(drawn.content, base["private.lip_parsing.content"])
    own = prepared(start("prompt_pose")).model.private["coco_pose"]
    assert torch.equal(own.content, base["private.coco_pose.content"])


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ("prompt_pose", ["MODEL.WEIGHTS", ""], "TRAIN.MODE prompt starts from a trained model; set MODEL.WEIGHTS"),
        ("finetune_pose", ["MODEL.WEIGHTS", ""], "TRAIN.MODE finetune starts from a trained model; set MODEL.WEIGHTS"),
        ("finetune_pose", ["FINETUNE.PARTS", "[decodr]"], "did you mean decoder?"),
        ("finetune_pose", ["FINETUNE.PARTS", "[]"], "FINETUNE.PARTS is empty"),
        ("finetune_pose", ["FINETUNE.FREEZE_ITERATIONS", 3], "less than SOLVER.MAX_ITERATIONS"),
        ("finetune_pose", ["FINETUNE.LR_SCALE.ENCODER", 0], "leave it out of FINETUNE.PARTS"),
        ("finetune_pose", ["PROMPT.DECODER_LENGTH", 2], "PROMPT has no effect in TRAIN.MODE finetune"),
        ("prompt_pose", ["PROMPT.DECODER_LENGTH", -1], "must be at least 0"),
        ("prompt_pose", ["FINETUNE.PARTS", "[private]"], "FINETUNE has no effect in TRAIN.MODE prompt"),
        ("prompt_pose", ["TRAIN.TASKS", "[coco_pose, aic_pose]"], "TRAIN.MODE prompt trains one task"),
        ("prompt_pose", ["MODEL.PROMPTS", "[a]"], "give --eval-only or leave them away"),
        ("prompt_pose", ["MODEL.ENCODER.WEIGHTS", "a"], "MODEL.ENCODER.WEIGHTS has no effect"),
        ("prompt_pose", ["MODEL.SHARING", "private_decoder"], "use TRAIN.MODE finetune with FINETUNE.PARTS [private]"),
        ("prompt_new", ["TASKS.vip_parsing.QUERIES_FROM", "lip_pose"], "did you mean lip_parsing?"),
        ("prompt_new", ["TASKS.vip_parsing.QUERIES_FROM", "coco_pose"], "no class of vip_parsing"),
        (
            "finetune_new",
            ["TASKS.vip_parsing.QUERIES_FROM", "lip_parsing", "MODEL.READOUT", "linear"],
            "TASKS.vip_parsing.QUERIES_FROM has no effect",
        ),
        ("prompt_pose", ["MODEL.READOUT", "linear"], "use TRAIN.MODE finetune with FINETUNE.PARTS [private]"),
    ],
)
def test_a_mistake_of_adaptation_is_one_line_with_exit_status_2(config, words, message, start, capsys):
    assert main(*start(config, *words)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_keys_of_adaptation_are_refused_in_joint_training(folder, toy_root, tmp_path, capsys):
    words = ["--config", folder / "joint.yaml", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "out"]
    assert main(*words, "FINETUNE.FREEZE_ITERATIONS", 2) == 2
    assert "FINETUNE has no effect in TRAIN.MODE joint" in capsys.readouterr().err
    assert main(*words, "TASKS.coco_pose.QUERIES_FROM", "lip_parsing") == 2
    assert "TASKS.coco_pose.QUERIES_FROM has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(("trained_on", "taken"), [(["a"], 1.0), (["b"], 0.0)])
def test_a_loss_of_another_training_set_starts_afresh(trained_on, taken, tmp_path):
    file, criterion = tmp_path / "w.safetensors", torch.nn.Module()
    criterion.register_buffer("ratio", torch.zeros(2))
    save_weights(file, {"private.t.criterion.ratio": torch.ones(2)}, {"tasks": {"t": {"trained_on": ["a"]}}})
    start_criteria({"t": criterion}, str(file), {"tasks": {"t": {"trained_on": trained_on}}})
    assert criterion.ratio.tolist() == [taken, taken]


def test_an_encoder_alone_is_no_trained_model(folder, start, tmp_path, capsys):
    weights, card = read_weights(newest(folder / "joint"))
    alone = {name: value for name, value in weights.items() if name.startswith("shared.encoder.")}
    save_weights(tmp_path / "encoder.safetensors", alone, {**card, "tasks": {}})
    assert main(*start("finetune_pose", "MODEL.WEIGHTS", tmp_path / "encoder.safetensors")) == 2
    assert "through MODEL.ENCODER.WEIGHTS" in capsys.readouterr().err


def test_one_model_serves_several_prompts_of_different_lengths(folder, start, tmp_path):
    assert main(*start("prompt_pose", *DEEP, output="pose")) == 0
    assert main(*start("prompt_new", "PROMPT.DECODER_LENGTH", 1, output="new")) == 0
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    alone = {}
    for name, task in (("pose", "coco_pose"), ("new", "vip_parsing")):
        model = load_model(newest(folder / "joint"))
        assert load_prompt(model, newest(tmp_path / name)) == task
        alone[task] = model(image, task)[-1].heatmap
        save_prompt(tmp_path / f"{name}.safetensors", model, task)
        assert (tmp_path / f"{name}.safetensors").stat().st_size < 100_000
    model = load_model(newest(folder / "joint"))
    before = model(image, "lip_parsing")[-1].heatmap
    for name in ("pose", "new"):
        load_prompt(model, tmp_path / f"{name}.safetensors")
    assert model.tasks == ["coco_pose", "lip_parsing", "vip_parsing"]
    for task, heatmap in {**alone, "lip_parsing": before}.items():
        assert torch.equal(model(image, task)[-1].heatmap, heatmap)


def test_prompts_are_evaluated_as_their_runs_were(folder, start, toy_root, tmp_path):
    assert main(*start("prompt_pose", *DEEP, "TRAIN.EVAL_AT_END", True, output="pose")) == 0
    assert main(*start("prompt_new", "TRAIN.EVAL_AT_END", True, output="new")) == 0
    (tmp_path / "both.yaml").write_text(text([POSE, NEW], ["coco_pose", "vip_parsing"]))
    words = ["--config", tmp_path / "both.yaml", "--eval-only", "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "both"]
    prompts = [str(newest(tmp_path / name)) for name in ("pose", "new")]
    assert main(*words, "MODEL.WEIGHTS", newest(folder / "joint"), "MODEL.PROMPTS", prompts) == 0
    pose, new, both = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("pose", "new", "both"))
    assert both == {**pose, **new}
    assert main(*start("prompt_pose", "--eval-only", "--resume", *DEEP, output="pose")) == 0
    assert json.loads((tmp_path / "pose" / "results.json").read_text()) == pose


def test_a_prompt_in_the_place_of_a_model_is_refused(start, tmp_path, capsys):
    assert main(*start("prompt_pose")) == 0
    prompt = newest(tmp_path / "out")
    with pytest.raises(ValueError, match="is a prompt, without the shared weights of a model"):
        load_model(prompt)
    assert main(*start("prompt_pose", "MODEL.WEIGHTS", prompt, output="again")) == 2
    assert "MODEL.PROMPTS" in capsys.readouterr().err


def test_the_dry_run_says_how_much_trains_and_reads_no_weights(start, capsys):
    assert main(*start("prompt_pose", "--dry-run", "MODEL.WEIGHTS", "nowhere")) == 0
    said = capsys.readouterr().out
    assert "starts from: nowhere" in said
    assert "trained private" in said
    assert f"{2 * 17 * 32:,} (" in said  # content and positions


@pytest.mark.dist
def test_two_processes_tune_the_same_prompt_as_one(folder, toy_root, tmp_path):
    words = ["MODEL.WEIGHTS", newest(folder / "joint"), *DEEP]
    one, two = (
        run_processes(number, folder / "prompt_pose.yaml", toy_root, tmp_path / str(number), *words, *plan)
        for number, plan in ((1, ["TASKS.coco_pose.ACCUMULATE", 2]), (2, ["TASKS.coco_pose.GPUS", 2]))
    )
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9


@pytest.mark.dist
def test_two_processes_release_the_shared_weights_together(folder, toy_root, tmp_path):
    words = ["MODEL.WEIGHTS", newest(folder / "joint"), *FREEZE]
    one, two = (
        run_processes(number, folder / "finetune_pose.yaml", toy_root, tmp_path / str(number), *words, *plan)
        for number, plan in ((1, ["TASKS.coco_pose.ACCUMULATE", 2]), (2, ["TASKS.coco_pose.GPUS", 2]))
    )
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9
