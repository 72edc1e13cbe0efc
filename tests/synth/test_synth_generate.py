"""A run: the same bytes for any number of processes, and for a run that was killed."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from fake_studio import DyingStudio, FakeStudio, InvisibleStudio, ShyStudio

from unihap.synth import generate as generate_module
from unihap.synth import journal as journal_module
from unihap.synth.body import MissingExtraError
from unihap.synth.generate import generate
from unihap.synth.journal import DiskFullError
from unihap.synth.layouts.base import TRIES, Amount
from unihap.synth.manifest import manifest_faults, read_manifest
from unihap.synth.request import Request
from unihap.synth.workers import MIN_VISIBLE, rendered, take_picture

DATASETS = {
    "market1501": Amount({"train": 2, "test": 2}, (24, 16), images=4),
    "lip": Amount({"train": 4, "val": 2}, (32, 24)),
    "coco_keypoints": Amount({"train": 3, "val": 1}, (40, 48), people=(1, 2)),
    "luperson": Amount({"train": 2}, (24, 16)),
    "threedpw": Amount({"train": 1, "val": 1, "test": 1}, (40, 48), images=2, people=(1, 2)),
}
REQUEST = Request(DATASETS, seed=3)
NUM_PICTURES = 17 + 6 + 4 + 2 + 6  # Market-1501: 16 crops and a distractor


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lip_alone(**changes) -> Request:
    return Request({"lip": DATASETS["lip"]}, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    generate(folder, REQUEST, workers=0, studio=FakeStudio)
    return folder


class Killed(BaseException):
    """Not an error that anybody handles."""


class KilledStudio(FakeStudio):
    """Is killed at some picture."""

    remaining = 0

    def crop(self, *arguments, **rest):
        type(self).remaining -= 1
        if type(self).remaining < 0:
            raise Killed
        return super().crop(*arguments, **rest)


def start_and_kill(folder: Path, pictures: int, request: Request = REQUEST) -> None:
    """A run that ends after some crops."""
    KilledStudio.remaining = pictures
    with pytest.raises(Killed):
        generate(folder, request, workers=0, studio=KilledStudio)
    assert not (folder / "manifest.json").exists()


# the same bytes


@pytest.mark.dist
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_write_the_same_bytes(finished, tmp_path, workers):
    before = dict(os.environ)
    generate(tmp_path, REQUEST, workers=workers, studio=FakeStudio)
    assert contents(tmp_path) == contents(finished)
    assert dict(os.environ) == before


@pytest.mark.parametrize("pictures", [0, 1, 9, 20])
def test_a_killed_run_goes_on_to_the_same_bytes(finished, tmp_path, pictures, caplog):
    caplog.set_level(logging.INFO)
    start_and_kill(tmp_path, pictures)
    generate(tmp_path, REQUEST, workers=0, resume=True, studio=FakeStudio)
    assert contents(tmp_path) == contents(finished)
    # pictures are noted by the person, so those of the last one are lost
    said = [record.message for record in caplog.records if "are finished already" in record.message]
    assert bool(said) == (pictures > 4)


def test_a_killed_run_renders_only_what_is_missing(tmp_path, monkeypatch):
    start_and_kill(tmp_path, 9)
    noted = (tmp_path / ".partial/journal.jsonl").read_text().splitlines()
    assert len(noted) == 8  # two people of four pictures

    counted = []
    monkeypatch.setattr(
        generate_module, "rendered", lambda items, *rest: counted.extend(items) or rendered(items, *rest)
    )
    generate(tmp_path, REQUEST, workers=0, resume=True, studio=FakeStudio)
    assert len(counted) == NUM_PICTURES - 8


def test_the_journal_decides_and_not_what_is_there(finished, tmp_path):
    start_and_kill(tmp_path, 20)
    journal = tmp_path / ".partial/journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    first, second, third = (next(iter(json.loads(line)["files"])) for line in lines[:3])
    (tmp_path / first).write_bytes(b"half")
    (tmp_path / second).unlink()
    journal.write_text("".join(lines[:2] + lines[3:-1]) + lines[-1][:30])  # the last line is cut, the third is lost
    (tmp_path / third).write_bytes(b"by nobody")
    generate(tmp_path, REQUEST, workers=0, resume=True, studio=FakeStudio)
    assert contents(tmp_path) == contents(finished)


def test_a_run_killed_while_it_cleans_up_is_finished(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/.partial").mkdir()
    manifest = generate(tmp_path / "run", REQUEST, workers=0, resume=True, studio=KilledStudio)
    assert manifest == read_manifest(finished)
    assert contents(tmp_path / "run") == contents(finished)
    assert not (tmp_path / "run/.partial").exists()


def test_seed_and_domain_change_the_pictures(tmp_path):
    folders = {}
    for name, changes in (("0", {}), ("seed", {"seed": 1}), ("domain", {"domain": "b"})):
        generate(tmp_path / name, lip_alone(**changes), workers=0, studio=FakeStudio)
        folders[name] = contents(tmp_path / name)
    image = next(name for name in folders["0"] if name.endswith(".jpg"))
    assert folders["0"].keys() == folders["seed"].keys() == folders["domain"].keys()
    assert len({folder[image] for folder in folders.values()}) == 3


# the manifest


def test_the_manifest_tells_counts_versions_and_every_file(finished):
    manifest = read_manifest(finished)
    assert (manifest["seed"], manifest["domain"]) == (3, "a")
    assert set(manifest["versions"]) >= {"unihap", "anny", "embreex", "numpy", "opencv", "pillow", "python"}
    assert manifest["options"]["datasets.lip"]["counts"] == {"train": 4, "val": 2}
    assert manifest["counts"]["market1501"] == {
        "pictures": {"train": 8, "test": 9}, "people": {"train": 2, "test": 3}, "redrawn": 0, "mostly_hidden": 0,
    }  # fmt: skip
    assert set(manifest["files"]) | {"manifest.json"} == set(contents(finished))
    assert manifest_faults(finished) == []


def test_changed_missing_and_foreign_files_are_found(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    (folder / "LIP/TrainVal_images/val_id.txt").write_text("1\n")
    (folder / "LIP/extra.jsonl.gz").unlink()
    (folder / "LIP/notes.txt").write_text("mine")
    (folder / "sheets").mkdir()
    (folder / "sheets/lip.png").write_text("no data")
    assert sorted(manifest_faults(folder)) == [
        f"{folder}/LIP/TrainVal_images/val_id.txt has changed",
        f"{folder}/LIP/extra.jsonl.gz is missing",
        f"{folder}/LIP/notes.txt is not in the manifest",
    ]


def test_a_folder_without_a_manifest_is_unfinished(tmp_path):
    with pytest.raises(FileNotFoundError, match="the run was not finished"):
        manifest_faults(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        read_manifest(tmp_path)


# hidden people


def test_who_is_hidden_is_drawn_again_with_the_next_key():
    items = [item for item in REQUEST.plan()["market1501"] if item.people[0][0] % 3]
    picture, redrawn, share = take_picture(ShyStudio(3, "a"), items[0])
    assert redrawn == 1
    assert share >= MIN_VISIBLE
    place = items[0].split, items[0].camera, items[0].key + 1, items[0].size
    person = FakeStudio(3, "a").person(items[0].split, items[0].people[0][0])
    assert (picture.image == FakeStudio(3, "a").crop(person, *place, others=items[0].others).image).all()


def test_who_stays_hidden_is_shown_as_well_as_can_be():
    item = next(item for item in REQUEST.plan()["market1501"] if not item.people[0][0] % 3)
    _, redrawn, share = take_picture(ShyStudio(3, "a"), item)
    assert redrawn == 3  # the best of the eight
    assert share == pytest.approx(0.11)
    assert redrawn < TRIES


def test_hidden_people_are_counted(tmp_path):
    manifest = generate(tmp_path, REQUEST, workers=0, studio=ShyStudio)
    counts = manifest["counts"]["market1501"]
    assert counts["redrawn"] == 17
    hidden = [item for item in REQUEST.plan()["market1501"] if not item.people[0][0] % 3]
    assert counts["mostly_hidden"] == len(hidden) > 0
    assert manifest["counts"]["coco_keypoints"]["redrawn"] == 0


def test_nobody_to_be_seen_is_an_error(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"lip: nobody can be seen in TrainVal_images/train_images/1_.*after 8 pictures"
    ):
        generate(tmp_path, lip_alone(), workers=0, studio=InvisibleStudio)


# bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"lipp": Amount({"train": 1, "val": 1}, (8, 8))}}, r"unknown dataset 'lipp'; did you mean lip\?"),
        ({"datasets": {}}, "no dataset asked for; the datasets are market1501"),
        ({"datasets": {"lip": Amount({"train": 0, "val": 1}, (8, 8))}}, "its train split needs at least 1"),
        ({"datasets": {"lip": Amount({"train": 1, "val": 1}, (0, 8))}}, "sizes and numbers must be positive"),
        ({"domain": "c"}, r"unknown domain 'c' \(known: a, b\)"),
        ({"extra": "ful"}, r"did you mean full\?"),
        ({"seed": -1}, "must not be negative, got -1"),
    ],
)
def test_what_cannot_be_rendered_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Request(**({"datasets": DATASETS} | changes))


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(ValueError, match="is not empty and holds no unfinished run"):
            generate(tmp_path, REQUEST, workers=0, resume=resume, studio=FakeStudio)
    with pytest.raises(ValueError, match=r"thesis.tex is a file"):
        generate(tmp_path / "thesis.tex", REQUEST, workers=0, studio=FakeStudio)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_unfinished_run_goes_on_only_when_asked(tmp_path):
    start_and_kill(tmp_path, 5)
    with pytest.raises(ValueError, match="holds an unfinished run; give --resume"):
        generate(tmp_path, REQUEST, workers=0, studio=FakeStudio)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "other options: seed was 3 and is now 4;"),
        ({"domain": "b", "extra": "brief"}, 'domain was "a" and is now "b"; extra was "full" and is now "brief";'),
        ({"datasets": {**DATASETS, "lip": Amount({"train": 4, "val": 3}, (32, 24))}}, "datasets.lip was .*and is now"),
        ({"datasets": {"lip": DATASETS["lip"]}}, "datasets.luperson was .* and is now absent"),
    ],
)
def test_other_options_cannot_go_on(tmp_path, finished, changes, message):
    request = Request(**({"datasets": DATASETS, "seed": 3} | changes))
    start_and_kill(tmp_path, 5)
    for folder in (tmp_path, finished):
        before = contents(folder)
        with pytest.raises(ValueError, match=message):
            generate(folder, request, workers=0, resume=True, studio=FakeStudio)
        assert contents(folder) == before


def test_other_versions_cannot_go_on(tmp_path, monkeypatch):
    start_and_kill(tmp_path, 5)
    monkeypatch.setattr("unihap.synth.manifest.np.__version__", "0.1")
    with pytest.raises(ValueError, match=r'versions.numpy was ".*" and is now "0.1"'):
        generate(tmp_path, REQUEST, workers=0, resume=True, studio=FakeStudio)


def test_a_finished_folder_is_not_written_again(finished):
    with pytest.raises(ValueError, match="holds finished datasets; name another folder"):
        generate(finished, REQUEST, workers=0, studio=FakeStudio)


def test_a_missing_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'needs the package anny; .* pip install "unihap\[synth\]"'):
        generate(tmp_path / "out", REQUEST)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [3, 12, NUM_PICTURES + 9])  # a picture, a later one, an annotation file
def test_a_full_disk_is_named_and_the_run_goes_on_later(finished, tmp_path, monkeypatch, call):
    calls = 0
    real = os.replace

    def replace(source, target):
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "replace", replace)
        with pytest.raises(DiskFullError, match=f"no room left in {tmp_path}; make room, then go on with --resume"):
            generate(tmp_path, REQUEST, workers=0, studio=FakeStudio)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "manifest.json").exists()
    generate(tmp_path, REQUEST, workers=0, resume=True, studio=FakeStudio)
    assert contents(tmp_path) == contents(finished)


@pytest.mark.dist
def test_a_dead_process_does_not_hang_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="was killed, perhaps for want of memory; go on with --resume"):
        generate(tmp_path, lip_alone(), workers=1, studio=DyingStudio)
