"""Evaluation at the end of a training: track, score, and pack for the evaluation servers."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..test.analysis.report import text_table
from ..test.analysis.results import has_annotations
from ..test.analysis.run import FORMATS, analyse, report_folder, write_report
from ..test.evaluation import manifest
from ..test.evaluation.datasets import Sequence as TestSequence
from ..test.evaluation.datasets import get_dataset
from ..test.evaluation.environment import env_settings
from ..test.evaluation.results import dataset_folder, holds_sub_pixels, tracker_folder
from ..test.evaluation.running import run_dataset
from ..test.tracker.tracker import Tracker
from ..test.utils.packing import SERVERS, Server, pack
from ..utils.errors import UserError

logger = logging.getLogger(__name__)


class Evaluation:
    """The test sets that a trained model is tried on.

    Args:
        evaluate: names for `get_dataset`; each is tracked, and scored where its annotations are public.
        pack: test sets with an evaluation server (got10k_test, trackingnet); each is tracked, and its results are
            packed for that server.
        env: environment settings with the folders of the test sets; None reads them.

    Raises:
        UserError: a test set is unknown or missing, or has no evaluation server (before anything is done).
    """

    def __init__(self, evaluate: Sequence[str], pack: Sequence[str], env: Any = None) -> None:
        self._packed = {name.lower(): _server(name) for name in pack}
        self.names = list(dict.fromkeys([*evaluate, *self._packed]))
        self._env = env or env_settings()
        for name in self.names:
            get_dataset(name, self._env)

    def run(self, cfg: Config, checkpoint: Path, save_dir: Path, *, device: str = "auto", threads: int = 0,
            num_gpus: int = 0) -> int:
        """Do what is missing, with the results and reports where `tracking/test.py` and
        `tracking/analysis_results.py` put them below `save_dir`. Results that an earlier training of this name left
        there move to a folder `previous_N`.

        Args:
            cfg, checkpoint: the configuration of the run and its slim checkpoint.
            device, threads, num_gpus: see `run_dataset`.

        Returns:
            exit status: 1 if a sequence failed or lacks results, else 0.

        Raises:
            UserError: the results cannot be packed or written.
        """
        folder = tracker_folder(save_dir / "test" / "tracking_results", cfg.script, cfg.name)
        status, made_with = 0, manifest.describe(cfg, checkpoint)
        for name in self.names:
            logger.info("evaluating %s on %s", checkpoint.name, name)
            sequences = get_dataset(name, self._env)
            factory = functools.partial(Tracker.from_checkpoint, checkpoint, cfg, benchmark=name)
            stale = manifest.is_stale(folder, made_with)
            there = folder / dataset_folder(sequences[0].dataset)
            summary = run_dataset(sequences, factory, folder, threads=threads, num_gpus=num_gpus, device=device,
                                  sub_pixel=not stale and bool(holds_sub_pixels(there)), force=stale,
                                  made_with=made_with)
            for failure in summary.failures:
                logger.error("%s failed: %s%s", failure.sequence, failure.message,
                             f"\n{failure.trace.rstrip()}" if failure.trace else "")
            if summary.failures:
                logger.error("%s: %d of %d sequences failed; the same command again tracks only what is missing", name,
                             len(summary.failures), len(sequences))
                status = 1
            elif name.lower() in self._packed:
                self._pack(self._packed[name.lower()], sequences, folder)
            elif has_annotations(sequences):
                status = status if self._report(name, cfg, save_dir) else 1
            else:
                logger.info("%s is scored by its server: name it after --pack to pack the results", name)
        return status

    def _report(self, name: str, cfg: Config, save_dir: Path) -> bool:
        """Score the results, show the table, and write the report; whether all sequences are in it."""
        folder = save_dir / "test"
        report, = analyse(self._env, datasets=[name], trackers=[f"{cfg.script}:{cfg.name}"],
                          results_path=folder / "tracking_results")
        logger.info("%s", text_table(report))
        place = report_folder(folder / "result_plots", report)
        write_report(report, place, FORMATS)
        logger.info("report: %s", place)
        return report.complete

    @staticmethod
    def _pack(server: Server, sequences: Sequence[TestSequence], folder: Path) -> None:
        """Write the archive for an evaluation server, beside the results."""
        archive = folder / f"{server.folder}_submit.zip"
        number = pack(server, folder, {sequence.name: sequence.length for sequence in sequences}, archive)
        logger.info("%d sequences in %s", number, archive)


def _server(name: str) -> Server:
    """The evaluation server of a test set."""
    for server in SERVERS.values():
        if server.dataset == name.lower():
            return server
    raise UserError(f"--pack {name}: no evaluation server takes results of that set; choose from "
                    f"{', '.join(server.dataset for server in SERVERS.values())}")
