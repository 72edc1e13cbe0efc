"""Finished runs as records of the model zoo.  See tools/update_model_zoo.py."""

import argparse
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from unihap.build import build_task
from unihap.checkpoints.files import CARD, WEIGHTS, sha256
from unihap.config import get_cfg
from unihap.zoo.page import ZooError, read_json

UNKNOWN = "not recorded"
DIGITS = 4  # of a written value


def make_record(options: argparse.Namespace) -> dict[str, Any]:
    """The record of a finished run, ladder or few-shot comparison.

    Args:
        options: the command line of ``update_model_zoo.py``.

    Raises:
        FileNotFoundError: no results or no weights.
        ValueError: the run does not say what is needed.
    """
    readers = {"results.json": _run, "ladder.json": _ladder, "few_shot.json": _few_shot}
    found = [name for name in readers if (options.add / name).is_file()]
    if not found:
        raise FileNotFoundError(f"no {' or '.join(readers)} in {options.add}; evaluate first")
    file = options.add / found[0]
    read = readers[found[0]](options, file)
    finished = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    return {
        "name": options.name or options.add.resolve().name,
        "section": options.section,
        "config": options.config,
        "command": options.command,
        "commit": read["commit"],
        "checkpoint": read["checkpoint"],
        "time": options.time or read["time"],
        "hardware": options.hardware or hardware(),
        "date": finished.date().isoformat(),
        **({"note": options.note} if options.note else {}),
        **({"layout": read["layout"]} if "layout" in read else {}),
        "results": read["results"],
    }


def hardware() -> str:
    """Cores this process may use, the processor's name, GPUs, and torch's version."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    model = found[1] if found else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join([f"{cores} cores of {model}", *devices, f"torch {torch.__version__.split('+')[0]}"])


def chances(texts: Sequence[str]) -> dict[tuple[str, str], float]:
    """Dataset and metric to what a blind guess scores.

    Raises:
        ValueError: not ``DATASET:METRIC=VALUE``.
    """
    found = {}
    for text in texts:
        match = re.fullmatch(r"([^:=]+):([^=]+)=(-?\d+\.?\d*)", text)
        if match is None:
            raise ValueError(f"--chance {text!r} is not DATASET:METRIC=VALUE, e.g. synth_lip_val:mIoU=4.2")
        found[match[1], match[2]] = float(match[3])
    return found


def _run(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """A training or an evaluation: results.json."""
    run = file.parent
    config = run / "config.yaml"
    settings = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}) if config.is_file() else {}
    protocols = read_json(run / "protocols.json") if (run / "protocols.json").is_file() else {}
    weights = _weights_file(run, settings, options.weights)
    checksum = sha256(weights) if weights else UNKNOWN
    stated = {entry["sha256"] for protocol in protocols.values() for entry in protocol.get("weights") or ()}
    if stated and checksum not in stated:
        raise ZooError(
            f"{run / 'protocols.json'}: weights: the results are of {', '.join(sorted(stated))}, not of {weights} "
            f"({checksum}); name the evaluated checkpoint with --weights"
        )
    card = read_json(weights.with_name(CARD)) if weights and weights.with_name(CARD).is_file() else {}
    return {
        "commit": card.get("git_commit") if re.fullmatch(r"[0-9a-f]{40}", card.get("git_commit", "")) else UNKNOWN,
        "checkpoint": checksum if len(stated) < 2 else sorted(stated),
        "time": options.time or _span(config, file),
        "results": _results(run, settings, protocols, options),
    }


def _results(
    run: Path, settings: Mapping[str, Any], protocols: Mapping[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The main metric of every evaluated dataset, and the other metrics that were asked for."""
    plain = get_cfg()  # main metrics and own test sets of tasks do not depend on a run's config
    guesses = chances(options.chance)
    tasks = {}
    for name in (settings.get("TEST") or {}).get("TASKS") or (settings.get("TRAIN") or {}).get("TASKS") or ():
        block = (settings.get("TASKS") or {}).get(name) or {}
        tasks.update(dict.fromkeys(block.get("TEST") or build_task(plain, name).test_datasets, name))
    results = []
    for dataset, metrics in read_json(run / "results.json").items():
        protocol = protocols.get(dataset) or {}
        task = protocol.get("task") or tasks.get(dataset)
        if task is None:
            raise ZooError(f"{run / 'config.yaml'}: TASKS: no evaluated task has {dataset} of results.json in its TEST")
        wanted = dict.fromkeys((build_task(plain, task).main_metric, *options.metric))
        for metric in (name for name in wanted if name in metrics):
            result = {"dataset": dataset, "task": task, "metric": metric, "value": round(metrics[metric], DIGITS)}
            if (dataset, metric) in guesses:
                result["chance"] = guesses[dataset, metric]
            if "num_records" in protocol:
                result["records"] = protocol["num_records"]
            results.append(result)
    if not results:
        raise ZooError(f"{run / 'results.json'}: no dataset has the main metric of its task")
    return results


