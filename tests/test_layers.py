"""What the code promises about its own shape, read from its syntax trees."""

import ast
import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Who may import whom inside unihap.  A module that is not listed fails until it has a place here.
BASE = {"structures", "lookup"}
MIDDLE = {"losses", "models", "data", "evaluation"}
UPPER = {"tasks", "pretrain", "checkpoints"}
MAY_IMPORT = {
    "structures": set(),
    "lookup": set(),
    "command_line": set(),
    "config": BASE,
    **{name: BASE for name in MIDDLE},
    "tasks": BASE | MIDDLE,
    "pretrain": BASE | MIDDLE,
    "checkpoints": BASE | MIDDLE | {"tasks"},
    "synth": BASE | {"data"},
    "visualize": BASE | MIDDLE | {"tasks"},
    "engine": BASE | MIDDLE | UPPER | {"visualize"},
    "predict": BASE | MIDDLE | UPPER | {"engine", "visualize"},
    "detectron2_bridge": BASE | MIDDLE | UPPER | {"engine", "visualize", "predict"},
    "build": BASE | MIDDLE | UPPER | {"config", "engine", "visualize", "predict"},
    "zoo": BASE | MIDDLE | UPPER | {"config", "engine", "visualize", "predict", "build"},
    "__init__": BASE | MIDDLE | UPPER | {"config", "engine", "visualize", "predict", "build"},
}

# Where the name on PyPI is not the name in an import statement.
MODULE_OF = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml", "warp-lang": "warp"}

Finding = str


