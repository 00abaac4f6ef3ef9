"""The run-time tracker: a model, a template from the first frame, and OSTrack's rules from frame to frame."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lib.models.layers.elimination import template_mask
from lib.models.ostrack.heads import decode
from lib.test.tracker.window import hann_window
from lib.utils.boxes import clip_box
from lib.utils.crop import box_from_crop, box_to_crop, normalize, square_crop
from lib.utils.device import pick_device, synchronize
from lib.utils.errors import UserError

BOX_MARGIN = 10
"""A box never leaves the frame by more than all but this many pixels, and no side gets shorter (OSTrack's rule)."""


class TrackResult(NamedTuple):
    """What the tracker says about one frame."""

    box_xywh: list[float]
    """[x, y, w, h] in pixels of the frame, sub-pixel, clipped to the frame."""
    score: float
    """Highest value of `score_map`, 0..1; NaN for a head without a score map."""
    score_map: np.ndarray | None
    """(S, S) float32 score map times the window: the map that the box was read from."""


class Tracker:
    """Single-object tracker under OSTrack's run-time rules.

    The template is cropped once, around the given box. Each frame is searched in a crop around the last box; the score
    map is weighted by a Hann window, the box is read at its maximum, mapped back to the frame and clipped.

    Args:
        model: called as `model(template, search)`, or `model(template, search, template_mask)` with `ce_range`;
            template (1, 3, h, w) and search (1, 3, H, W) float32 normalised on `device`; returns an object with
            `score_map` (1, 1, S, S) or None, `size_map`, `offset_map` (1, 2, S, S) and `boxes` (1, 1, 4) cxcywh
            normalised. Maps are tensors. A `torch.nn.Module` is moved to `device` and put in eval mode. A model with
            `prepare` gets the template through it once, and what it returns in every call; one with a true
            `takes_pixels` gets the crops as (1, h, w, 3) uint8.
        search_size, template_size: sides of the crops in pixels.
        search_factor, template_factor: crop side / sqrt(box area).
        stride: pixels per token; search_size / stride is the side S of the maps.
        mean, std: per channel, of images scaled to 0..1.
        window: weight the score map by the Hann window.
        ce_range: which template tokens steer candidate elimination (ALL, CTR_POINT, CTR_REC, GT_BOX); None for a
            model without it.
        device: cpu, cuda, cuda:N or auto.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        search_size: int,
        search_factor: float,
        template_size: int,
        template_factor: float,
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
        window: bool = True,
        ce_range: str | None = None,
        device: str | torch.device = "cpu",
    ):
        self.device = pick_device(str(device))
        self.model = model.to(self.device).eval() if isinstance(model, torch.nn.Module) else model
        self.search_size, self.search_factor = search_size, search_factor
        self.template_size, self.template_factor = template_size, template_factor
        self.stride = stride
        self.mean, self.std = tuple(mean), tuple(std)
        self.ce_range = ce_range
        self.window = hann_window(search_size // stride, self.device) if window else None
        self.box_xywh: list[float] | None = None
        self._takes_pixels = getattr(model, "takes_pixels", False)
        self._template: torch.Tensor | None = None
        self._template_mask: torch.Tensor | None = None

    @classmethod
    def from_config(
        cls,
        script: str,
        config: str,
        *,
        checkpoint: str | Path | None = None,
        epoch: int | None = None,
        save_dir: str | Path | None = None,
        device: str | torch.device = "auto",
        overrides: Sequence[str] = (),
        backend: str = "torch",
        fast: Sequence[str] = (),
    ) -> "Tracker":
        """Build the tracker of `experiments/<script>/<config>.yaml` with its trained weights.

        Args:
            script: ostrack or compresstracker.
            config: name of the yaml file, or its path.
            checkpoint, epoch, save_dir, overrides: see `find_checkpoint`.
            backend: torch, the model as it was trained, or fast, `lib.deploy.fast`. For others see `from_export`.
            fast: "NAME=VALUE" options of backend fast over the best ones for the device (`FastOptions`).

        Raises:
            UserError: unknown config, missing or unfitting checkpoint, no such device, an unknown or impossible option.
        """
        from lib.models.build import build_for_test
        from lib.models.checkpoint import load_weights

        device = pick_device(str(device))
        cfg, path = find_checkpoint(script, config, checkpoint=checkpoint, epoch=epoch, save_dir=save_dir,
                                    overrides=overrides)
        model = build_for_test(cfg)
        load_weights(model, path, role="test")
        if backend == "fast":
            from lib.deploy.fast import FastOptions, build_fast

            model = build_fast(model, FastOptions.parse(fast, device), device=device, mean=cfg.DATA.MEAN,
                               std=cfg.DATA.STD)
        return cls.from_model(model, cfg, device=device)

    @classmethod
    def from_export(cls, folder: str | Path, *, backend: str | None = None, device: str | torch.device = "auto"
                    ) -> "Tracker":
        """The tracker of a folder that tracking/export_model.py wrote; sizes and rules are those of its manifest.

        Args:
            backend: onnxruntime, openvino, torchscript, torchexport or tensorrt; None takes the format's own.

        Raises:
            UserError: the folder is unusable, or the backend cannot run it here.
        """
        from lib.deploy.backends import ExportedModel

        device = pick_device(str(device))
        model = ExportedModel(folder, backend, device)
        facts = model.manifest
        return cls(
            model,
            search_size=facts.search_size,
            search_factor=facts.search_factor,
            template_size=facts.template_size,
            template_factor=facts.template_factor,
            stride=facts.stride,
            mean=facts.mean,
            std=facts.std,
            window=facts.window,
            ce_range=facts.ce_range,
            device=device,
        )

    @classmethod
    def from_model(cls, model: Callable[..., Any], cfg: Any, *, device: str | torch.device = "cpu") -> "Tracker":
        """The tracker around a model that is already there, with the sizes and rules of `cfg`."""
        backbone = cfg.MODEL.BACKBONE
        return cls(
            model,
            search_size=cfg.TEST.SEARCH_SIZE,
            search_factor=cfg.TEST.SEARCH_FACTOR,
            template_size=cfg.TEST.TEMPLATE_SIZE,
            template_factor=cfg.TEST.TEMPLATE_FACTOR,
            stride=backbone.STRIDE,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            window=cfg.TEST.WINDOW,
            ce_range=backbone.CE_TEMPLATE_RANGE if backbone.CE_LOC else None,
            device=device,
        )

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, box_xywh: Sequence[float]) -> None:
        """Remember the target.

        Args:
            image: (H, W, 3) RGB uint8.
            box_xywh: [x, y, w, h] of the target in pixels.

        Raises:
            UserError: `image` or the box is unusable.
        """
        height, width = check_image(image)
        box = check_box(box_xywh, height, width)
        crop = square_crop(image, box, self.template_factor, self.template_size)
        template = self._input(crop.image)
        self._template = self.model.prepare(template) if hasattr(self.model, "prepare") else template
        self._template_mask = self._mask(box, crop.scale)
        self.box_xywh = box
        synchronize(self.device)

    @torch.inference_mode()
    def track(self, image: np.ndarray) -> TrackResult:
        """Find the target in the next frame.

        Args:
            image: (H, W, 3) RGB uint8; the size may differ from the earlier frames'.

        Raises:
            UserError: `image` is unusable, or the model gave no finite box.
            RuntimeError: `initialize` was not called.
        """
        if self.box_xywh is None:
            raise RuntimeError("Tracker.track called before Tracker.initialize")
        height, width = check_image(image)
        crop = square_crop(image, self.box_xywh, self.search_factor, self.search_size)
        search = self._input(crop.image)
        mask = () if self._template_mask is None else (self._template_mask,)
        prediction = self.model(self._template, search, *mask)
        box, score, score_map = self._read(prediction)
        if not all(map(math.isfinite, box)):
            raise UserError(f"the model predicted the box {box}; its weights hold NaN or infinite values, or they do "
                            "not belong to this configuration")
        mapped = box_from_crop(box, self.box_xywh, crop.scale, self.search_size)
        self.box_xywh = clip_box(mapped, height, width, BOX_MARGIN)
        return TrackResult(list(self.box_xywh), score, score_map)

    def _input(self, crop: np.ndarray) -> torch.Tensor:
        """A crop as the model takes it."""
        if self._takes_pixels:
            return torch.from_numpy(crop)[None].to(self.device)
        return normalize(crop, self.mean, self.std, device=self.device)

    def _read(self, prediction: Any) -> tuple[list[float], float, np.ndarray | None]:
        """Prediction of one image -> [cx, cy, w, h] normalised, score, (S, S) map."""
        if prediction.score_map is None:
            return prediction.boxes.reshape(-1, 4)[0].float().tolist(), math.nan, None
        response = prediction.score_map.float()
        if self.window is not None:
            if response.shape[-2:] != self.window.shape:
                raise UserError(f"the model's score map is {tuple(response.shape[-2:])}, expected "
                                f"{tuple(self.window.shape)} = search size {self.search_size} / stride {self.stride}")
            response = response * self.window
        box = decode(response, prediction.size_map.float(), prediction.offset_map.float())[0]
        read = torch.cat([box, response.flatten()]).cpu()          # one copy from the device, so one wait for it
        score_map = read[4:].view(response.shape[-2:]).numpy()
        return read[:4].tolist(), float(score_map.max()), score_map

    def _mask(self, box_xywh: list[float], scale: float) -> torch.Tensor | None:
        """Which template tokens steer candidate elimination, (1, Lz) bool; None where all do or none are eliminated."""
        if self.ce_range is None:
            return None
        box = box_to_crop(box_xywh, box_xywh, scale, self.template_size)
        boxes = torch.as_tensor(np.asarray(box, dtype=np.float32), device=self.device).reshape(1, 4)
        return template_mask(self.ce_range, self.template_size // self.stride, boxes, self.stride)


def find_checkpoint(
    script: str,
    config: str,
    *,
    checkpoint: str | Path | None = None,
    epoch: int | None = None,
    save_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Any, Path]:
    """The configuration of a run and the file with its weights.

    Args:
        script, config: `experiments/<script>/<config>.yaml`; config may also be a path.
        checkpoint: the weights; None takes `checkpoint_path(cfg, epoch, save_dir)`.
        epoch: None takes TEST.EPOCH of the yaml.
        save_dir: None takes the one of the environment settings.
        overrides: `KEY=value` items over the yaml.

    Raises:
        UserError: unknown config, or no such file.
    """
    from lib.config import load_config

    cfg = load_config(script, config, overrides)
    path = Path(checkpoint).expanduser() if checkpoint is not None else checkpoint_path(cfg, epoch, save_dir)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; {_nearby(path)}")
    return cfg, path


def checkpoint_path(cfg: Any, epoch: int | None = None, save_dir: str | Path | None = None) -> Path:
    """Where training leaves the weights of a configuration, as in the official repositories:
    `<save_dir>/checkpoints/train/<script>/<config>/{OSTrack|CompressTracker}_ep<epoch>.pth.tar`."""
    if save_dir is None:
        from lib.test.evaluation.environment import env_settings

        save_dir = env_settings().save_dir
    name = {"ostrack": "OSTrack"}.get(cfg.script, "CompressTracker")
    folder = Path(save_dir).expanduser() / "checkpoints" / "train" / cfg.script / cfg.name
    return folder / f"{name}_ep{cfg.TEST.EPOCH if epoch is None else epoch:04d}.pth.tar"


def check_image(image: np.ndarray) -> tuple[int, int]:
    """(height, width) of an image that can be tracked in.

    Raises:
        UserError: it is not an (H, W, 3) uint8 array with at least one pixel.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"a frame must be a uint8 RGB array of shape (height, width, 3), found {found}")
    if image.size == 0:
        raise UserError(f"a frame has no pixels: shape {image.shape}")
    return image.shape[0], image.shape[1]


def check_box(box_xywh: Sequence[float], height: int, width: int) -> list[float]:
    """The box as four floats.

    Raises:
        UserError: not four finite numbers, no area, or no pixel of the frame inside.
    """
    expected = "expected x, y, w, h in pixels with w > 0 and h > 0"
    try:
        box = [float(value) for value in box_xywh]
    except (TypeError, ValueError) as error:
        raise UserError(f"the target box {box_xywh!r} is not four numbers; {expected}") from error
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
        raise UserError(f"the target box {box} cannot be tracked; {expected}")
    x, y, w, h = box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(f"the target box {box} lies outside the frame of {width} x {height} pixels")
    return box


def _nearby(path: Path) -> str:
    """What to do about a missing checkpoint, with the ones that lie beside it."""
    found = sorted(file.name for file in path.parent.glob("*.pth.tar")) if path.parent.is_dir() else []
    if found:
        return f"that folder holds {', '.join(found[-5:])}: choose one with --epoch or --checkpoint"
    return "train first (tracking/train.py), copy the downloaded weights there, or give --checkpoint"