def _ladder(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """A ladder of pre-trained encoders, judged by probes: tools/run_ladder.py."""
    table = read_json(file)
    results, files, seconds = [], [], 0.0
    for row in table["rows"]:
        for run in row["runs"]:
            seconds += run["seconds"]
            folder = file.parent / row["name"] / f"seed_{run['seed']}" / "checkpoints" / (run["checkpoint"] or "none")
            files += [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []
        for name, values in row["metrics"].items():
            kind, metric = name.split("_", 1)
            probed = table["probe"][kind]
            result = {"dataset": probed if isinstance(probed, str) else probed[-1], "task": f"probe, {kind}"}
            result |= {"metric": metric, "method": row["name"], "chance": round(table["blind_guess"][name], DIGITS)}
            results += _spread(result, values, row["runs"])
    return {
        "commit": table["git_commit"],
        "checkpoint": [sha256(path) for path in files] or UNKNOWN,
        "time": _duration(seconds, sum(len(row["runs"]) for row in table["rows"])),
        "layout": "wide",
        "results": results,
    }


def _few_shot(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Ways of adapting to few pictures: tools/run_few_shot.py."""
    table = read_json(file)
    results = []
    for row in table["rows"]:
        metric = row["metric"]
        result: dict[str, Any] = {"dataset": row["runs"][0]["dataset"], "task": row["task"], "metric": metric}
        result["method"] = row["method"]
        if metric in row["blind_guess"]:
            result["chance"] = round(row["blind_guess"][metric], DIGITS)
        if row["trainable"] is not None and row["parameters"]:
            result["trained"] = round(100 * row["trainable"] / row["parameters"], DIGITS)
        result |= {key: row[key] for key in ("seconds", "memory_mb") if row[key] is not None}
        results += _spread(result, row["metrics"][metric], row["runs"])
    runs = [run for row in table["rows"] for run in row["runs"]]
    return {
        "commit": table["git_commit"],
        "checkpoint": table["weights_sha256"],
        "time": _duration(sum(run.get("wall_seconds") or run["seconds"] for run in runs), len(runs)),
        "results": results,
    }


def _spread(
    result: Mapping[str, Any], values: Mapping[str, Any], runs: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A result with mean, deviation and seeds; none where no seed has finished."""
    if values["mean"] is None:
        return []
    full = {**result, "value": round(values["mean"], DIGITS), "seeds": [run["seed"] for run in runs]}
    return [full if values["std"] is None else {**full, "std": round(values["std"], DIGITS)}]


def _weights_file(run: Path, settings: Mapping[str, Any], given: Path | None) -> Path | None:
    """The evaluated weights: those given, those the run wrote last, or those that a run without training read."""
    written = sorted((run / "checkpoints").glob(f"iteration_*/{WEIGHTS}"))
    read = (settings.get("MODEL") or {}).get("WEIGHTS") or None
    chosen = given or (written[-1] if written else read and Path(read))
    if not chosen:
        return None
    file = chosen / WEIGHTS if chosen.is_dir() else chosen
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}; name the evaluated checkpoint with --weights")
    return file


def _span(first: Path, last: Path) -> str:
    """Time between the files that a run writes first and last.

    Raises:
        ValueError: the files do not tell (they were copied).
    """
    seconds = last.stat().st_mtime - first.stat().st_mtime if first.is_file() else 0
    if seconds < 1:
        raise ValueError(f"the file times in {last.parent} do not tell how long the run took; give --time")
    return _duration(seconds)


def _duration(seconds: float, num_runs: int = 1) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = (f"{hours} h " if hours else "") + f"{minutes} min {rest} s"
    return text if num_runs == 1 else f"{text} in {num_runs} runs"
