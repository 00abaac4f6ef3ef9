"""Train a tracker, or compress one.

python tracking/train.py --script compresstracker --config compresstracker_vitb_256_4 --save_dir ./output \\
    --mode multiple --nproc_per_node 8

Run the same command again to continue a run that was stopped. Ctrl-C stops after the current step with the state saved.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.config import SCRIPTS, Config, load_config  # noqa: E402
from lib.train.failures import LAUNCHER, UNDER_TORCHRUN, end_with_launcher, record_failure, restarts_left  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.files import check_output  # noqa: E402
from lib.utils.log import load_torch, run_script, setup_logging  # noqa: E402
from lib.utils.signals import TrainingInterrupted  # noqa: E402

if TYPE_CHECKING:
    from lib.train.run_paths import RunPaths

logger = logging.getLogger(__name__)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", required=True, choices=SCRIPTS,
                        help="train a tracker on the ground truth, or compress one")
    parser.add_argument("--config", required=True, help="name below experiments/<script>/, or the path of a yaml file")
    parser.add_argument("--save_dir", default="./output",
                        help="checkpoints, logs and TensorBoard files go below it (default: %(default)s)")
    parser.add_argument("--mode", choices=("single", "multiple", "multi_node"), default="single",
                        help="one process, several on this machine, or several machines (default: %(default)s). Under "
                             "torchrun use single: each process that it starts is one of the run")
    parser.add_argument("--nproc_per_node", type=int, metavar="N",
                        help="processes on this machine (default: one per GPU, or 1)")
    parser.add_argument("--resume", default="auto", metavar="{auto,none,PATH}",
                        help="continue the newest state of this run, start anew, or continue a given state_ep*.pth "
                             "(default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the configuration, for example TRAIN.TOTAL_BATCH=64; repeatable")
    parser.add_argument("--seed", type=int, help="short for --set TRAIN.SEED=...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--use_wandb", type=int, choices=(0, 1), default=0, help="report to Weights & Biases too")
    parser.add_argument("--use_lmdb", type=int, choices=(0, 1), default=0,
                        help="short for --set DATA.STORAGE=lmdb: read the data sets' LMDB forms")
    parser.add_argument("--max_restarts", type=int, default=0, metavar="N",
                        help="start the processes again after a failure, from the newest state, at most so often "
                             "(default: %(default)s)")
    after = parser.add_argument_group("after the last epoch (a run that is finished does only this)")
    after.add_argument("--evaluate", nargs="+", default=[], metavar="NAME",
                       help="track and score these test sets, as tracking/test.py and tracking/analysis_results.py do")
    after.add_argument("--pack", nargs="+", default=[], metavar="NAME",
                       help="track got10k_test, trackingnet, and pack the results for their servers")
    nodes = parser.add_argument_group("several machines (--mode multi_node, the command runs on each)")
    nodes.add_argument("--world-size", type=int, default=1, metavar="N", help="number of machines (default: 1)")
    nodes.add_argument("--rank", type=int, default=0, help="this machine's number, from 0 (default: %(default)s)")
    nodes.add_argument("--ip", default="127.0.0.1", help="address of machine 0 (default: %(default)s)")
    nodes.add_argument("--port", type=int, default=20000, help="free port of machine 0 (default: %(default)s)")
    parser.add_argument("--local-rank", "--local_rank", help=argparse.SUPPRESS)  # as LOCAL_RANK of the environment
    for name in ("script_prv", "config_prv", "script_teacher", "config_teacher", "distill"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)  # taken by OSTrack's script, without effect here
    args = parser.parse_args(arguments)
    if args.nproc_per_node is not None and args.nproc_per_node < 1:
        parser.error("--nproc_per_node must be at least 1")
    _check_machines(parser, args)
    if args.seed is not None:
        args.overrides.append(f"TRAIN.SEED={args.seed}")
    if args.use_lmdb:
        args.overrides.append("DATA.STORAGE=lmdb")
    return args


def _check_machines(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where the options of the machines and restarts do not go together."""
    if args.max_restarts < 0 or (args.max_restarts and args.mode != "multiple"):
        parser.error("--max_restarts must be 0 or more and needs --mode multiple; on several machines use torchrun and "
                     "its option of this name (docs/training.md)")
    if args.mode == "single" and (args.nproc_per_node or 1) > 1:
        parser.error(f"--nproc_per_node {args.nproc_per_node} needs --mode multiple")
    if args.mode != "multi_node":
        foreign = next((name for name in ("world_size", "rank", "ip", "port")
                        if getattr(args, name) != parser.get_default(name)), None)
        if foreign:
            parser.error(f"--{foreign.replace('_', '-')} needs --mode multi_node")
    if not 0 <= args.rank < args.world_size:
        parser.error("--rank must be in 0..world-size - 1")
    if args.mode != "single" and UNDER_TORCHRUN in os.environ:
        parser.error(f"--mode {args.mode} starts processes itself, and this one is started by torchrun already; use "
                     "--mode single under torchrun, or start this command without it")


