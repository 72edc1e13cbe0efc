import re
from pathlib import Path

import pytest
import yaml

from unihap.config import CfgNode, ConfigError, get_cfg
from unihap.config.reads import all_keys, record_reads


@pytest.fixture
def cfg() -> CfgNode:
    """A small schema, so that these rules do not depend on the real one."""
    node = CfgNode()
    node.NAME = "vit"
    node.FLIP = True
    node.GRID = [84, 84]
    node.PAIR = (1.0, 2.0)
    node.TASK_NAMES = []
    node.SOLVER = CfgNode()
    node.SOLVER.BASE_LR = 1e-3
    node.SOLVER.LAYER_DECAY = 0.75
    node.SOLVER.MAX_ITERATIONS = 100
    node.SOLVER.WARMUP = CfgNode()
    node.SOLVER.WARMUP.FACTOR = 0.1
    block = CfgNode()
    block.BATCH_SIZE = 1
    block.LAMBDA = 0.0
    node.TASKS = CfgNode()
    node.declare_open({"TASKS": block})
    return node


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# files and inheritance


def test_a_file_changes_what_it_names_and_nothing_else(cfg, tmp_path):
    before = cfg.clone()
    cfg.merge_from_file(write(tmp_path / "a.yaml", "SOLVER: {LAYER_DECAY: 0.5}"))
    assert cfg.SOLVER.LAYER_DECAY == 0.5
    cfg.SOLVER.LAYER_DECAY = 0.75
    assert cfg == before


def test_a_base_is_relative_to_the_file_that_asks_and_loses_to_it(cfg, tmp_path, monkeypatch):
    write(tmp_path / "root.yaml", "NAME: root\nGRID: [1, 1]\nTASKS: {coco_pose: {BATCH_SIZE: 2, LAMBDA: 3}}")
    write(tmp_path / "a/middle.yaml", "_BASE_: ../root.yaml\nGRID: [2, 2]\nSOLVER: {BASE_LR: 0.5}")
    last = write(tmp_path / "a/b/last.yaml", "_BASE_: ../middle.yaml\nTASKS: {coco_pose: {BATCH_SIZE: 4}}")
    monkeypatch.chdir("/")
    cfg.merge_from_file(last)
    assert cfg.NAME == "root"
    assert cfg.GRID == [2, 2]
    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.TASKS == {"coco_pose": {"BATCH_SIZE": 4, "LAMBDA": 3.0}}


def test_a_tilde_in_a_base_is_the_home_folder(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home/base.yaml", "NAME: from home")
    cfg.merge_from_file(write(tmp_path / "a.yaml", "_BASE_: ~/base.yaml"))
    assert cfg.NAME == "from home"


def test_an_absolute_base_is_taken_as_it_is(cfg, tmp_path):
    base = write(tmp_path / "far/base.yaml", "NAME: absolute")
    cfg.merge_from_file(write(tmp_path / "a.yaml", f"_BASE_: {base}"))
    assert cfg.NAME == "absolute"


def test_a_circle_of_bases_is_shown(cfg, tmp_path):
    write(tmp_path / "b.yaml", "_BASE_: c.yaml")
    write(tmp_path / "c.yaml", "_BASE_: ./a.yaml")
    a = write(tmp_path / "a.yaml", "_BASE_: b.yaml")
    chain = " -> ".join(str(tmp_path / name) for name in ("a.yaml", "b.yaml", "c.yaml", "a.yaml"))
    with pytest.raises(ConfigError, match=re.escape(chain)):
        cfg.merge_from_file(a)


def test_a_missing_base_names_the_file_that_asks(cfg, tmp_path):
    a = write(tmp_path / "a.yaml", "_BASE_: gone.yaml")
    with pytest.raises(ConfigError, match=re.escape(f"no config file {tmp_path / 'gone.yaml'}, which {a} names")):
        cfg.merge_from_file(a)


@pytest.mark.parametrize("base", ["[a.yaml, b.yaml]", "3"])
def test_a_base_is_one_path(cfg, tmp_path, base):
    with pytest.raises(ConfigError, match=r"_BASE_ in .*a\.yaml is .*; expected the path of one file"):
        cfg.merge_from_file(write(tmp_path / "a.yaml", f"_BASE_: {base}"))


def test_a_missing_file_is_named(cfg, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"no config file {tmp_path / 'gone.yaml'}") + "$"):
        cfg.merge_from_file(tmp_path / "gone.yaml")