def parse_all(root: Path, *folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """(path relative to ``root``, tree) of every Python file of some folders."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST) -> list[str]:
    """Dotted names that a statement imports; ``from a import b`` gives ``a.b``, since b may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def layer_findings(root: Path) -> list[Finding]:
    findings = []
    for path, tree in parse_all(root, "unihap"):
        layer = path.parts[1].removesuffix(".py")
        if layer not in MAY_IMPORT:
            findings.append(f"{path}: {layer} has no place in the table of layers")
            continue
        for node in ast.walk(tree):
            for name in imported(node):
                parts = name.split(".")
                if name.startswith("."):
                    findings.append(f"{path}:{node.lineno} relative import {name}")
                elif parts[0] in ("tools", "tests", "benchmarks", "datasets"):
                    findings.append(f"{path}:{node.lineno} imports {name}")
                elif parts[0] == "unihap" and parts[1:] != ["__version__"]:
                    target = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "__init__"
                    if target != layer and target not in MAY_IMPORT[layer]:
                        findings.append(f"{path}:{node.lineno} {layer} imports {name}")
    return findings


def cfg_findings(root: Path) -> list[Finding]:
    """Every ``cfg`` outside the modules that may read a config."""
    findings = []
    for path, tree in parse_all(root, "unihap"):
        if path.parts[1] in ("build", "config"):
            continue
        for node in ast.walk(tree):
            name = {ast.arg: "arg", ast.Attribute: "attr", ast.Name: "id", ast.keyword: "arg"}.get(type(node))
            if name and getattr(node, name) == "cfg":
                findings.append(f"{path}:{node.lineno} {type(node).__name__.lower()} cfg")
    return findings


def constants(node: ast.AST) -> set[object]:
    """Constants of an expression, also those inside a tuple, list or set."""
    elements = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {element.value for element in elements if isinstance(element, ast.Constant)}


def name_findings(root: Path, names: set[str]) -> list[Finding]:
    """Comparisons with the name of a task or dataset outside tasks/ and data/."""
    findings = []
    for path, tree in parse_all(root, "unihap", "tools"):
        if path.parts[:2] in (("unihap", "tasks"), ("unihap", "data")):
            continue
        for node in ast.walk(tree):
            used: set[object] = set()
            if isinstance(node, ast.Compare):
                used = set().union(*(constants(side) for side in (node.left, *node.comparators)))
            elif isinstance(node, ast.MatchValue):
                used = constants(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("startswith", "endswith"):
                    used = set().union(*map(constants, node.args))
            findings += [f"{path}:{node.lineno} asks for {name!r}" for name in sorted(used & names)]
    return findings


def statements_run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements outside functions and outside ``if TYPE_CHECKING``."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for name in ("body", "orelse", "finalbody"):
            if not (guarded and name == "body"):
                yield from statements_run_on_import(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from statements_run_on_import(handler.body)


def declared(root: Path) -> tuple[set[str], set[str]]:
    """Import names that setup.py requires, and those of its extras."""
    tables = {}
    for node in ast.parse((root / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id in ("INSTALL_REQUIRES", "EXTRAS_REQUIRE"):
                tables[node.targets[0].id] = ast.literal_eval(node.value)

    def modules(requirements: list[str]) -> set[str]:
        names = [re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in requirements]
        return {MODULE_OF.get(name, name) for name in names}

    return modules(tables["INSTALL_REQUIRES"]), modules(list(itertools.chain(*tables["EXTRAS_REQUIRE"].values())))


def package_findings(root: Path, required: set[str], optional: set[str]) -> list[Finding]:
    """Imports of packages that setup.py does not declare, and of optional ones where they must be there."""
    findings = []
    ours = {"unihap", "tools", *sys.stdlib_module_names}
    for path, tree in parse_all(root, "unihap", "tools"):
        on_import = {id(node) for node in statements_run_on_import(tree.body)}
        for node in ast.walk(tree):
            for package in {name.split(".")[0] for name in imported(node)} - ours - required - {""}:
                if package == "detectron2" and path != Path("unihap/detectron2_bridge.py"):
                    findings.append(f"{path}:{node.lineno} imports detectron2, which only the bridge may")
                elif package not in optional:
                    findings.append(f"{path}:{node.lineno} imports {package}, which setup.py does not declare")
                elif id(node) in on_import:
                    findings.append(f"{path}:{node.lineno} imports optional {package} outside a function")
    return findings


# the repository


def test_modules_import_downward_only():
    assert len(list(parse_all(ROOT, "unihap"))) > 10
    assert layer_findings(ROOT) == []


def test_only_build_and_config_know_the_config():
    assert cfg_findings(ROOT) == []


def test_no_branch_on_the_name_of_a_task_or_dataset():
    tasks = importlib.import_module("unihap.tasks").TASKS
    datasets = importlib.import_module("unihap.data.catalog").DATASETS
    assert "coco_pose" in tasks
    assert "market1501_train" in datasets
    without_split = {name.rpartition("_")[0] for name in datasets}
    assert name_findings(ROOT, {*tasks, *datasets, *without_split} - {""}) == []


def test_packages_are_declared_and_optional_ones_imported_late():
    assert package_findings(ROOT, *declared(ROOT)) == []


# the checkers themselves


def plant(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("path", "text", "finding"),
    [
        ("unihap/losses/a.py", "import unihap.engine.train", "losses imports unihap.engine.train"),
        ("unihap/losses/a.py", "from unihap.models.decoder import Decoder", "losses imports unihap.models.decoder"),
        ("unihap/losses/a.py", "def f():\n    from unihap import tasks", ":2 losses imports unihap.tasks"),
        ("unihap/models/deep/a.py", "from unihap import get_cfg", "models imports unihap.get_cfg"),
        ("unihap/tasks/a.py", "from unihap.build import build_model", "tasks imports unihap.build"),
        ("unihap/engine/a.py", "import unihap.config", "engine imports unihap.config"),
        ("unihap/structures.py", "import unihap.lookup", "structures imports unihap.lookup"),
        ("unihap/engine/a.py", "import unihap", "engine imports unihap"),
        ("unihap/losses/a.py", "from ..engine import train", "relative import ..engine.train"),
        ("unihap/build/a.py", "import tools.train_net", "imports tools.train_net"),
        ("unihap/misc.py", "", "misc has no place in the table of layers"),
    ],
)
def test_an_upward_import_is_found(tmp_path, path, text, finding):
    plant(tmp_path, path, text)
    findings = layer_findings(tmp_path)
    assert len(findings) == 1
    assert finding in findings[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "unihap/losses/a.py",
            "import math\nimport torch\nfrom unihap.losses.b import c\nfrom unihap import structures",
        ),
        ("unihap/tasks/a.py", "from unihap.losses import masks\nfrom unihap.structures import Unit"),
        ("unihap/build/a.py", "from unihap.engine.train import train\nimport unihap.config"),
        ("unihap/__init__.py", "from unihap.build import build_model"),
        ("unihap/engine/a.py", "from unihap import __version__"),
    ],
)
def test_a_downward_import_is_not_found(tmp_path, path, text):
    plant(tmp_path, path, text)
    assert layer_findings(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["def f(cfg): ...", "class A:\n    def f(self):\n        return self.cfg", "f(cfg=1)", "f = lambda *cfg: 0"]
)
def test_a_config_in_the_wrong_place_is_found(tmp_path, text):
    plant(tmp_path, "unihap/engine/a.py", text)
    plant(tmp_path, "unihap/build/a.py", text)
    plant(tmp_path, "unihap/config/a.py", text)
    findings = cfg_findings(tmp_path)
    assert len(findings) == 1
    assert "unihap/engine/a.py" in findings[0].replace("\\", "/")


@pytest.mark.parametrize(
    "text",
    [
        "if name == 'coco_pose': pass",
        "x = 1 if 'coco_pose' != name else 2",
        "if name in ('other', 'coco_pose'): pass",
        "match name:\n    case 'other' | 'coco_pose': pass",
        "if name.startswith('coco_pose'): pass",
    ],
)
def test_a_branch_on_a_name_is_found(tmp_path, text):
    for path in ("unihap/engine/a.py", "unihap/tasks/a.py", "unihap/data/a.py"):
        plant(tmp_path, path, text)
    findings = name_findings(tmp_path, {"coco_pose"})
    assert len(findings) == 1
    assert "asks for 'coco_pose'" in findings[0]


@pytest.mark.parametrize("text", ["if kind == 'pose': pass", "default = 'coco_pose'", "TABLE = {'coco_pose': 1}"])
def test_a_name_that_decides_nothing_is_not_found(tmp_path, text):
    plant(tmp_path, "unihap/engine/a.py", text)
    assert name_findings(tmp_path, {"coco_pose"}) == []


@pytest.mark.parametrize(
    ("path", "text", "finding"),
    [
        ("unihap/models/a.py", "import einops", "imports einops, which setup.py does not declare"),
        ("unihap/models/a.py", "def f():\n    import einops", ":2 imports einops"),
        ("unihap/synth/a.py", "import anny.model", "imports optional anny outside a function"),
        (
            "unihap/synth/a.py",
            "try:\n    import anny\nexcept ImportError:\n    anny = None",
            ":2 imports optional anny",
        ),
        ("tools/a.py", "class A:\n    import anny", ":2 imports optional anny"),
        ("tools/a.py", "def f():\n    from detectron2 import config", "imports detectron2, which only the bridge may"),
        ("unihap/detectron2_bridge.py", "import detectron2", "imports optional detectron2 outside a function"),
    ],
)
def test_a_wrong_package_is_found(tmp_path, path, text, finding):
    plant(tmp_path, path, text)
    findings = package_findings(tmp_path, {"torch"}, {"anny", "detectron2"})
    assert len(findings) == 1
    assert finding in findings[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("unihap/models/a.py", "import json\nimport torch.nn\nfrom unihap.structures import Unit"),
        ("unihap/synth/a.py", "def f():\n    import anny"),
        (
            "unihap/synth/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import anny\nelse:\n    import torch",
        ),
        ("unihap/detectron2_bridge.py", "def f():\n    from detectron2.structures import Instances"),
    ],
)
def test_a_declared_package_is_not_found(tmp_path, path, text):
    plant(tmp_path, path, text)
    assert package_findings(tmp_path, {"torch"}, {"anny", "detectron2"}) == []


def test_requirements_are_read_as_import_names():
    required, optional = declared(ROOT)
    assert {"torch", "cv2", "PIL", "yaml"} <= required
    assert {"pytest", "detectron2"} <= optional
    assert not required & optional
