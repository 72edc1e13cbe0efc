#!/usr/bin/env python
r"""Adapts a trained model to new tasks from a few pictures by several methods, and tabulates what came out.

The protocol of UniHCP's Table 9: one picture for every class, several draws, mean and standard deviation.

Examples:
  prompt tuning, fine-tuning and a linear probe on rendered people of domain b, ten draws each
    python tools/run_few_shot.py --weights output/joint_cpu/checkpoints/iteration_00001700 --out output/few_shot
  one task, two methods, five pictures per class
    python tools/run_few_shot.py --weights W --out output/five --tasks synth_b_pose --methods prompt,finetune \
        TASKS.synth_b_pose.SHOTS 5

A task is a folder, or the name of one in configs/few_shot; a method is the name of a file in it.  Such a file is an
ordinary config of train_net.py, which may run it alone.  Seed n draws the pictures, the random weights and the order of
samples, so methods of the same seed have the same pictures.  A method that trains on all records has at most 3 seeds.
Learning rates and other choices should be made on other draws than those that are reported: see --first-seed.

OUT gets few_shot.json and few_shot.md, renewed after every run, few_shot.png, and the runs, each in a folder
OUT/<task>/<method>/seed_<n>.  The same command goes on after a kill; what is finished is not run again.  Several
commands with different tasks or methods may work in one OUT at the same time; one with all of them afterwards only
tabulates.
Exit status: 0 done, 1 a run failed, 2 bad arguments, config or data, 130 stopped.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import contextlib
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unihap.build import build_device, build_evaluation, build_plan, build_training, evaluated_files
from unihap.build.few_shot import SHOTS
from unihap.build.few_shot_runs import Cell, Comparison
from unihap.command_line import OneLineParser, words
from unihap.data.images import BadImageError
from unihap.engine.allocator import keep_heap
from unihap.engine.evaluate import evaluate
from unihap.engine.events import duration
from unihap.engine.groups import Groups
from unihap.engine.loop import train
from unihap.engine.memory import PeakMemory
from unihap.visualize.few_shot import draw_few_shot

logger = logging.getLogger("run_few_shot")

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "few_shot"
TASKS = ("synth_b_parsing", "synth_b_pose")
ORDER = ("direct", "linear", "finetune", "prompt", "prompt_deep", "prompt_encoder", "full_data")  # of the rows
LOG = "train.log"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="run_few_shot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, metavar="W", help="checkpoint of joint training to start from")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder of runs and tables")
    parser.add_argument("--tasks", type=words, default=TASKS, help=f"comma-separated; default: {','.join(TASKS)}")
    parser.add_argument("--methods", type=words, default=(), help="comma-separated; default: all that a task has")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="number of draws; default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="of the draws; default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys to change in every run")
    return parser.parse_args(arguments)


def find_cells(tasks: Sequence[str], methods: Sequence[str]) -> list[Cell]:
    """The rows that ``--tasks`` and ``--methods`` name.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no task, or something is named twice.
    """
    cells = []
    for task in tasks:
        folder = CONFIGS / task if (CONFIGS / task).is_dir() else Path(task)
        found = {file.stem: file for file in folder.glob("*.yaml")}
        if not found:
            known = ", ".join(sorted(path.name for path in CONFIGS.iterdir() if path.is_dir()))
            raise FileNotFoundError(f"no task {task!r}: neither a folder of configs nor one of {known}")
        places = {name: place for place, name in enumerate(ORDER)}
        for method in methods or sorted(found, key=lambda name: (places.get(name, len(places)), name)):
            if method not in found:
                raise FileNotFoundError(f"{folder} has no method {method!r}; it has {', '.join(sorted(found))}")
            cells.append(Cell(folder.resolve().name, method, found[method]))
    if not cells or len({(cell.task, cell.method) for cell in cells}) < len(cells):
        raise ValueError("--tasks must name at least one task, and --tasks and --methods nothing twice")
    return cells


@contextlib.contextmanager
def log_into(file: Path) -> Iterator[None]:
    """What the package tells goes into a file and not to the screen."""
    package, handler = logging.getLogger("unihap"), logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    before = package.propagate, package.level
    package.addHandler(handler)
    package.propagate = False
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.propagate = before[0]
        package.setLevel(before[1])
        package.removeHandler(handler)
        handler.close()


def run_one(comparison: Comparison, cell: Cell, seed: int) -> dict[str, Any]:
    """Trains and evaluates; writes and returns the result.

    Raises:
        BadImageError: an image of the training or test set cannot be used.
        FileNotFoundError: a dataset is missing.
        FloatingPointError: the loss is not finite.
        ValueError: an impossible config.
    """
    start = time.monotonic()
    cfg = comparison.config(cell, seed)
    folder = comparison.clear(cell, seed)
    device = build_device(cfg)
    with log_into(folder / LOG):
        jobs = build_evaluation(cfg)
        memory = PeakMemory(device.device)
        model, run = build_training(cfg, Groups(build_plan(cfg)), device, resume=False)
        trained = sum(p.numel() for group in run.optimizer.param_groups for p in group["params"])
        started = time.monotonic()
        train(run)
        seconds, peak = time.monotonic() - started, memory.megabytes()
        results = evaluate(
            model,
            jobs,
            folder,
            autocast=device.autocast,
            num_pictures=cfg.TEST.VISUALIZE,
            weights=evaluated_files(cfg, str(run.checkpoints.complete()[-1]), prompts=False),
            num_threads=cfg.TEST.NUM_THREADS,
        )
    drawn = folder / SHOTS
    records = json.loads(drawn.read_text(encoding="utf-8"))[cell.task]["records"] if drawn.is_file() else None
    result = {
        "metric": jobs[0].task.main_metric,
        "dataset": jobs[0].dataset.name,
        "metrics": results[jobs[0].dataset.name],
        "records": None if records is None else len(records),
        "trainable": trained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "iterations": run.last_iteration,
        "seconds": round(seconds, 2),
        "memory_mb": None if peak is None else round(peak, 1),
        "wall_seconds": round(time.monotonic() - start, 2),
    }
    return comparison.finish(cell, seed, result)


def time_left(seconds: Mapping[Cell, Sequence[float]], todo: Sequence[Cell]) -> str:
    """How long the remaining runs take, by the mean of their row or, where it has none, of all; "?" if unknown."""
    known = [value for values in seconds.values() for value in values]
    if todo and not known:
        return "?"
    mine = [seconds.get(cell) or known for cell in todo]
    return duration(sum(sum(values) / len(values) for values in mine))


def run_all(comparison: Comparison, blind: Mapping[str, Mapping[str, float]]) -> int:
    """Runs what is not finished, seed after seed; returns the exit status.

    Raises:
        FileNotFoundError: data are missing.
        ValueError: a config or data are refused.
    """
    mine = {cell: comparison.seeds_of(cell) for cell in comparison.cells}
    order = [(cell, seed) for seed in comparison.seeds for cell in comparison.cells if seed in mine[cell]]
    seconds: dict[Cell, list[float]] = defaultdict(list)
    failed = 0
    for number, (cell, seed) in enumerate(order, 1):
        title = f"[{number}/{len(order)}] {cell.task}, {cell.method}, seed {seed}"
        result = comparison.result(cell, seed)
        if result is None:
            try:
                result = run_one(comparison, cell, seed)
            except (FloatingPointError, BadImageError) as error:
                print(f"run_few_shot.py: {cell.task}, {cell.method}, seed {seed}: {error}", file=sys.stderr)
                failed += 1
                continue
            comparison.write(blind)
        seconds[cell].append(result["wall_seconds"])
        todo = [c for c, s in order[number:] if comparison.result(c, s) is None]
        score = result["metrics"].get(result["metric"], float("nan"))
        took, left = duration(result["wall_seconds"]), time_left(seconds, todo)
        logger.info("%s: %s %.2f; took %s, left %s", title, result["metric"], score, took, left)
    text, rows = comparison.write(blind)
    draw_few_shot(rows, comparison.out / "few_shot.png")
    print(text)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line; returns the exit status."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    keep_heap()
    try:
        if options.seeds < 1 or options.first_seed < 0:
            raise ValueError(
                f"--seeds must be at least 1 and --first-seed 0, got {options.seeds} and {options.first_seed}"
            )
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        cells = find_cells(options.tasks, options.methods)
        comparison = Comparison(options.out, options.weights, cells, seeds, options.overrides)
        comparison.check()
        blind = comparison.blind_guesses()
        options.out.mkdir(parents=True, exist_ok=True)
        return run_all(comparison, blind)
    except (ValueError, FileNotFoundError) as error:
        print(f"run_few_shot.py: {error}", file=sys.stderr)
        return 2
    except BadImageError as error:
        print(f"run_few_shot.py: a blind guess cannot be judged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_few_shot.py: stopped; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