def test_a_folder_is_not_a_config(cfg, tmp_path):
    with pytest.raises(ConfigError, match="cannot read config file"):
        cfg.merge_from_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("NAME: a\nGRID: [1, 2\nFLIP: true", 3),  # the bracket is missed at the next key
        ("NAME: a\n\tFLIP: true", 2),  # a tab
        ("NAME: a\nFLIP: true\nNAME: b", 3),  # twice
        ("NAME: !!python/object/apply:os.getcwd []", 1),  # code
    ],
)
def test_broken_yaml_names_file_and_line(cfg, tmp_path, text, line):
    with pytest.raises(ConfigError, match=rf"broken\.yaml, line {line} is not valid YAML"):
        cfg.merge_from_file(write(tmp_path / "broken.yaml", text))


def test_anchors_and_merge_keys_of_yaml_are_not_keys_given_twice(cfg, tmp_path):
    text = """
TASKS:
  a: &a {BATCH_SIZE: 2, LAMBDA: 3}
  b: &b {<<: *a, LAMBDA: 4}
  c: {<<: *b, BATCH_SIZE: 5}
"""
    cfg.merge_from_file(write(tmp_path / "a.yaml", text))
    assert cfg.TASKS.b == {"BATCH_SIZE": 2, "LAMBDA": 4.0}
    assert cfg.TASKS.c == {"BATCH_SIZE": 5, "LAMBDA": 4.0}