def worker_command(args: argparse.Namespace) -> list[str]:
    """Arguments of Python for one process of a run of several."""
    command = [str(Path(__file__).resolve()), "--mode", "single"]
    for name in ("script", "config", "save_dir", "resume", "device", "use_wandb"):
        command += [f"--{name}", str(getattr(args, name))]
    for override in args.overrides:
        command += ["--set", override]
    return command


def train(args: argparse.Namespace) -> int:
    """Run in this process, or start the processes. Returns the exit status."""
    from lib.pipeline.evaluation import Evaluation
    from lib.train.admin.logs import check_wandb
    from lib.train.run import ALREADY_FINISHED, find_finished
    from lib.train.run_paths import RunPaths

    if args.distill not in (None, "0"):
        logger.warning("--distill has no effect: --script compresstracker compresses a teacher, which "
                       "MODEL.PRETRAIN_FILE names")
    if args.use_wandb:
        check_wandb()
    evaluation = Evaluation(args.evaluate, args.pack) if _may_evaluate(args) else None
    cfg = load_config(args.script, args.config, args.overrides)
    paths = RunPaths.of(args.save_dir, cfg)
    finished = find_finished(cfg, paths, args.resume)
    if finished is None:
        status = _train(args, cfg, paths)
    else:
        logger.info("%s", ALREADY_FINISHED.format(finished))
        status = 0
    if evaluation is None or status:
        return status
    workers = 0 if args.mode == "single" else _processes(args, cfg)
    return evaluation.run(cfg, paths.slim(cfg.TRAIN.EPOCH), paths.save_dir, device=_device(args, cfg), threads=workers,
                          num_gpus=max(1, workers))


def _train(args: argparse.Namespace, cfg: Config, paths: "RunPaths") -> int:
    """The training itself, in this process or in those that it starts. Returns the exit status."""
    from lib.pipeline.tracking import TrackingValidation
    from lib.train.distributed import read_place
    from lib.train.launch import Machines, launch
    from lib.train.run import check_inputs, run_training

    if read_place()[0] == 0:    # one process of a run: another would remove what it has just made
        check_output(paths.checkpoints, "--save_dir")
    if args.resume != "auto" and (args.max_restarts or restarts_left()):
        raise UserError(f"--resume {args.resume} cannot be used where the processes may be started again: they would "
                        "begin there each time. Start without restarts first, or move the earlier files in "
                        f"{paths.checkpoints} away, and use --resume auto")
    sequences = TrackingValidation(cfg) if cfg.TRAIN.TRACK_EPOCH_INTERVAL else None
    if args.mode == "single":
        run_training(cfg, args.save_dir, resume=args.resume, device=args.device, use_wandb=bool(args.use_wandb),
                     sequences=sequences)
        return 0
    processes = _processes(args, cfg)
    machines = None
    if args.mode == "multi_node":
        machines = Machines(args.world_size, f"{args.ip}:{args.port}", args.rank)
    check_inputs(cfg, processes * (machines.number if machines else 1))
    return launch(worker_command(args), processes, machines, args.max_restarts)


def _may_evaluate(args: argparse.Namespace) -> bool:
    """Whether something is to be done after the training, and by this process."""
    return bool(args.evaluate or args.pack) and args.rank == 0 and int(os.environ.get("RANK", "0")) == 0


def _device(args: argparse.Namespace, cfg: Config) -> str:
    return cfg.TRAIN.DEVICE if args.device == "auto" else args.device


def _processes(args: argparse.Namespace, cfg: Config) -> int:
    """Processes on this machine."""
    from lib.utils.device import pick_device

    return args.nproc_per_node or _gpus(pick_device(_device(args, cfg)).type)


def _gpus(device_type: str) -> int:
    """GPUs of this machine where they are used, else 1."""
    import torch

    return max(1, torch.cuda.device_count()) if device_type == "cuda" else 1


def main() -> int:
    args = parse_arguments()
    if int(os.environ.get("RANK", "0")) > 0:
        setup_logging(quiet=True)
    end_with_launcher()
    load_torch()
    try:
        status = train(args)
    except TrainingInterrupted as stopped:
        logger.info("%s", stopped)
        status = stopped.exit_status
    except Exception as error:
        if record_failure(error):
            return 2 if isinstance(error, UserError) else 1
        raise
    if status > 128 and LAUNCHER not in os.environ:  # else the process that started this one says it, if it is true
        logger.info("Run the same command again to go on.")
    return status


if __name__ == "__main__":
    run_script(main)
