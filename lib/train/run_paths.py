"""Where a training keeps its files."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..models.checkpoint import run_folder, slim_name


@dataclass(frozen=True)
class RunPaths:
    """Where a run's files are, in the official layout under `save_dir`."""

    save_dir: Path
    script: str
    config: str
    title: str
    """Of the model, see `Config.title`."""

    @classmethod
    def of(cls, save_dir: str | Path, cfg: Config) -> "RunPaths":
        """Those of a configuration's run."""
        return cls(Path(save_dir).expanduser().absolute(), cfg.script, cfg.name, cfg.title)

    @property
    def checkpoints(self) -> Path:
        """Folder of the slim checkpoints, the training states and the resolved configuration."""
        return run_folder(self.save_dir, self.script, self.config)

    @property
    def log_file(self) -> Path:
        """The run's log."""
        return self.save_dir / "logs" / f"{self.script}-{self.config}.log"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.save_dir / "tensorboard" / "train" / self.script / self.config

    def slim(self, epoch: int) -> Path:
        """The slim checkpoint of an epoch."""
        return self.checkpoints / slim_name(self.title, epoch)

    def bad_batch(self, epoch: int, step: int) -> Path:
        """The pairs of a step (counted from 0) whose loss or gradient was not a number."""
        return self.checkpoints / f"nan_batch_ep{epoch:04d}_step{step + 1:06d}.pt"

    @property
    def best(self) -> Path:
        """The slim checkpoint that validated best so far."""
        return self.checkpoints / slim_name(self.title, "best")

    @property
    def wandb_id(self) -> Path:
        """Keeps the run's identity at Weights & Biases."""
        return self.checkpoints / "wandb_id.txt"

    def slim_checkpoints(self, after: int = -1) -> list[Path]:
        """The slim checkpoints of epochs there are, of those later than `after`."""
        named = {path: re.search(r"_ep(\d+)\.pth\.tar$", path.name) for path in self.checkpoints.glob("*.pth.tar")}
        return sorted(path for path, match in named.items() if match and int(match[1]) > after)
