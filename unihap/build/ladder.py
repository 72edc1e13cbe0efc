"""From cells, seeds and overrides to the runs of a ladder and what is on disk of them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unihap.build.pretrain import check_pretraining
from unihap.build.pretrain_data import build_crops
from unihap.build.probe import learning_settings
from unihap.build.training import git_commit
from unihap.checkpoints.files import write_atomically
from unihap.config import CfgNode, get_cfg
from unihap.engine.ladder import Rung, markdown, tabulate
from unihap.engine.probe import ProbeSets

MODE = "pretrain"
RESULT = "result.json"  # in the folder of a finished run
MINE = ("OUTPUT_DIR", "SEED", "TRAIN.MODE")  # keys that a ladder sets itself


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        name: of the row and of its folder.
        config: what is pre-trained, or, where nothing is, whose encoder is built.
        trains: whether anything is pre-trained.
    """

    name: str
    config: Path
    trains: bool = True


def cell_config(cell: Cell, seed: int, output: Path, overrides: Sequence[str]) -> CfgNode:
    """The merged config of a run.

    Raises:
        ValueError: a config that cannot be used, that is not of pre-training, or that sets a key of ``MINE``.
    """
    taken = [key for key in overrides[::2] if key in MINE]
    if taken:
        raise ValueError(f"{taken[0]} is set by a ladder itself; leave it away")
    cfg = get_cfg()
    cfg.merge_from_file(cell.config)
    cfg.merge_from_list([*overrides, "OUTPUT_DIR", str(output), "SEED", seed])
    if cfg.TRAIN.MODE != MODE:
        raise ValueError(f"{cell.config} is of TRAIN.MODE {cfg.TRAIN.MODE}; a cell must be of {MODE}")
    check_pretraining(cfg)
    return cfg


@dataclass(frozen=True)
class Ladder:
    """Everything that is run.

    Attributes:
        out: folder of the runs.
        cells: rows.
        seeds: of every row.
        overrides: KEY VALUE pairs.
        sets: what encoders are probed on.
        set_names: their names.
        blind: what a blind guess scores on them.
    """

    out: Path
    cells: Sequence[Cell]
    seeds: Sequence[int]
    overrides: Sequence[str]
    sets: ProbeSets
    set_names: Mapping[str, Any]
    blind: Mapping[str, float]

    def folder(self, cell: Cell, seed: int) -> Path:
        """Of a run."""
        return self.out / cell.name / f"seed_{seed}"

    def config(self, cell: Cell, seed: int) -> CfgNode:
        """Of a run."""
        return cell_config(cell, seed, self.folder(cell, seed), self.overrides)

    def result(self, cell: Cell, seed: int) -> dict[str, Any] | None:
        """Of a run, if it is finished."""
        path = self.folder(cell, seed) / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def check(self) -> None:
        """Reads every config, looks for its images and compares it with what is in its folder already.

        Raises:
            FileNotFoundError: images or keypoints of a cell are not there.
            ValueError: an impossible config, or another than that of a finished or interrupted run.
        """
        for cell in self.cells:
            if cell.trains and any(self.result(cell, seed) is None for seed in self.seeds):
                build_crops(self.config(cell, self.seeds[0]))
            for seed in self.seeds:
                cfg, folder = self.config(cell, seed), self.folder(cell, seed)
                found = self.result(cell, seed)
                before = None if found is None else found["settings"]
                if found is None and (folder / "config.yaml").is_file():
                    interrupted = get_cfg()
                    interrupted.merge_from_file(folder / "config.yaml")
                    before = learning_settings(interrupted)
                if before is not None and before != learning_settings(cfg):
                    raise ValueError(f"{folder} holds a run with other settings; give another --out or delete it")
                if found is not None and found["probe"] != self.set_names:
                    raise ValueError(
                        f"{folder} was probed on other datasets; give another --out or delete its {RESULT}"
                    )

    def write(self) -> str:
        """Renews both tables with what is finished; returns the Markdown one."""
        rungs = []
        for cell in self.cells:
            found = {seed: self.result(cell, seed) for seed in self.seeds}
            rungs.append(Rung(cell.name, str(cell.config), {s: r for s, r in found.items() if r is not None}))
        table = tabulate(rungs, self.blind)
        about = {"git_commit": git_commit(), "overrides": list(self.overrides), "probe": self.set_names}
        text = markdown(table)
        for name, content in (("ladder.json", json.dumps({**about, **table}, indent=1) + "\n"), ("ladder.md", text)):
            mine = self.out / f"{name}.{os.getpid()}"  # another command may be writing too
            write_atomically(mine, content)
            os.replace(mine, self.out / name)
        return text
