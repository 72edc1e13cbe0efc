import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from unihap.tasks import TASKS, TaskOptions

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "draw_architecture.py"))


def test_the_picture_in_the_repository_is_what_the_script_draws():
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == TOOL["draw"]()


def test_the_picture_is_valid_and_names_every_unit_and_kind():
    picture = ElementTree.fromstring(TOOL["draw"]())
    words = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    for name in (*TOOL["UNITS"], *TOOL["KINDS"], "Encoder", "Decoder"):
        assert name in words


def test_the_picture_opens_the_units_that_the_tasks_open():
    names = {"reid": "ReID"}  # as people write it
    kinds = ("reid", "attributes", "pose", "parsing", "detection")
    options = TaskOptions(loss_weights={kind: {} for kind in kinds})
    for name, make in TASKS.items():
        task = make(name, options)
        drawn = TOOL["KINDS"][names.get(task.kind, task.kind)][3]
        assert {unit.value for unit in task.spec.units} == set(drawn)
