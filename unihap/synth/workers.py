"""Processes that render items and write their files."""

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Protocol

from unihap.synth.journal import write_whole
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.base import TRIES, Context, Item, position_of
from unihap.synth.layouts.extra import describe
from unihap.synth.manifest import digest
from unihap.synth.structures import Person, Picture

logger = logging.getLogger(__name__)

MIN_VISIBLE = 0.4  # share of the person of a crop, or of somebody in a scene, that must be seen
# One thread a process: the processes share the work, and sums of floats must not depend on the number of threads.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class StudioLike(Protocol):
    """What ``unihap.synth.studio.Studio`` does."""

    def person(self, split: str, identity: int, outfit: int = 0) -> Person:
        """Somebody, in one of their outfits."""

    def crop(
        self, person: Person, split: str, camera: int, key: int, size: tuple[int, int], *, site: int, others: int
    ) -> Picture:
        """One person."""

    def scene(
        self, people: Sequence[Person], split: str, camera: int, key: int, size: tuple[int, int], *, site: int
    ) -> Picture:
        """Several people."""


StudioFactory = Callable[[int, str, str], StudioLike]  # (seed, domain, staging); importable by name in other processes


@dataclass(frozen=True)
class Setting:
    """What every process needs to render and write any item."""

    seed: int
    domain: str
    staging: str
    extra: str
    studio: StudioFactory
    folder: Path


def take_picture(studio: StudioLike, item: Item) -> tuple[Picture, int, float]:
    """The picture of an item; drawn again where too little is seen of the person (in a scene: of anybody).

    Returns:
        The picture, how often it was drawn again, and the share of the person that is seen in it.

    Raises:
        RuntimeError: nobody can be seen after ``TRIES`` pictures.
    """
    people = [studio.person(item.split, identity, outfit) for identity, outfit in item.people]
    best: tuple[Picture, int, float] | None = None
    for attempt in range(TRIES):
        place = item.split, item.camera, item.key + attempt, item.size
        if item.crop:
            picture = studio.crop(people[0], *place, site=item.site, others=item.others)
            share = picture.people[position_of(picture, people[0].identity)].visible_share
        else:
            picture = studio.scene(people, *place, site=item.site)
            share = max((seen.visible_share for seen in picture.people), default=1.0)
        if best is None or share > best[2]:
            best = picture, attempt, float(share)
        if share >= MIN_VISIBLE:
            break
    assert best is not None
    if best[2] <= 0:
        raise RuntimeError(f"{item.dataset}: nobody can be seen in {item.name} after {TRIES} pictures")
    return best


def render_item(studio: StudioLike, item: Item, setting: Setting) -> str:
    """Renders an item, writes its files and returns its line of the journal."""
    layout = LAYOUTS[item.dataset]
    picture, redrawn, share = take_picture(studio, item)
    files, facts = layout.label(item, picture, Context(setting.seed, setting.domain))
    for name, content in files.items():
        write_whole(setting.folder, f"{layout.folder}/{name}", content)
    line = {
        "key": item.key,
        "files": {f"{layout.folder}/{name}": digest(content) for name, content in files.items()},
        "redrawn": redrawn,
        "hidden": share < MIN_VISIBLE,
        "facts": facts,
        "extra": describe(item, picture, setting.extra),
    }
    return json.dumps(line, separators=(",", ":"))


# many pictures


class Worker:
    """A process that renders; made once in each."""

    current: "Worker | None" = None

    def __init__(self, setting: Setting, first: Lock | None = None) -> None:
        self.setting = setting
        self._first = first

    @cached_property
    def studio(self) -> StudioLike:
        """Made with the first picture, so that its errors are those of a picture."""
        return self.setting.studio(self.setting.seed, self.setting.domain, self.setting.staging)

    def render(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Key and journal line of every item."""
        if self._first is not None:
            first, self._first = self._first, None
            # the body model, which the first picture needs, is built by one process and then read by the others
            with first:
                return self.render(items)
        return [(item.key, render_item(self.studio, item, self.setting)) for item in items]


def _start_worker(setting: Setting, first: Lock, log_level: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    Worker.current = Worker(setting, first)


def _end_with_parent() -> None:
    """A killed parent cannot say that there is nothing more to do; its processes would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(items: Sequence[Item]) -> list[tuple[int, str]]:
    assert Worker.current is not None
    return Worker.current.render(items)


def rendered(items: Sequence[Item], setting: Setting, workers: int) -> Iterator[tuple[int, str]]:
    """Key and journal line of every item, in the order in which they are finished."""
    # pictures of one person go to one process, which dresses them once
    groups = (list(group) for _, group in groupby(items, key=lambda item: (item.dataset, item.people[:1])))
    if not items:
        return
    if workers == 0:
        worker = Worker(setting)
        for group in groups:
            yield from worker.render(group)
        return
    context = multiprocessing.get_context("spawn")
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        pool = ProcessPoolExecutor(
            workers, context, _start_worker, (setting, context.Lock(), logger.getEffectiveLevel())
        )
        try:
            yield from _results(pool, groups, 4 * workers)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a rendering process was killed, perhaps for want of memory; go on with --resume and fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _results(pool: ProcessPoolExecutor, groups: Iterable[list[Item]], ahead: int) -> Iterator[tuple[int, str]]:
    """Hands out groups, at most ``ahead`` at a time, and collects what comes back."""
    pending: set[Future[list[tuple[int, str]]]] = set()
    for group in groups:
        pending.add(pool.submit(_work, group))
        if len(pending) >= ahead:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
