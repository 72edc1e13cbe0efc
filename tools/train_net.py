#!/usr/bin/env python
"""Trains, adapts or evaluates unihap from a config file, or pre-trains its encoder.

Examples:
  all five kinds of task on one CPU, in minutes
    python tools/train_net.py --config configs/quick/joint_real.yaml
  the same with one process per task
    torchrun --nproc-per-node 5 tools/train_net.py --config configs/quick/joint_real.yaml
  an encoder on person crops without labels; joint training starts from it with MODEL.ENCODER.WEIGHTS
    python tools/train_net.py --config configs/quick/pretrain_cpu.yaml
  who would train what, and nothing else
    python tools/train_net.py --config configs/joint/unihcp_vitb_33datasets.yaml --dry-run
  evaluate a checkpoint
    python tools/train_net.py --config FILE --eval-only MODEL.WEIGHTS output/checkpoints/iteration_00001000
  adapt it to a new dataset by its queries alone, or altogether
    python tools/train_net.py --config configs/prompt/quick_synth_b_pose.yaml MODEL.WEIGHTS CHECKPOINT
    python tools/train_net.py --config configs/finetune/market1501.yaml MODEL.WEIGHTS CHECKPOINT
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its version otherwise

import argparse
import datetime
import logging
import re
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from unihap.build import (
    Device,
    build_device,
    build_evaluation,
    build_plan,
    build_pretraining,
    build_training,
    describe_adaptation,
    describe_pretraining,
    dry_run,
    evaluated_files,
    load_for_evaluation,
)
from unihap.config import CfgNode, get_cfg
from unihap.data.images import BadImageError
from unihap.engine.allocator import keep_heap
from unihap.engine.checkpoint import Checkpoints, write_atomically
from unihap.engine.evaluate import EvaluationJob, evaluate
from unihap.engine.groups import Groups, describe
from unihap.engine.loop import Run, train
from unihap.lookup import lookup
from unihap.models.unihap import UniHAP

logger = logging.getLogger("unihap")

# How gloo and NCCL say that the other end of a connection is gone.
OTHER_FAILED = "another process of this run was killed or failed; see its own messages, start again with --resume"
LOST_PEER = re.compile(r"[Cc]onnection (closed|reset|refused)|Timed out|Broken pipe|NCCL", re.S)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="train_net.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", "--config-file", required=True, metavar="FILE", help="YAML file, see configs/")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and stop")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in OUTPUT_DIR")
    parser.add_argument("--dry-run", action="store_true", help="print the config and who trains what, and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys to change, after the file")
    return parser.parse_args(arguments)


def load_config(arguments: argparse.Namespace) -> CfgNode:
    """The merged, frozen config."""
    cfg = get_cfg()
    cfg.merge_from_file(arguments.config)
    cfg.merge_from_list(arguments.overrides)
    cfg.freeze()
    return cfg


def stop(signal_number: int, frame: types.FrameType | None) -> None:
    """Ends this process with a reason when torchrun ends it, which it does when another one failed."""
    os.write(2, f"train_net.py: process {os.environ.get('RANK')} stops because {OTHER_FAILED}\n".encode())
    os._exit(1)  # no clean-up: a message to the failed process would wait for it


def join_processes() -> int:
    """Meets the other processes that torchrun started, if any; returns this process's number on its machine."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        # Longer than the slowest pause between two messages (an evaluation), shorter than anybody's patience.
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=30))
        signal.signal(signal.SIGTERM, stop)
        if dist.get_rank() != 0:
            logging.getLogger().setLevel(logging.WARNING)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    return local_rank


def check_output(cfg: CfgNode, resume: bool) -> None:
    """Refuses to write into a folder that holds something.

    Raises:
        ValueError: OUTPUT_DIR is not empty and the run does not resume.
    """
    output = Path(cfg.OUTPUT_DIR)
    if output.is_dir() and any(output.iterdir()) and not resume:
        raise ValueError(f"OUTPUT_DIR {output} is not empty; give --resume to go on, or another OUTPUT_DIR")


def open_output(cfg: CfgNode) -> None:
    """Makes OUTPUT_DIR and writes the merged config into it."""
    output = Path(cfg.OUTPUT_DIR)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "config.yaml", cfg.dump())


def newest_checkpoint(cfg: CfgNode) -> str:
    """The newest checkpoint folder in OUTPUT_DIR, or ""."""
    complete = Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").complete()
    return str(complete[-1]) if complete else ""


