import itertools
from pathlib import Path

import pytest
import torch

from unihap.build import build_model, build_plan, dry_run
from unihap.config import get_cfg
from unihap.config.reads import all_keys, record_reads

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


def test_a_training_run_reads_every_key(toy_config, toy_root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CONFIGS.parent / "tools"))
    import train_net

    words = ["--config", str(toy_config), "DATA.ROOT", str(toy_root), "OUTPUT_DIR", str(tmp_path / "out")]
    words += ["SOLVER.MAX_ITERATIONS", "1", "SOLVER.WARMUP_ITERATIONS", "0"]
    cfg = train_net.load_config(train_net.parse(words))

    def run(recorder):
        monkeypatch.setattr(train_net, "load_config", lambda arguments: recorder)
        assert train_net.main(words) == 0

    assert unread_keys(run, cfg) == set()


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CONFIGS)) for path in FILES])
def test_every_config_file_makes_a_model_and_a_plan(path):
    """At full size, but without memory."""
    cfg = get_cfg()
    cfg.merge_from_file(path)
    if cfg.TRAIN.TASKS:
        with torch.device("meta"):
            said = dry_run(cfg, 1)
        assert f"private {cfg.TRAIN.TASKS[0]}" in said


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

    def read_all_but_two(cfg):
        for block in [cfg, *_nodes(cfg)]:
            for key in block:
                if key not in ("SEED", "BATCH_SIZE"):
                    block[key]

    assert unread_keys(read_all_but_two, cfg) == {"SEED", "TASKS.<name>.BATCH_SIZE"}


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
