#!/usr/bin/env python
"""Pre-trains the cells of an ablation with several seeds, probes the frozen encoders and tabulates what came out.

Examples:
  HAP's ladder on rendered people: none, MAE, + structure priors, + part prior, + alignment
    python tools/run_ladder.py --out output/ladder
  all rows of Table 3, shorter
    python tools/run_ladder.py --out output/table3 --cells table3 --seeds 0,1 PRETRAIN.EPOCHS 10
  any configs of pre-training
    python tools/run_ladder.py --out output/parts --cells none,configs/ablation/hap_cpu/table12/fixed_6.yaml,hap

A cell is a file, a name of the built-in rows (none, baseline, hap_0, hap_1, hap_2, hap) or a list of these (ladder,
table3).  "none" is the encoder before the first step of the first cell that trains: random weights of the seed, or
MODEL.ENCODER.WEIGHTS.  How encoders are probed is in unihap/engine/probe.py.

OUT gets ladder.json and ladder.md, renewed after every run, and OUT/<cell>/seed_<n> with the run and its result.json.
The same command goes on after a kill; what is finished is not run again.  Commands with different --seeds may work in
one OUT at the same time; one with all seeds afterwards only tabulates.
Exit status: 0 done, 1 a run failed, 2 bad arguments, config or data, 130 stopped.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import json
import logging
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unihap.build import build_device, datasets_root
from unihap.build.ladder import RESULT, Cell, Ladder, cell_config
from unihap.build.probe import build_probe_sets, first_encoder, learning_settings, pretrained_encoder
from unihap.checkpoints.files import write_atomically
from unihap.command_line import OneLineParser, words
from unihap.data.images import BadImageError
from unihap.engine.events import duration
from unihap.engine.ladder import NONE
from unihap.engine.probe import blind_guess, probe

logger = logging.getLogger("unihap")

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "tools" / "train_net.py"
ROWS = ("baseline", "hap_0", "hap_1", "hap_2", "hap")  # of Table 3 below its first, in the order of the paper
BUILT_IN = {row: ROOT / "configs" / "ablation" / "hap_cpu" / "table3" / f"{row}.yaml" for row in ROWS}
LADDERS = {"ladder": (NONE, "baseline", "hap_0", "hap_1", "hap"), "table3": (NONE, *ROWS)}
LOG = "train.log"


class RunFailedError(RuntimeError):
    """A pre-training that ended with another status than 0."""


def numbers(text: str) -> tuple[int, ...]:
    """The seeds of a list with commas."""
    return tuple(int(part) for part in words(text))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="run_ladder.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of runs and tables")
    parser.add_argument("--cells", type=words, default=("ladder",), help="comma-separated, see above; default: ladder")
    parser.add_argument("--seeds", type=numbers, default=(0, 1, 2), help="comma-separated; default: 0,1,2")
    parser.add_argument("--reid", default="synth_market1501_test", metavar="TEST", help="default: %(default)s")
    parser.add_argument(
        "--attributes", type=words, default=("synth_pa100k_train", "synth_pa100k_test"), metavar="TRAIN,TEST"
    )
    parser.add_argument(
        "--keypoints",
        type=words,
        default=("synth_coco_keypoints_train", "synth_coco_keypoints_val"),
        metavar="TRAIN,TEST",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys to change in every cell")
    return parser.parse_args(arguments)


def find_cells(given: Sequence[str]) -> list[Cell]:
    """The cells of ``--cells``.

    Raises:
        FileNotFoundError: neither a name nor a file.
        ValueError: no cell, or two of one name.
    """
    names = [name for part in given for name in LADDERS.get(part, (part,))]
    files = {name: BUILT_IN.get(name, Path(name)) for name in names if name != NONE}
    for name, file in files.items():
        if not file.is_file():
            known = ", ".join((*LADDERS, NONE, *ROWS))
            raise FileNotFoundError(f"no cell {name!r}: neither a config file nor one of {known}")
    first = next(iter(files.values()), BUILT_IN[ROWS[-1]])
    cells = []
    for name in names:
        if name == NONE:
            cells.append(Cell(NONE, first, trains=False))
        elif name in BUILT_IN:
            cells.append(Cell(name, files[name]))
        else:  # table11/part.yaml and table12/part.yaml are different cells
            cells.append(Cell(f"{files[name].resolve().parent.name}-{files[name].stem}", files[name]))
    if not cells or len({cell.name for cell in cells}) < len(cells):
        raise ValueError(f"--cells must name at least one cell and none twice, got {', '.join(names) or 'nothing'}")
    return cells


def call(command: Sequence[str], log: Path) -> int:
    """Runs a command, whose words are added to a file; returns its exit status."""
    with open(log, "ab") as file:
        return subprocess.run(command, stdout=file, stderr=file).returncode


def pretrain(cell: Cell, folder: Path, seed: int, overrides: Sequence[str]) -> None:
    """Runs train_net.py, which goes on where it was.

    Raises:
        RunFailedError: with the last line it said.
        ValueError: it refused the config or the data, likewise.
    """
    command = [sys.executable, str(TRAIN), "--config", str(cell.config), "--resume", *overrides]
    command += ["OUTPUT_DIR", str(folder), "SEED", str(seed)]
    status = call(command, folder / LOG)
    if status:
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        message = f"{cell.name}, seed {seed}: train_net.py ended with status {status}: {said[-1]} (see {folder / LOG})"
        raise ValueError(message) if status == 2 else RunFailedError(message)


def run_one(ladder: Ladder, cell: Cell, seed: int) -> dict[str, Any]:
    """Pre-trains and probes; writes and returns the result.

    Raises:
        RunFailedError: pre-training failed.
        ValueError: pre-training refused its config or data.
    """
    start = time.monotonic()
    cfg, folder = ladder.config(cell, seed), ladder.folder(cell, seed)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = ""
    if cell.trains:
        pretrain(cell, folder, seed, ladder.overrides)
        encoder, path = pretrained_encoder(cfg)
        checkpoint = path.name
    else:
        encoder = first_encoder(cfg)
    height, width = cfg.PRETRAIN.INPUT_SIZE
    metrics = probe(encoder.to(build_device(cfg).device), ladder.sets, (height, width))
    result = {
        "cell": cell.name,
        "seed": seed,
        "metrics": metrics,
        "checkpoint": checkpoint,
        "seconds": round(time.monotonic() - start, 1),
        "probe": ladder.set_names,
        "settings": learning_settings(cfg),
    }
    write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def time_left(seconds: Mapping[str, Sequence[float]], todo: Sequence[Cell]) -> str:
    """How long the remaining runs take, by the mean of their cell or of all cells that train; "?" if unknown."""
    known = [value for name, values in seconds.items() if name != NONE for value in values]
    left = 0.0
    for cell in todo:
        mine = seconds.get(cell.name) or (known if cell.trains else [])
        if cell.trains and not mine:
            return "?"
        left += sum(mine) / max(len(mine), 1)
    return duration(left)


def run_all(ladder: Ladder) -> int:
    """Runs what is not finished, seed after seed; returns the exit status.

    Raises:
        ValueError: a cell's config or data are refused.
    """
    order = [(cell, seed) for seed in ladder.seeds for cell in ladder.cells]
    seconds: dict[str, list[float]] = defaultdict(list)
    failed = 0
    for number, (cell, seed) in enumerate(order, 1):
        title, result = f"[{number}/{len(order)}] {cell.name}, seed {seed}", ladder.result(cell, seed)
        if result is None:
            logger.info("%s: started%s", title, f", see {ladder.folder(cell, seed) / LOG}" if cell.trains else "")
            try:
                result = run_one(ladder, cell, seed)
            except RunFailedError as error:
                print(f"run_ladder.py: {error}", file=sys.stderr)
                failed += 1
                continue
            ladder.write()
        seconds[cell.name].append(result["seconds"])
        todo = [c for c, s in order[number:] if ladder.result(c, s) is None]
        scores = ", ".join(f"{name} {value:.1f}" for name, value in result["metrics"].items() if "strength" not in name)
        logger.info("%s: %s; took %s, left %s", title, scores, duration(result["seconds"]), time_left(seconds, todo))
    print(ladder.write())
    return 1 if failed else 0


def prepare(options: argparse.Namespace) -> Ladder:
    """Everything that can be refused, before anything runs.

    Raises:
        FileNotFoundError: a config or dataset is missing.
        ValueError: an option or config that cannot be used.
    """
    for name in ("attributes", "keypoints"):
        if len(getattr(options, name)) != 2:
            raise ValueError(f"--{name} must be TRAIN,TEST, got {','.join(getattr(options, name)) or 'nothing'}")
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds must name at least one seed and none twice, got {options.seeds}")
    cells = find_cells(options.cells)
    root = datasets_root(cell_config(cells[0], options.seeds[0], options.out, options.overrides))
    sets = build_probe_sets(root, options.reid, options.attributes, options.keypoints)
    names = {"reid": options.reid, "attributes": list(options.attributes), "keypoints": list(options.keypoints)}
    ladder = Ladder(options.out, cells, options.seeds, options.overrides, sets, names, blind_guess(sets))
    ladder.check()
    return ladder


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line; returns the exit status."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    try:
        ladder = prepare(options)
        ladder.out.mkdir(parents=True, exist_ok=True)
        return run_all(ladder)
    except (ValueError, FileNotFoundError) as error:
        print(f"run_ladder.py: {error}", file=sys.stderr)
        return 2
    except BadImageError as error:
        print(f"run_ladder.py: the probe failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_ladder.py: stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