@dataclass(frozen=True)
class Work:
    """What a command does: train, evaluate, or both in turn.

    Attributes:
        run: training, if any.
        model: evaluated after it, if any.
        jobs: evaluations of ``model``.
        weights: files that ``model`` was loaded from, where it is not trained first.
    """

    run: Run | None = None
    model: UniHAP | None = None
    jobs: Sequence[EvaluationJob] = ()
    weights: Sequence[str] = ()


def prepare_tasks(arguments: argparse.Namespace, cfg: CfgNode, device: Device) -> Work:
    """Joint training or adaptation of the tasks and their evaluation."""
    process, num_processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    jobs = []
    if arguments.eval_only or cfg.TRAIN.EVAL_AT_END:
        jobs = build_evaluation(cfg, process, num_processes)
    if arguments.eval_only:
        newest = newest_checkpoint(cfg) if arguments.resume else ""
        model = load_for_evaluation(cfg, newest).to(device.device, device.dtype)
        return Work(None, model, jobs, evaluated_files(cfg, newest, prompts=True))
    plan = build_plan(cfg)
    groups = Groups(plan)
    logger.info("who trains what:\n%s", describe(plan, num_processes))
    model, run = build_training(cfg, groups, device, resume=arguments.resume)
    return Work(run, model, jobs)


def prepare_pretraining(arguments: argparse.Namespace, cfg: CfgNode, device: Device) -> Work:
    """Pre-training of the encoder."""
    if arguments.eval_only:
        raise ValueError("--eval-only has nothing to evaluate in TRAIN.MODE pretrain; leave it away")
    return Work(build_pretraining(cfg, device, resume=arguments.resume))


# How each TRAIN.MODE prepares its work, and how it describes itself without doing any.
MODES: Mapping[str, tuple[Callable[[argparse.Namespace, CfgNode, Device], Work], Callable[[CfgNode, int], str]]] = {
    "joint": (prepare_tasks, dry_run),
    "pretrain": (prepare_pretraining, describe_pretraining),
    "finetune": (prepare_tasks, describe_adaptation),
    "prompt": (prepare_tasks, describe_adaptation),
}


def prepare(arguments: argparse.Namespace, cfg: CfgNode, device: Device) -> Work:
    """Builds everything before anything starts, so that a mistake in a config shows at once."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        check_output(cfg, arguments.resume)
    return lookup(MODES, cfg.TRAIN.MODE, "TRAIN.MODE")[0](arguments, cfg, device)


def perform(work: Work, cfg: CfgNode, device: Device) -> None:
    """Trains, then evaluates."""
    if work.run is not None:
        train(work.run)
    if work.model is None:
        return
    weights = work.weights
    if work.run is not None:
        work.run.groups.share_private(work.model)
        weights = evaluated_files(cfg, newest_checkpoint(cfg), prompts=False)
    evaluate(
        work.model,
        work.jobs,
        Path(cfg.OUTPUT_DIR),
        autocast=device.autocast,
        num_pictures=cfg.TEST.VISUALIZE,
        weights=weights,
        num_threads=cfg.TEST.NUM_THREADS,
    )


def other_failed(error: RuntimeError) -> int:
    """Exit status 1 where another process is gone; any other error is raised again."""
    if not dist.is_initialized() or not LOST_PEER.search(str(error)):
        raise error
    print(
        f"train_net.py: process {dist.get_rank()} stops because {OTHER_FAILED} ({str(error).splitlines()[0]})",
        file=sys.stderr,
    )
    return 1


def main(words: list[str] | None = None) -> int:
    """Exit status 0 done, 1 the run failed, 2 bad arguments or config."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S")
    arguments = parse(words)
    keep_heap()
    try:
        cfg = load_config(arguments)
        if arguments.dry_run:
            print(lookup(MODES, cfg.TRAIN.MODE, "TRAIN.MODE")[1](cfg, int(os.environ.get("WORLD_SIZE", "1"))))
            return 0
        device = build_device(cfg, join_processes())
        work = prepare(arguments, cfg, device)
        if not dist.is_initialized() or dist.get_rank() == 0:
            open_output(cfg)  # last, so that a refused run leaves nothing that would refuse the next one
    except (ValueError, FileNotFoundError) as error:
        print(f"train_net.py: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        return other_failed(error)
    try:
        perform(work, cfg, device)
    except (FloatingPointError, BadImageError) as error:
        # From a loader's worker process comes its whole traceback, whose last line is the reason.
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{BadImageError.__module__}.BadImageError: ")
        print(f"train_net.py: the run failed: {reason}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        return other_failed(error)
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
