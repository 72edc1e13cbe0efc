import itertools
from pathlib import Path

import pytest

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


def unread_keys(read, *cfgs):
    """Keys of the schema that ``read(cfg)`` reads from none of ``cfgs``."""
    unread = all_keys(get_cfg())
    for cfg in cfgs:
        recorder, reads = record_reads(cfg)
        read(recorder)
        unread -= reads
    return unread


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
