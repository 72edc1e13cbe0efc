"""Renders datasets into a folder, in any number of processes, with the same bytes whatever their number.

Every picture depends on its own key alone (see ``unihap.synth.studio``), and annotation files are written from the
labels of all pictures in the order of the plan; so neither the order of the work nor a kill in between shows.
"""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unihap.synth.body import MissingExtraError
from unihap.synth.journal import PARTIAL, Journal, check_options, saying_what_is_full, write_whole
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.base import Context, Facts, Item
from unihap.synth.layouts.extra import extra_file
from unihap.synth.manifest import MANIFEST, digest, read_manifest, versions
from unihap.synth.request import Request
from unihap.synth.workers import Setting, StudioFactory, rendered

logger = logging.getLogger(__name__)

REPORT_PERIOD = 5.0  # seconds between two lines of progress


def generate(
    folder: Path, request: Request, *, workers: int = 1, resume: bool = False, studio: StudioFactory | None = None
) -> dict[str, Any]:
    """Renders datasets; see ``unihap.synth.journal`` for what happens when this is killed.

    Args:
        folder: gets a folder for each dataset, named as the real one's, and ``manifest.json``, written last.
        request: what.
        workers: processes that render; 0 renders in this one (numbers may then differ in the last bit).
        resume: go on with an unfinished run in ``folder``.
        studio: who renders; by default ``unihap.synth.studio.Studio``.

    Returns:
        The manifest.

    Raises:
        ValueError: a folder that holds something else, or a run with other options.
        MissingExtraError: the packages of the extra ``synth`` are not installed.
        DiskFullError: no room left.
        RuntimeError: a process died, or somebody cannot be seen however often their picture is taken.
    """
    if workers < 0:
        raise ValueError(f"the number of workers must not be negative, got {workers}")
    if studio is None:
        studio = _real_studio()
    options = request.options()
    if resume and (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        check_options(folder, manifest["options"], options)
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        logger.info("%s is finished already", folder)
        return manifest
    with saying_what_is_full(folder), Journal(folder, options, resume) as journal:
        plan = request.plan()
        missing = [item for items in plan.values() for item in items if item.key not in journal.lines]
        progress = Progress(sum(map(len, plan.values())), len(missing))
        setting = Setting(request.seed, request.domain, request.staging, request.extra, studio, folder)
        for key, line in rendered(missing, setting, workers):
            journal.add(key, line)
            progress.step()
        manifest = _annotate(journal, request, plan)
        journal.finish(manifest)
    logger.info("wrote %d files to %s", len(manifest["files"]) + 1, folder)
    return manifest


class Progress:
    """Says from time to time how far the work is.

    Args:
        total: pictures of the run.
        missing: those that are not finished yet.
    """

    def __init__(self, total: int, missing: int) -> None:
        self.total, self.missing, self.done = total, missing, 0
        self._started = self._said = 0.0
        if missing < total:
            logger.info("%d of %d pictures are finished already", total - missing, total)

    def step(self) -> None:
        """Another picture is finished."""
        self.done += 1
        now = time.monotonic()
        if self.done == 1:  # not counting how long the body model takes to load
            self._started = self._said = now
        if now - self._said < REPORT_PERIOD and self.done < self.missing:
            return
        self._said = now
        rate = max(self.done - 1, 1) / max(now - self._started, 1e-9)
        remaining = timedelta(seconds=int((self.missing - self.done) / rate))
        finished = self.total - self.missing + self.done
        logger.info("picture %d/%d  %.1f pictures/s  ETA %s", finished, self.total, rate, remaining)


def _annotate(journal: Journal, request: Request, plan: Mapping[str, list[Item]]) -> dict[str, Any]:
    """Writes the annotation files of every dataset; returns the manifest."""
    files: dict[str, str] = {}
    counts: dict[str, Any] = {}
    for dataset, items in plan.items():
        layout = LAYOUTS[dataset]
        entries = [json.loads(journal.lines[item.key]) for item in items]
        labelled: list[tuple[Item, Facts]] = [
            (item, entry["facts"]) for item, entry in zip(items, entries, strict=True)
        ]
        written = layout.annotate(labelled, Context(request.seed, request.domain))
        written |= extra_file([entry["extra"] for entry in entries])
        for name, content in written.items():
            write_whole(journal.folder, f"{layout.folder}/{name}", content)
            files[f"{layout.folder}/{name}"] = digest(content)
        for entry in entries:
            files |= entry["files"]
        counts[dataset] = {
            "pictures": dict(Counter(item.split for item in items)),
            "people": {
                split: len({identity for item in items if item.split == split for identity, _ in item.people})
                for split in layout.splits
            },
            "redrawn": sum(entry["redrawn"] > 0 for entry in entries),
            "mostly_hidden": sum(entry["hidden"] for entry in entries),
        }
    return {
        "about": "people rendered by unihap, tools/synthesize_people.py; no photograph, no real person",
        "seed": request.seed,
        "domain": request.domain,
        "staging": request.staging,
        "versions": versions(),
        "counts": counts,
        "options": request.options(),
        "files": dict(sorted(files.items())),
    }


def _real_studio() -> StudioFactory:
    """The studio that renders bodies.

    Raises:
        MissingExtraError: a package of the extra ``synth`` is not installed.
    """
    for package in ("anny", "embreex"):
        if find_spec(package) is None:
            raise MissingExtraError(package)
    from unihap.synth.studio import Studio  # after the check, since its own imports need the packages

    return Studio
