"""The run-time tracker: a model, a template from the first frame, OSTrack's loop and a family's rules from frame to
frame."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...families import get_family
from ...families.rules import Found, Rules, State
from ...models.heads import decode
from ...utils.boxes import clip_box
from ...utils.crop import Normaliser, Square, box_from_crop, box_to_crop, cut_square, square_around
from ...utils.device import pick_device, synchronize
from ...utils.device_crop import cut_on_device
from ...utils.errors import UserError
from ...utils.parts import measured
from ...utils.window import hann_window
from ..evaluation.benchmarks import benchmark_key
from .base import FrameTracker, TrackResult, check_box, check_image
from .weights import find_checkpoint

BOX_MARGIN = 10
"""A box never leaves the frame by more than all but this many pixels, and no side gets shorter (OSTrack's rule)."""


@dataclass
class Target:
    """What a tracker remembers of one target.

    Attributes:
        box_xywh: where it was last, in pixels.
        state: what the family's rules keep of it, on the tracker's device.
        templates: what the model takes as its templates, the state's crops or what it prepared of them: (1, ...).
        frames: how many it was looked for in by `step`.
    """

    box_xywh: list[float]
    state: State
    templates: torch.Tensor
    frames: int = 0


class Tracker(FrameTracker):
    """Tracker under OSTrack's run-time rules.

    The template is cropped around the given box. Each frame is searched in a crop around the last box; the score map is
    weighted by a Hann window, the box is read at its maximum, mapped back to the frame and clipped. What is kept of a
    target besides, and whether its templates change, is the matter of the family's `rules`; a search that does not move
    the target (`find`) changes nothing.

    `initialize` and `track` follow one target. `start` and `step` follow any number, in one frame or in several videos,
    with one batched pass of the model for all; the results are those of one by one within float rounding.

    Args:
        model: called as `model(templates, search)`, or `model(templates, search, further)` where the rules give further
            inputs (see `lib.models.base.Inputs`): templates (B, 3, h, w), or (B, T, 3, h, w) of several, and search
            (B, 3, H, W) float32 normalised on `device`, B the number of targets; returns an object with `score_map`
            (B, 1, S, S) or None, `size_map`, `offset_map` (B, 2, S, S), `boxes`
            (B, 1, 4) cxcywh normalised. Maps are tensors. A `torch.nn.Module` is moved to `device` and put in eval
            mode. A model with `prepare` gets each template through it once, and what it returns in every call; one
            with a true `takes_pixels` gets the crops as (B, h, w, 3) uint8; one with a true `takes_window` gets
            `window=`, the (S, S) weights of the scores, and reads `boxes` itself at the highest weighted score, so that
            it may leave `size_map` and `offset_map` None.
        search_size, template_size: sides of the crops in pixels.
        search_factor, template_factor: crop side / sqrt(box area).
        stride: pixels per token; search_size / stride is the side S of the maps.
        mean, std: per channel, of images scaled to 0..1.
        window: weight the score map by the Hann window.
        rules: the family's; None for one template that stays.
        last_pixel: what boxes in template crops are divided by, see `Family`.
        device: cpu, cuda, cuda:N or auto.
        crop_on_device: resize the crops on `device` instead of the CPU; the pixels are the same. None does so on CUDA,
            but not for a model with true `host_inputs`, which reads them in the CPU's memory.

    Attributes:
        parts: None, or where `step` notes how long its parts crop, network and box take.
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
        rules: Rules | None = None,
        last_pixel: bool = False,
        device: str | torch.device = "cpu",
        crop_on_device: bool | None = None,
    ):
        super().__init__()
        self.device = pick_device(str(device))
        self.model = model.to(self.device).eval() if isinstance(model, torch.nn.Module) else model
        self.search_size, self.search_factor = search_size, search_factor
        self.template_size, self.template_factor = template_size, template_factor
        self.stride = stride
        self.mean, self.std = tuple(mean), tuple(std)
        self.rules, self.last_pixel = rules or Rules(), last_pixel
        self.window = hann_window(search_size // stride, self.device) if window else None
        if crop_on_device is None:
            crop_on_device = self.device.type == "cuda" and not getattr(model, "host_inputs", False)
        self.crop_on_device = crop_on_device
        self._takes_pixels = getattr(model, "takes_pixels", False)
        self._takes_window = getattr(model, "takes_window", False)
        self._normalise = Normaliser(self.mean, self.std)

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
        benchmark: str = "",
    ) -> "Tracker":
        """Build the tracker of `experiments/<script>/<config>.yaml` with its trained weights.

        Args:
            script: ostrack or compresstracker.
            config: name of the yaml file, or its path.
            checkpoint, epoch, save_dir, overrides: see `find_checkpoint`.
            backend: torch, the model as it was trained, or fast, `lib.deploy.fast`. For others see `from_export`.
            fast: "NAME=VALUE" options of backend fast over the best ones for the device (`FastOptions`).
            benchmark: that is tracked, where the family's rules differ by it (`Family.rules`).

        Raises:
            UserError: unknown config, missing or unfitting checkpoint, no such device, an unknown or impossible option.
        """
        device = pick_device(str(device))
        cfg, path = find_checkpoint(script, config, checkpoint=checkpoint, epoch=epoch, save_dir=save_dir,
                                    overrides=overrides)
        return cls.from_checkpoint(path, cfg, device=device, backend=backend, fast=fast, benchmark=benchmark)

    @classmethod
    def from_checkpoint(cls, path: str | Path, cfg: Any, *, device: str | torch.device = "auto",
                        backend: str = "torch", fast: Sequence[str] = (), benchmark: str = "") -> "Tracker":
        """The tracker of a file with trained weights.

        Args:
            cfg: the configuration that the weights belong to.
            backend, fast, benchmark: see `from_config`.

        Raises:
            UserError: the file is missing or does not fit, no such device, an unknown or impossible option.
        """
        from ...families.build import build_for_test
        from ...models.checkpoint import load_weights

        device = pick_device(str(device))
        model = build_for_test(cfg)
        load_weights(model, path, role="test")
        if backend == "fast":
            from ...deploy.fast import FastOptions, build_fast

            model = build_fast(model, FastOptions.parse(fast, device), device=device, mean=cfg.DATA.MEAN,
                               std=cfg.DATA.STD)
        return cls.from_model(model, cfg.student, device=device, benchmark=benchmark)

    @classmethod
    def from_export(cls, folder: str | Path, *, backend: str | None = None, device: str | torch.device = "auto",
                    benchmark: str = "") -> "Tracker":
        """The tracker of a folder that tracking/export_model.py wrote; sizes and rules are those of its manifest.

        Args:
            backend: onnxruntime, openvino, torchscript, torchexport or tensorrt; None takes the format's own.
            benchmark: see `from_config`.

        Raises:
            UserError: the folder is unusable, or the backend cannot run it here.
        """
        from ...deploy.backends import ExportedModel

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
            rules=get_family(facts.family).rules(benchmark_key(benchmark), **facts.rules),
            last_pixel=get_family(facts.family).last_pixel,
            device=device,
        )

    @classmethod
    def from_model(cls, model: Callable[..., Any], cfg: Any, *, device: str | torch.device = "cpu",
                   crop_on_device: bool | None = None, benchmark: str = "") -> "Tracker":
        """The tracker around a model that is already there, with the sizes and rules of `cfg` (of a compression's
        student: `Config.student`)."""
        return cls(
            model,
            search_size=cfg.TEST.SEARCH_SIZE,
            search_factor=cfg.TEST.SEARCH_FACTOR,
            template_size=cfg.TEST.TEMPLATE_SIZE,
            template_factor=cfg.TEST.TEMPLATE_FACTOR,
            stride=cfg.MODEL.BACKBONE.STRIDE,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            window=cfg.TEST.WINDOW,
            rules=cfg.family.rules_of(cfg, benchmark_key(benchmark)),
            last_pixel=cfg.family.last_pixel,
            device=device,
            crop_on_device=crop_on_device,
        )

    @torch.inference_mode()
    def start(self, image: np.ndarray, box_xywh: Sequence[float]) -> Target:
        """A new target.

        Args:
            image: (H, W, 3) RGB uint8.
            box_xywh: [x, y, w, h] of the target in pixels.

        Raises:
            UserError: `image` or the box is unusable.
        """
        height, width = check_image(image)
        box = check_box(box_xywh, height, width)
        state = self.rules.start(*self._template(image, box, (width, height)))
        target = Target(box, state, self._prepared(state))
        synchronize(self.device)
        return target

    def _template(self, image: np.ndarray, box: Sequence[float], size: tuple[int, int]
                  ) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 1, ...) template crop around a box, and the box (1, 1, 4) in 0..1 of it."""
        square = square_around(box, self.template_factor, *size)
        inside = box_to_crop(box, box, self.template_size / square.side, self.template_size, self.last_pixel)
        boxes = torch.as_tensor(np.asarray(inside, dtype=np.float32), device=self.device).reshape(1, 1, 4)
        return self._crops([image], [square], self.template_size).unsqueeze(1), boxes

    def _prepared(self, state: State) -> torch.Tensor:
        """What the model takes as a state's templates."""
        templates = state.templates.squeeze(1)      # a single one has no dimension for their number
        return self.model.prepare(templates) if hasattr(self.model, "prepare") else templates

    def step(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> list[TrackResult]:
        """Find each target in its next frame, with one pass of the model, and remember where it is; none of none.

        Args:
            images: the frame of each target, (H, W, 3) RGB uint8; the size may differ from the earlier frames'.
            targets: from `start`.

        Raises:
            UserError: an image is unusable, or the model gave no finite box; no target has moved then.
        """
        found = self._find(images, targets, [target.box_xywh for target in targets])
        for image, target, (result, further) in zip(images, targets, found, strict=True):
            target.box_xywh = list(result.box_xywh)
            target.frames += 1
            size = image.shape[1], image.shape[0]
            state = self.rules.update(target.state, Found(target.frames, target.box_xywh, result.score, further,
                                                          partial(self._template, image, size=size)))
            if state.templates is not target.state.templates:
                target.templates = self._prepared(state)
            target.state = state
        return [result for result, _ in found]

    def find(self, images: Sequence[np.ndarray], targets: Sequence[Target], anchors_xywh: Sequence[Sequence[float]],
             window: bool = True) -> list[TrackResult]:
        """Search each image for its target around an anchor, without moving the target.

        Args:
            images, targets: see `step`; one target may stand there several times, with other anchors.
            anchors_xywh: boxes in pixels; each crop lies around one, with a side in proportion to its own.
            window: False leaves the Hann window out, where one exists.

        Raises:
            UserError: as `step`.
        """
        return [result for result, _ in self._find(images, targets, anchors_xywh, window)]

    @torch.inference_mode()
    def _find(self, images: Sequence[np.ndarray], targets: Sequence[Target], anchors_xywh: Sequence[Sequence[float]],
              window: bool = True) -> list[tuple[TrackResult, dict[str, torch.Tensor]]]:
        """`find`, with what the model gave of each image besides: (1, ...) tensors by name."""
        alike: dict[tuple, list[int]] = {}
        for row, target in enumerate(targets):
            alike.setdefault(tuple(part.shape for part in (target.templates, *target.state.further.values())),
                             []).append(row)
        if len(alike) > 1:      # what is kept of them has not one size: a batch for each
            found = {}
            for rows in alike.values():
                group = ([values[row] for row in rows] for values in (images, targets, anchors_xywh))
                found.update(zip(rows, self._find(*group, window), strict=True))
            return [found[row] for row in range(len(targets))]
        sizes = [check_image(image) for image in images]
        if not sizes and not targets and not anchors_xywh:
            return []
        with measured(self.parts, "crop"):
            squares = [square_around(anchor, self.search_factor, width, height)
                       for anchor, (height, width) in zip(anchors_xywh, sizes, strict=True)]
            search = self._crops(images, squares, self.search_size)
        with measured(self.parts, "network"):
            further = {name: _joined([target.state.further[name] for target in targets])
                       for name in targets[0].state.further}
            weights = self.window if window else None
            extra_inputs = {"window": weights} if self._takes_window else {}
            prediction = self.model(_joined([target.templates for target in targets]), search,
                                    *([further] if further else []), **extra_inputs)
        with measured(self.parts, "box"):
            boxes, score_maps = self._read(prediction, weights)
            given = getattr(prediction, "further", None) or {}
            scores = given["score"].flatten().tolist() if "score" in given else [math.nan] * len(boxes)
            results = []
            for row, (box, score_map, anchor, square, size) in enumerate(zip(boxes, score_maps, anchors_xywh, squares,
                                                                             sizes, strict=True)):
                if not all(map(math.isfinite, box)):
                    raise UserError(f"the model predicted the box {box}; its weights hold NaN or infinite values, or "
                                    "they do not belong to this configuration")
                mapped = box_from_crop(box, anchor, self.search_size / square.side, self.search_size)
                score = scores[row] if score_map is None else float(score_map.max())
                results.append((TrackResult(clip_box(mapped, *size, BOX_MARGIN), score, score_map),
                                {name: values[row:row + 1] for name, values in given.items()}))
        return results

    def _crops(self, images: Sequence[np.ndarray], squares: Sequence[Square], size: int) -> torch.Tensor:
        """The crop of a square of each image, as the model takes them."""
        if self.crop_on_device:
            pixels = cut_on_device(images, squares, size, self.device)
        else:
            crops = [cut_square(image, square, size) for image, square in zip(images, squares, strict=True)]
            pixels = torch.from_numpy(crops[0][None] if len(crops) == 1 else np.stack(crops)).to(self.device)
        return pixels if self._takes_pixels else self._normalise(pixels.permute(0, 3, 1, 2))

    def _read(self, prediction: Any, weights: torch.Tensor | None
              ) -> tuple[list[list[float]], Sequence[np.ndarray | None]]:
        """[cx, cy, w, h] normalised and (S, S) weighted score map of each image; None for a head without maps."""
        if prediction.score_map is None:
            boxes = prediction.boxes.reshape(-1, 4).float().tolist()
            return boxes, [None] * len(boxes)
        response = prediction.score_map.float()
        if weights is not None:
            if response.shape[-2:] != weights.shape:
                raise UserError(f"the model's score map is {tuple(response.shape[-2:])}, expected "
                                f"{tuple(weights.shape)} = search size {self.search_size} / stride {self.stride}")
            response = response * weights
        if self._takes_window:
            boxes = prediction.boxes.reshape(-1, 4).float()
        elif prediction.size_map is None or prediction.offset_map is None:
            raise UserError("the model gives a score map without size_map and offset_map, and takes no window: the "
                            "best box under the window cannot be read")
        else:
            boxes = decode(response, prediction.size_map.float(), prediction.offset_map.float())
        read = torch.cat([boxes, response.flatten(1)], dim=1).cpu()     # one copy from the device, so one wait for it
        return read[:, :4].tolist(), read[:, 4:].unflatten(1, response.shape[-2:]).numpy()


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(1, ...) tensors as one batch."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
