import itertools
from pathlib import Path

import pytest
import torch

from unihap.build import build_model, build_plan, describe_adaptation, describe_pretraining, dry_run
from unihap.build.pretrain import check_pretraining
from unihap.build.pretrain_data import build_masking
from unihap.build.pretrain_model import build_alignment
from unihap.config import get_cfg
from unihap.config.reads import all_keys, record_reads
from unihap.pretrain.views import VIEWS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_there_are_configs():
    assert FILES, f"no config files under {CONFIGS}"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CONFIGS)) for path in FILES])
def test_every_config_file_loads_and_comes_back_from_its_dump(path, tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(path)
    dumped = tmp_path / "config.yaml"
    dumped.write_text(cfg.dump())
    back = get_cfg()
    back.merge_from_file(dumped)
    assert back == cfg


def unread_keys(read, cfg):
    """Keys of the schema that ``read(cfg)`` does not read."""
    recorder, reads = record_reads(cfg)
    read(recorder)
    return all_keys(get_cfg()) - reads


def read_by(words, monkeypatch):
    """Keys of the schema that no run of ``train_net.py`` with these words reads."""
    monkeypatch.syspath_prepend(str(CONFIGS.parent / "tools"))
    import train_net

    words = list(map(str, words))
    cfg = train_net.load_config(train_net.parse(words))

    def run(recorder):
        with monkeypatch.context() as patch:
            patch.setattr(train_net, "load_config", lambda arguments: recorder)
            assert train_net.main(words) == 0

    return unread_keys(run, cfg)


REST = "general_reid, pa100k_attributes, lip_parsing, pedestrian_detection"  # of the toy tasks


def test_training_pre_training_and_adaptation_read_every_key(toy_config, toy_root, tmp_path, monkeypatch):
    joint = ["--config", toy_config, "DATA.ROOT", toy_root, "OUTPUT_DIR", tmp_path / "joint"]
    joint += ["SOLVER.MAX_ITERATIONS", "1", "SOLVER.WARMUP_ITERATIONS", "0"]
    pretrain = ["--config", CONFIGS / "quick" / "pretrain_cpu.yaml", "DATA.ROOT", toy_root, "DATA.NUM_WORKERS", "0"]
    pretrain += ["MODEL.ENCODER.NAME", "vit_pico_patch16", "PRETRAIN.INPUT_SIZE", "[64, 32]"]
    pretrain += ["PRETRAIN.DATASETS", "[Market-1501-v15.09.15/bounding_box_train]", "PRETRAIN.BATCH_SIZE", "16"]
    pretrain += ["PRETRAIN.EPOCHS", "1", "PRETRAIN.WARMUP_EPOCHS", "0"]
    cae = ["PRETRAIN.FRAMEWORK", "cae", "PRETRAIN.CAE.TOKENIZER", "kmeans", "PRETRAIN.CAE.VOCABULARY", "4"]
    adapt = ["DATA.ROOT", toy_root, "MODEL.WEIGHTS", tmp_path / "joint" / "checkpoints" / "iteration_00000001"]
    adapt += ["SOLVER.MAX_ITERATIONS", "1", "SOLVER.WARMUP_ITERATIONS", "0", "TRAIN.EVAL_AT_END", "False"]
    one = tmp_path / "one.yaml"
    one.write_text(f"_BASE_: {toy_config}\nTRAIN: {{MODE: prompt, TASKS: [coco_pose]}}\nTEST: {{TASKS: [{REST}]}}\n")
    unread = [
        read_by(joint, monkeypatch),
        read_by([*pretrain, "OUTPUT_DIR", tmp_path / "mae"], monkeypatch),
        read_by([*pretrain, *cae, "OUTPUT_DIR", tmp_path / "cae"], monkeypatch),
        read_by(["--config", one, *adapt, "TRAIN.MODE", "finetune", "OUTPUT_DIR", tmp_path / "tuned"], monkeypatch),
        read_by(["--config", one, *adapt, "OUTPUT_DIR", tmp_path / "prompt"], monkeypatch),
    ]
    assert set.intersection(*unread) == set()
    assert all(key.startswith(("PRETRAIN.", "FINETUNE.", "PROMPT.")) for key in unread[0])
    assert {key for key in unread[1] if key.startswith("PRETRAIN.")} == {
        f"PRETRAIN.CAE.{key}" for key in get_cfg().PRETRAIN.CAE
    }


MODELS = [path for path in FILES if path.parts[-4:-2] not in (("ablation", "hap"), ("ablation", "hap_cpu"))]


@pytest.mark.parametrize("path", MODELS, ids=[str(path.relative_to(CONFIGS)) for path in MODELS])
def test_every_config_file_makes_a_model_and_a_plan(path):
    """At full size, but without memory; the cells of ablations are checked below, without a model."""
    cfg = get_cfg()
    cfg.merge_from_file(path)
    with torch.device("meta"):
        if cfg.TRAIN.MODE == "pretrain":
            said = describe_pretraining(cfg, 1)
            assert "shared  encoder" in said
        elif cfg.TRAIN.TASKS or cfg.TEST.TASKS:
            said = {"joint": dry_run}.get(cfg.TRAIN.MODE, describe_adaptation)(cfg, 1)
            assert f"private {[*cfg.TRAIN.TASKS, *cfg.TEST.TASKS][0]}" in said
            assert ("nothing is trained" in said) is not bool(cfg.TRAIN.TASKS)


def load(path):
    cfg = get_cfg()
    cfg.merge_from_file(path)
    return cfg


def values(node, prefix=""):
    """Every value of a config by its dotted key."""
    for key, value in node.items():
        if hasattr(value, "declare_open"):
            yield from values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def changes(path, base):
    """What a file changes in its base, by dotted key."""
    before = dict(values(load(base)))
    return {key: value for key, value in values(load(path)) if before[key] != value and key != "OUTPUT_DIR"}


ABLATION = CONFIGS / "ablation"
CELLS = sorted(str(path.relative_to(ABLATION / "hap")) for path in (ABLATION / "hap").rglob("*/*.yaml"))
# How a change at the paper's scale reads at the scale of a CPU, where it is another.
SMALLER = {
    ("PRETRAIN.NUM_SAMPLES", "500000"): ("PRETRAIN.FRACTION", [0.24]),
    ("PRETRAIN.NUM_SAMPLES", "1000000"): ("PRETRAIN.FRACTION", [0.48]),
    ("PRETRAIN.EPOCHS", "100.0"): ("PRETRAIN.EPOCHS", 10.0),
    ("PRETRAIN.EPOCHS", "200.0"): ("PRETRAIN.EPOCHS", 20.0),
}


def test_every_table_of_ablations_has_its_cells_at_both_scales():
    count = {table: sum(cell.startswith(f"{table}/") for cell in CELLS) for table in ("table3", "table4", "fig3")}
    assert count == {"table3": 5, "table4": 6, "fig3": 22}
    assert {cell.split("/")[0] for cell in CELLS} == {*count, "table11", "table12", "table13", "table14"}
    small = sorted(str(path.relative_to(ABLATION / "hap_cpu")) for path in (ABLATION / "hap_cpu").rglob("*.yaml"))
    assert small == CELLS
    outputs = [load(ABLATION / scale / cell).OUTPUT_DIR for scale in ("hap", "hap_cpu") for cell in CELLS]
    assert len(set(outputs)) == len(outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_changes_the_same_at_both_scales(cell):
    paper = changes(ABLATION / "hap" / cell, ABLATION / "hap" / "paper.yaml")
    small = changes(ABLATION / "hap_cpu" / cell, ABLATION / "hap" / "cpu.yaml")
    assert small == dict(SMALLER.get((key, str(value)), (key, value)) for key, value in paper.items())


@pytest.mark.parametrize("cell", [f"{scale}/{cell}" for scale in ("hap", "hap_cpu") for cell in CELLS])
def test_a_cell_is_possible(cell):
    cfg = load(ABLATION / cell)
    check_pretraining(cfg)
    masking, alignment = build_masking(cfg), build_alignment(cfg, 8)
    assert 0 < masking.num_masked < masking.grid[0] * masking.grid[1]
    assert cfg.PRETRAIN.ALIGN.VIEWS in VIEWS
    assert (alignment is None) == (cfg.PRETRAIN.ALIGN.WEIGHT == 0)


def test_the_ladder_of_table_3_adds_one_thing_at_a_time():
    base = ABLATION / "hap" / "paper.yaml"
    cells = {name: changes(ABLATION / "hap" / "table3" / f"{name}.yaml", base) for name in ("hap", "hap_1", "hap_0")}
    assert cells["hap"] == {}
    assert cells["hap_1"] == {"PRETRAIN.ALIGN.WEIGHT": 0.0}
    assert cells["hap_0"] == {"PRETRAIN.ALIGN.WEIGHT": 0.0, "PRETRAIN.MASK.GUIDANCE": "none"}


def test_the_paper_s_pre_training_model_has_exactly_the_release_s_parameters():
    with torch.device("meta"):
        lines = describe_pretraining(load(CONFIGS / "pretrain" / "hap_vitb_mae.yaml"), 16)
    said = {line[:34].strip(): line[34:].strip() for line in lines.splitlines()}
    # The class token is counted with the encoder in the release and with the rest here.
    assert int(said["shared  encoder"].replace(",", "")) == 85_647_360 - 768
    assert int(said["all"].replace(",", "")) == 85_647_360 + 26_008_320
    assert "iteration: 4096 samples" in lines
    assert "learning rate 0.0024" in lines
    assert "16 x 8 patches, 64 masked" in lines


def test_the_release_s_config_has_exactly_the_release_s_parameters():
    """Counts computed from the released files' shapes; the two feature norms are no queries."""
    cfg = get_cfg()
    cfg.merge_from_file(CONFIGS / "joint" / "unihcp_vitb_33datasets.yaml")
    with torch.device("meta"):
        model = build_model(cfg)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    shared = model.shared
    assert count(shared.encoder) == 91_065_600
    assert count(shared.encoder.position) == 5_419_008
    assert count(shared.encoder.blocks[0]) == 7_087_872
    assert count(shared.decoder) == 14_537_984
    assert count(shared.decoder.layers[0]) == 1_578_752
    assert count(shared.interpreter) == 3_478_533
    assert count(shared.interpreter.upsample) + count(shared.interpreter.to_pixel) == 3_148_288
    assert count(shared.interpreter.to_kernel) == 197_376
    assert count(shared.interpreter.to_logit) == 257
    assert count(shared.interpreter.to_box) == 132_612
    queries = {
        task: sum(p.numel() for name, p in private.named_parameters() if not name.startswith("feature_norm"))
        for task, private in model.private.items()
    }
    assert len(queries) == 24
    assert (queries["coco_pose"], queries["rapv2_attributes"], queries["pedestrian_detection"]) == (8704, 27648, 1368)
    assert sum(queries.values()) == 248_664
    assert count(shared) + sum(queries.values()) == 109_330_781
    assert sum(len(plan.ranks) for plan in build_plan(cfg)) == 88


def test_a_key_that_nobody_reads_is_reported():
    cfg = get_cfg()
    cfg.merge_from_list(["TASKS.coco_pose.BATCH_SIZE", "2"])

    def read_all_but_some(cfg):
        for block in [cfg, *_nodes(cfg)]:
            for key in block:
                if key not in ("SEED", "BATCH_SIZE"):
                    block[key]

    assert unread_keys(read_all_but_some, cfg) == {"SEED", "PRETRAIN.BATCH_SIZE", "TASKS.<name>.BATCH_SIZE"}


def _nodes(node):
    for key in node:
        if hasattr(dict.__getitem__(node, key), "declare_open"):
            yield node[key]
            yield from _nodes(node[key])


def test_every_key_has_a_comment():
    lines = (Path(__file__).resolve().parents[1] / "unihap/config/defaults.py").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith(("_C.", "TASK_DEFAULTS.")) and " = " in line and not line.endswith("CN()"):
            assert before.startswith("# "), f"no comment above {line}"