def test_bytes_that_are_no_text_are_refused(cfg, tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\x80\x81\x00")
    with pytest.raises(ConfigError, match=r"weights\.yaml"):
        cfg.merge_from_file(path)


def test_a_file_must_hold_keys(cfg, tmp_path):
    with pytest.raises(ConfigError, match="not a mapping"):
        cfg.merge_from_file(write(tmp_path / "a.yaml", "- NAME"))


@pytest.mark.parametrize("text", ["", "# nothing yet", "SOLVER:\n  # BASE_LR: 1", "TASKS:"])
def test_an_empty_file_or_heading_changes_nothing(cfg, tmp_path, text):
    before = cfg.clone()
    cfg.merge_from_file(write(tmp_path / "a.yaml", text))
    assert cfg == before


# unknown keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NAMES: a", "unknown config key NAMES in {}; did you mean NAME?"),
        ("SOLVER: {LAYER_DECYA: 1}", "unknown config key SOLVER.LAYER_DECYA in {}; did you mean SOLVER.LAYER_DECAY?"),
        (
            "SOLVER: {WARMUP: {FACTR: 1}}",
            "unknown config key SOLVER.WARMUP.FACTR in {}; did you mean SOLVER.WARMUP.FACTOR?",
        ),
        ("solver: {}", "unknown config key solver in {}; did you mean SOLVER?"),
        ("LAYER_DECAY: 1", "unknown config key LAYER_DECAY in {}; did you mean SOLVER.LAYER_DECAY?"),
        ("BATCH_SIZE: 1", "unknown config key BATCH_SIZE in {}; did you mean TASKS.<name>.BATCH_SIZE?"),
        ("QQQQQQQ: 1", "unknown config key QQQQQQQ in {}"),
        ("1: 2", "unknown config key 1 in {}"),
        (
            "TASKS: {coco_pose: {BATCHSIZE: 1}}",
            "unknown config key TASKS.coco_pose.BATCHSIZE in {}; did you mean TASKS.coco_pose.BATCH_SIZE?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_file_and_closest_key(cfg, tmp_path, text, message):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError, match="^" + re.escape(message.format(path)) + "$"):
        cfg.merge_from_file(path)


def test_an_unknown_key_of_a_base_names_the_base(cfg, tmp_path):
    base = write(tmp_path / "base.yaml", "NAMES: a")
    with pytest.raises(ConfigError, match=re.escape(f"NAMES in {base}")):
        cfg.merge_from_file(write(tmp_path / "a.yaml", "_BASE_: base.yaml"))


def test_a_renamed_key_tells_its_new_name(cfg):
    cfg.register_renamed_key("SOLVER.MAX_ITER", "SOLVER.MAX_ITERATIONS")
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER was renamed; write SOLVER\.MAX_ITERATIONS"):
        cfg.merge_from_list(["SOLVER.MAX_ITER", "3"])


def test_a_refused_merge_leaves_the_config_as_it_was(cfg, tmp_path):
    before = cfg.clone()
    write(tmp_path / "base.yaml", "NAME: changed\nTASKS: {coco_pose: {BATCH_SIZE: 2}}")
    with pytest.raises(ConfigError):
        cfg.merge_from_file(write(tmp_path / "a.yaml", "_BASE_: base.yaml\nFLIP: false\nGRIDS: 1"))
    with pytest.raises(ConfigError):
        cfg.merge_from_list(["NAME", "changed", "FLIPP", "False"])
    assert cfg == before


def test_a_frozen_config_is_not_merged_into(cfg):
    cfg.freeze()
    with pytest.raises(AttributeError, match="frozen"):
        cfg.merge_from_list(["SOLVER.BASE_LR", "1"])


# types


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-4", 1e-4),  # text in YAML 1.1
        ("SOLVER.BASE_LR", "'0.25'", 0.25),
        ("SOLVER.MAX_ITERATIONS", "7", 7),
        ("FLIP", "false", False),
        ("NAME", "3x", "3x"),
        ("GRID", "[16, 8]", [16, 8]),
        ("GRID", "[]", []),
        ("PAIR", "[1, 1e-3]", (1.0, 1e-3)),
        ("TASK_NAMES", "[coco_pose, lip_parsing]", ["coco_pose", "lip_parsing"]),
    ],
)
def test_values_take_the_type_of_the_default(cfg, tmp_path, key, text, value):
    *parents, name = key.split(".")
    text = f"{name}: {text}"
    cfg.merge_from_file(write(tmp_path / "a.yaml", f"{parents[0]}: {{{text}}}" if parents else text))
    node = cfg[parents[0]] if parents else cfg
    assert node[name] == value
    assert type(node[name]) is type(value)
    if isinstance(value, tuple):
        assert [type(element) for element in node[name]] == [float, float]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SOLVER.BASE_LR", "fast", "float"),
        ("SOLVER.BASE_LR", True, "float"),
        ("SOLVER.BASE_LR", [0.1], "float"),
        ("SOLVER.BASE_LR", None, "float"),
        ("SOLVER.MAX_ITERATIONS", 1.5, "int"),
        ("SOLVER.MAX_ITERATIONS", True, "int"),
        ("SOLVER.MAX_ITERATIONS", "many", "int"),
        ("FLIP", 1, "bool"),
        ("FLIP", "yes", "bool"),
        ("NAME", 3, "str"),
        ("GRID", 84, "list"),
        ("GRID", "84", "list"),
        ("PAIR", 1.0, "tuple"),
        ("TASKS.coco_pose.BATCH_SIZE", 1.0, "int"),
    ],
)
def test_a_wrong_type_names_key_value_and_expected_type(cfg, key, value, expected):
    given = value
    for name in reversed(key.split(".")):
        given = {name: given}
    message = re.escape(f"config key {key} is {value!r}; expected {expected}: ")
    with pytest.raises(ConfigError, match=message):
        cfg.merge_from_other_cfg(given)


def test_a_wrong_element_of_a_list_is_named_with_its_place(cfg):
    with pytest.raises(ConfigError, match=r"GRID\[1\] is 'wide'; expected int"):
        cfg.merge_from_other_cfg({"GRID": [84, "wide"]})


