"""What the documents say: links lead somewhere, commands parse, Python runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "datasets").glob("*.md"), *(ROOT / "configs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)[^)]*\)")
COMMAND = re.compile(r"^\s*(?:python|torchrun [^\n]*?) (tools/\w+\.py(?:[^\n\\]|\\\n)*)", re.MULTILINE)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_link_leads_to_a_file(document):
    broken = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert broken == []


def commands():
    for document in DOCUMENTS:
        for command in COMMAND.findall(document.read_text()):
            yield pytest.param(re.sub(r"\\\n\s*", " ", command).split("  ")[0], id=f"{ids(document)}: {command[:60]}")


def test_there_are_commands():
    assert len(list(commands())) >= 8


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_parses_and_its_config_loads(command, monkeypatch):
    """Nothing is run, but every script, option, config file and key exists."""
    script, *words = shlex.split(command)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(ROOT)
    module = __import__(Path(script).stem)
    words = [word for word in words if word != "..."]
    if "FILE" in words or not hasattr(module, "parse"):
        assert (ROOT / script).is_file()
        return
    arguments = module.parse(words)
    if hasattr(module, "load_config"):
        assert module.load_config(arguments).is_frozen()


@pytest.mark.parametrize(
    "source", [s for d in DOCUMENTS for s in PYTHON.findall(d.read_text())], ids=lambda source: source[:30]
)
def test_python_in_documents_runs_and_prints_what_it_says(source, capsys):
    said = re.findall(r"# (\([\d, ]+\)(?: and \([\d, ]+\))?)$", source, re.MULTILINE)
    exec(compile(source, "document", "exec"), {})  # the documents are ours
    printed = capsys.readouterr().out.replace("torch.Size(", "").replace("[", "(").replace("])", ")")
    assert [re.findall(r"\([\d, ]+\)", line) for line in printed.splitlines()] == [
        re.findall(r"\([\d, ]+\)", line) for line in said
    ]
    assert "unihap" in sys.modules
