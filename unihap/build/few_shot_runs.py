"""From tasks, methods and seeds to the runs of a few-shot comparison and what is on disk of them."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unihap.build.adapt import build_adaptation
from unihap.build.evaluation import build_evaluation
from unihap.build.model import task_block, train_tasks
from unihap.build.probe import learning_settings
from unihap.build.training import git_commit
from unihap.checkpoints.files import WEIGHTS, sha256, write_atomically
from unihap.config import CfgNode, get_cfg
from unihap.engine.few_shot import Method, markdown, tabulate

RESULT, CONFIG = "result.json", "config.yaml"  # in the folder of a run, the first one when it is finished
MINE = ("OUTPUT_DIR", "SEED", "MODEL.WEIGHTS")  # keys that a comparison sets itself, besides SHOT_SEED
FULL_SEEDS = 3  # at most so many runs of a method that trains on all records


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        task: what is learned, the only task that the config trains.
        method: how, the config's name.
        config: the file.
    """

    task: str
    method: str
    config: Path


@dataclass
class Comparison:
    """Everything that is run.

    Attributes:
        out: folder of the runs.
        weights: the trained model that all runs start from.
        cells: rows.
        seeds: of every row.
        overrides: KEY VALUE pairs.
    """

    out: Path
    weights: str
    cells: Sequence[Cell]
    seeds: range
    overrides: Sequence[str]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the trained model's file.

        Raises:
            FileNotFoundError: no such file.
        """
        file = Path(self.weights)
        file = file / WEIGHTS if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"no weights at {file}; give a checkpoint of joint training with --weights")
        return sha256(file)

    def config(self, cell: Cell, seed: int) -> CfgNode:
        """The merged config of a run; overrides of another compared task are left out.

        Raises:
            ValueError: a config that cannot be used, trains another task, or sets a key of ``MINE``.
        """
        others = {f"TASKS.{other.task}." for other in self.cells if other.task != cell.task}
        mine: list[Any] = []
        for key, value in zip(self.overrides[::2], self.overrides[1::2], strict=False):
            if key in MINE or key.endswith(".SHOT_SEED"):
                raise ValueError(f"{key} is set by run_few_shot.py itself; leave it away")
            if not key.startswith(tuple(others)):
                mine += [key, value]
        if len(self.overrides) % 2:
            mine.append(self.overrides[-1])  # is refused
        cfg = get_cfg()
        cfg.merge_from_file(cell.config)
        cfg.merge_from_list(mine)
        if train_tasks(cfg) != [cell.task]:
            raise ValueError(f"{cell.config} trains {', '.join(cfg.TRAIN.TASKS) or 'nothing'}, not {cell.task} alone")
        own = {"MODEL.WEIGHTS": self.weights, "OUTPUT_DIR": str(self.folder(cell, seed)), "SEED": seed}
        own[f"TASKS.{cell.task}.SHOT_SEED"] = seed
        cfg.merge_from_list([word for pair in own.items() for word in pair])
        cfg.freeze()
        return cfg

    def folder(self, cell: Cell, seed: int) -> Path:
        """Of a run."""
        return self.out / cell.task / cell.method / f"seed_{seed}"

    def seeds_of(self, cell: Cell) -> range:
        """All seeds, or the first few of a method that is not few-shot."""
        few_shot = task_block(self.config(cell, 0), cell.task).SHOTS > 0
        return self.seeds if few_shot else self.seeds[:FULL_SEEDS]

    def result(self, cell: Cell, seed: int) -> dict[str, Any] | None:
        """Of a run, if it is finished."""
        path = self.folder(cell, seed) / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def settings(self, cell: Cell, seed: int) -> dict[str, Any]:
        """All that decides what a run learns."""
        settings = learning_settings(self.config(cell, seed))
        settings["MODEL"]["WEIGHTS"] = self.digest
        return settings

    def check(self) -> None:
        """Reads every config and compares it with what is in its folder already.

        Raises:
            FileNotFoundError: no trained model.
            ValueError: an impossible config, or another than that of a finished run.
        """
        assert self.digest
        for cell in self.cells:
            build_adaptation(self.config(cell, 0))
            for seed in self.seeds_of(cell):
                found, folder = self.result(cell, seed), self.folder(cell, seed)
                if found is not None and found["settings"] != self.settings(cell, seed):
                    raise ValueError(f"{folder} holds a run with other settings; give another --out or delete it")

    def clear(self, cell: Cell, seed: int) -> Path:
        """An empty folder for a run; what an interrupted one left is deleted.

        Raises:
            ValueError: the folder holds something else.
        """
        folder = self.folder(cell, seed)
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / CONFIG).is_file():
                raise ValueError(f"{folder} is not empty and holds no run; give another --out")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CONFIG, self.config(cell, seed).dump())
        return folder

    def finish(self, cell: Cell, seed: int, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes and returns the result of a run."""
        written = {**result, "settings": self.settings(cell, seed)}
        write_atomically(self.folder(cell, seed) / RESULT, json.dumps(written, indent=1) + "\n")
        return written

    def blind_guesses(self) -> dict[str, dict[str, float]]:
        """What a blind guess scores in every task.

        Raises:
            FileNotFoundError: a test set is missing.
            ValueError: it does not fit its task.
        """
        guesses = {}
        for cell in self.cells:
            if cell.task not in guesses:
                job = build_evaluation(self.config(cell, 0))[0]
                guesses[cell.task] = job.task.evaluator.chance(job.dataset)
        return guesses

    def write(self, blind: Mapping[str, Mapping[str, float]]) -> tuple[str, list[dict[str, Any]]]:
        """Renews ``few_shot.json`` and ``few_shot.md`` with what is finished.

        Returns:
            The Markdown table, and its rows.
        """
        methods = []
        for cell in self.cells:
            found = {seed: self.result(cell, seed) for seed in self.seeds_of(cell)}
            results = {
                seed: {key: value for key, value in result.items() if key != "settings"}
                for seed, result in found.items()
                if result is not None
            }
            metric = next((result["metric"] for result in results.values()), "")
            methods.append(Method(cell.task, cell.method, str(cell.config), metric, blind[cell.task], results))
        methods = [method for method in methods if method.results]
        rows = tabulate(methods)
        about = {
            "git_commit": git_commit(),
            "weights": self.weights,
            "weights_sha256": self.digest,
            "overrides": list(self.overrides),
        }
        text = markdown(rows)
        content = json.dumps({**about, "rows": rows}, indent=1) + "\n"
        for name, written in (("few_shot.json", content), ("few_shot.md", text)):
            mine = self.out / f"{name}.{os.getpid()}"  # another command may be writing too
            write_atomically(mine, written)
            os.replace(mine, self.out / name)
        return text, rows