def test_a_group_of_keys_is_not_replaced_by_a_value(cfg):
    with pytest.raises(ConfigError, match=r"config key SOLVER\.WARMUP is 3; expected a group of keys: FACTOR"):
        cfg.merge_from_other_cfg({"SOLVER": {"WARMUP": 3}})


# open nodes


def test_a_block_is_completed_from_its_defaults(cfg, tmp_path):
    cfg.merge_from_file(write(tmp_path / "a.yaml", "TASKS:\n  coco_pose: {BATCH_SIZE: 8}\n  lip_parsing:"))
    assert cfg.TASKS == {
        "coco_pose": {"BATCH_SIZE": 8, "LAMBDA": 0.0},
        "lip_parsing": {"BATCH_SIZE": 1, "LAMBDA": 0.0},
    }


def test_blocks_do_not_share_their_values(cfg):
    cfg.merge_from_other_cfg({"TASKS": {"a": None, "b": None}})
    other = cfg.clone()
    cfg.TASKS.a.BATCH_SIZE = 9
    other.merge_from_list(["TASKS.c.BATCH_SIZE", "7", "TASKS.d.LAMBDA", "1"])
    assert [cfg.TASKS.b.BATCH_SIZE, cfg.TASKS.block_defaults.BATCH_SIZE] == [1, 1]
    assert [other.TASKS[name].BATCH_SIZE for name in "abcd"] == [1, 1, 7, 1]
    assert list(cfg.TASKS) == ["a", "b"]


# KEY VALUE overrides


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.BASE_LR", "1e-4", 1e-4),
        ("SOLVER.BASE_LR", "2", 2.0),
        ("SOLVER.WARMUP.FACTOR", ".5", 0.5),
        ("FLIP", "False", False),
        ("FLIP", "false", False),
        ("NAME", "vit_tiny", "vit_tiny"),
        ("NAME", "'quoted'", "quoted"),
        ("NAME", "007", "007"),
        ("NAME", "C: [a", "C: [a"),
        ("GRID", "(16, 8)", [16, 8]),
        ("GRID", "[16,8]", [16, 8]),
        ("TASK_NAMES", "[coco_pose]", ["coco_pose"]),
        ("TASK_NAMES", "['coco_pose', 'a b']", ["coco_pose", "a b"]),
        ("TASKS.coco_pose.BATCH_SIZE", "4", 4),
    ],
)
def test_an_override_is_read_as_a_literal_of_the_default_type(cfg, key, text, value):
    cfg.merge_from_list([key, text])
    found = cfg
    for name in key.split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_of_a_key_wins(cfg):
    cfg.merge_from_list(["NAME", "first", "TASKS.a.BATCH_SIZE", "2", "NAME", "last", "TASKS.a.LAMBDA", "5"])
    assert cfg.NAME == "last"
    assert cfg.TASKS.a == {"BATCH_SIZE": 2, "LAMBDA": 5.0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["NAME"], "pairs KEY VALUE (not KEY=VALUE), but 1 words were given: NAME"),
        (["SOLVER.LAYER_DECYA", "1"], "unknown config key SOLVER.LAYER_DECYA; did you mean SOLVER.LAYER_DECAY?"),
        (["SOLVERS.LAYER_DECAY", "1"], "unknown config key SOLVERS; did you mean SOLVER?"),
        (["TASKS.coco_pose.BATCHSIZE", "1"], "unknown config key TASKS.coco_pose.BATCHSIZE; did you mean"),
        (["NAME.X", "1"], "unknown config key NAME.X; NAME has no keys in it"),
        (["SOLVER", "1"], "config key SOLVER is 1; expected a group of keys"),
        (["TASKS.coco_pose", "1"], "config key TASKS.coco_pose is 1; expected a group of keys: BATCH_SIZE, LAMBDA"),
        (["_BASE_", "a.yaml"], "unknown config key _BASE_"),
        (["SOLVER.MAX_ITERATIONS", "1.5"], "config key SOLVER.MAX_ITERATIONS is 1.5; expected int"),
        (["TASK_NAMES", "coco_pose"], "config key TASK_NAMES is 'coco_pose'; expected list: a list such as [a, b]"),
        (["GRID", "[1, 2"], "config key GRID is '[1, 2'; expected list"),
    ],
)
def test_a_bad_override_is_refused(cfg, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        cfg.merge_from_list(overrides)


# the real schema, and there and back


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def test_every_get_cfg_is_a_copy_of_its_own():
    first, second = get_cfg(), get_cfg()
    first.SEED = 17
    first.TRAIN.TASKS.append("coco_pose")
    first.merge_from_list(["TASKS.coco_pose.BATCH_SIZE", "3"])
    assert second == get_cfg()
    assert second.SEED != 17
    assert second.TRAIN.TASKS == []
    assert second.TASKS == {}


def test_a_dumped_config_loads_back_equal(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "1e-7", "TASKS.coco_pose.BATCH_SIZE", "4", "TRAIN.TASKS", "[coco_pose]"])
    cfg.merge_from_list(["OUTPUT_DIR", "007", "MODEL.WEIGHTS", "true", "DATA.ROOT", "ü: 'quoted' #no comment"])
    back = get_cfg()
    back.merge_from_file(write(tmp_path / "config.yaml", cfg.dump()))
    assert back == cfg
    assert back.dump() == cfg.dump()


