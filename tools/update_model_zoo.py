#!/usr/bin/env python
r"""Writes MODEL_ZOO.md from the numbers in model_zoo/, and turns a finished run into one of its records.

Examples:
  write MODEL_ZOO.md
    python tools/update_model_zoo.py
  only compare (exit status 1: MODEL_ZOO.md is older than its numbers)
    python tools/update_model_zoo.py --check
  add a run, a ladder (run_ladder.py) or a few-shot comparison (run_few_shot.py) and write MODEL_ZOO.md
    python tools/update_model_zoo.py --add output/joint_cpu --name quickstart --section rendered_a \
        --config configs/quick/joint_cpu.yaml --command "make quickstart" --time "14 min 16 s"

model_zoo/README.md explains the files.
Exit status: 0 done, 1 stale (--check), 2 bad arguments, a bad record or an incomplete run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unihap.command_line import OneLineParser
from unihap.zoo.page import SECTIONS, load_zoo, page, slug

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        prog="update_model_zoo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if MODEL_ZOO.md is stale")
    parser.add_argument("--add", type=Path, metavar="RUN_DIR", help="folder with results, ladder or few_shot .json")
    new = parser.add_argument_group("of the record that --add writes")
    new.add_argument("--name", help="short name of the run; default: that of RUN_DIR")
    new.add_argument("--section", choices=list(SECTIONS), default="rendered_a")
    new.add_argument("--config", help="config file, relative to the repository")
    new.add_argument("--command", help="the command that repeats the run")
    new.add_argument(
        "--weights", type=Path, help="evaluated checkpoint; default: the newest of the run, else its MODEL.WEIGHTS"
    )
    new.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="also this metric, where there is one"
    )
    new.add_argument(
        "--chance", action="append", default=[], metavar="DATASET:METRIC=VALUE", help="what a blind guess scores"
    )
    new.add_argument("--time", help='e.g. "13 min 2 s"; default: from config.yaml to results.json by their file times')
    new.add_argument("--hardware", help="default: this machine")
    new.add_argument("--note", default="")
    options = parser.parse_args(arguments)
    if options.add and options.check:
        parser.error("--check and --add exclude each other")
    if options.add and not (options.config and options.command):
        parser.error("--add needs --config and --command, without which nobody can repeat the run")
    return options


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Does what the command line says; returns the exit status."""
    options = parse(arguments)
    target = root / "MODEL_ZOO.md"
    try:
        if options.add:
            from unihap.zoo.runs import make_record  # needs torch, which the page alone does not

            record = make_record(options)
            path = root / "model_zoo" / "measured" / f"{slug(record['name'])}.json"
            add(path, record, root)
            print(f"wrote {path}")
        text = page(load_zoo(root))
    except (ValueError, OSError) as error:
        print(f"update_model_zoo.py: {error}", file=sys.stderr)
        return 2
    if options.check:
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            print("MODEL_ZOO.md is stale; run python tools/update_model_zoo.py", file=sys.stderr)
            return 1
        return 0
    write(target, text)
    return 0


def add(path: Path, record: Mapping[str, Any], root: Path) -> None:
    """Writes a record, which stays only if the page can be made with it.

    Raises:
        ValueError: there is one already, or this one is refused.
    """
    if path.exists():
        raise ValueError(f"{path} exists already; give another --name or delete it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    try:
        load_zoo(root)
    except ValueError:
        path.unlink()
        raise


def write(path: Path, text: str) -> None:
    """A text file in one step, so that a kill leaves the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