def test_a_dump_keeps_tuples_and_the_order_of_the_schema(cfg, tmp_path):
    cfg.merge_from_list(["PAIR", "(3, 4)"])
    path = write(tmp_path / "config.yaml", cfg.dump())
    assert list(yaml.safe_load(path.read_text())) == list(cfg)
    back = cfg.clone()
    back.PAIR = (0.0, 0.0)
    back.merge_from_file(path)
    assert back.PAIR == (3.0, 4.0)


# which keys are read


def test_only_values_that_are_read_are_noted(cfg):
    cfg.merge_from_other_cfg({"TASKS": {"coco_pose": None}})
    recorder, reads = record_reads(cfg)
    assert recorder == cfg
    assert recorder.SOLVER.WARMUP.is_frozen() is False
    assert reads == set()
    assert recorder.NAME == "vit"
    assert recorder["SOLVER"]["BASE_LR"] == 1e-3
    assert recorder.TASKS.coco_pose.BATCH_SIZE == 1
    assert reads == {"NAME", "SOLVER.BASE_LR", "TASKS.<name>.BATCH_SIZE"}


@pytest.mark.parametrize(
    "read",
    [
        lambda node: dict(node),
        lambda node: dict(**node),
        lambda node: dict(node.items()),
        lambda node: list(node.values()),
        lambda node: [node.get(key) for key in ("BATCH_SIZE", "LAMBDA", "GONE")],
        lambda node: node.clone().BATCH_SIZE + node.clone().LAMBDA,
    ],
    ids=["dict", "keywords", "items", "values", "get", "clone"],
)
def test_reading_a_whole_node_notes_all_of_it(cfg, read):
    cfg.merge_from_other_cfg({"TASKS": {"coco_pose": None}})
    recorder, reads = record_reads(cfg)
    read(recorder.TASKS.coco_pose)
    assert reads == {"TASKS.<name>.BATCH_SIZE", "TASKS.<name>.LAMBDA"}


def test_dumping_printing_freezing_and_cloning_are_not_reading(cfg):
    recorder, reads = record_reads(cfg)
    recorder.freeze()
    assert recorder.is_frozen()
    assert recorder.SOLVER.is_frozen()
    assert recorder.clone().dump() == cfg.dump()
    assert str(recorder) == str(cfg)
    assert reads == set()


def test_all_keys_are_the_dotted_names_of_values(cfg):
    assert all_keys(cfg) == {
        "NAME",
        "FLIP",
        "GRID",
        "PAIR",
        "TASK_NAMES",
        "SOLVER.BASE_LR",
        "SOLVER.LAYER_DECAY",
        "SOLVER.MAX_ITERATIONS",
        "SOLVER.WARMUP.FACTOR",
        "TASKS.<name>.BATCH_SIZE",
        "TASKS.<name>.LAMBDA",
    }
