"""OpenCV's trackers behind the interface of the run-time tracker, as baselines.

They are `cv2.Tracker*` of the packages opencv-python and opencv-contrib-python; the networks among them need files that
their authors published (see `KINDS`). OpenCV's rules from frame to frame are its own.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ...utils.errors import UserError
from ...utils.files import ROOT
from ...utils.parts import measured
from .base import FrameTracker, TrackResult, check_box, check_image


class Kind(NamedTuple):
    """One of OpenCV's trackers.

    Attributes:
        title: it is `cv2.Tracker<title>`.
        files: field of its parameters -> name of the file that its authors published.
        source: where they published them.
        least: shortest side of a first box, pixels. OpenCV's MIL never comes back from tiny ones (4 x 4).
    """

    title: str
    files: dict[str, str]
    source: str = ""
    least: int = 1


KINDS = {
    "nano": Kind("Nano", {"backbone": "nanotrack_backbone_sim.onnx", "neckhead": "nanotrack_head_sim.onnx"},
                 "NanoTrack/models/nanotrackv2 of GitHub HonglinChu/SiamTrackers (Apache-2.0)"),
    "vit": Kind("Vit", {"net": "vittrack.onnx"},
                "models/object_tracking_vittrack of GitHub opencv/opencv_zoo (Apache-2.0), where its name ends in its "
                "date"),
    "dasiamrpn": Kind("DaSiamRPN", {"model": "dasiamrpn_model.onnx", "kernel_r1": "dasiamrpn_kernel_r1.onnx",
                                    "kernel_cls1": "dasiamrpn_kernel_cls1.onnx"},
                      "the addresses in samples/dnn/dasiamrpn_tracker.cpp of GitHub opencv/opencv"),
    "csrt": Kind("CSRT", {}),
    "mil": Kind("MIL", {}, least=8),
}
"""By the name on the command line."""


@dataclass
class OpenCVTarget:
    """What is remembered of one target.

    Attributes:
        box_xywh: where it was last, in pixels.
        tracker: OpenCV's, which follows it.
        size: (height, width) of the frames.
    """

    box_xywh: list[float]
    tracker: Any
    size: tuple[int, int]


class OpenCVTracker(FrameTracker):
    """One of OpenCV's trackers, used as `lib.test.tracker.Tracker` is. It runs on the CPU.

    OpenCV takes first boxes of whole pixels, so they are rounded, and what lies outside the frame is cut off. When it
    says that it has lost the target, the box stays where it was.

    Args:
        name: a key of `KINDS`.
        files: of its network, from `find_files`.
        device, benchmark: for the interface's sake; they change nothing.

    Attributes:
        parts: None, or where `step` notes how long its part takes: all of it is OpenCV's `track`.

    Raises:
        UserError: this OpenCV does not have it, or cannot read the files.
    """

    def __init__(self, name: str, files: Sequence[Path] = (), *, device: str = "auto", benchmark: str = ""):
        super().__init__()
        self.kind, self.files = find_kind(name), tuple(files)
        self.device = "cpu"
        self._make()

    def start(self, image: np.ndarray, box_xywh: Sequence[float]) -> OpenCVTarget:
        """A new target.

        Args:
            image: (H, W, 3) RGB uint8.
            box_xywh: [x, y, w, h] of the target in pixels.

        Raises:
            UserError: `image` or the box is unusable, or OpenCV refuses them.
        """
        height, width = check_image(image)
        box = check_box(box_xywh, height, width)
        left, top, right, bottom = (round(value) for value in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
        right, bottom = max(min(right, width), left + 1), max(min(bottom, height), top + 1)
        if min(right - left, bottom - top) < self.kind.least:
            raise UserError(f"OpenCV's {self.kind.title} cannot follow the target box {box}: inside the frame its "
                            f"sides must be at least {self.kind.least} pixels long; choose another tracker")
        tracker = self._make()
        with _errors_of(f"OpenCV's {self.kind.title} refuses the target box {box} in a frame of {width} x {height} "
                        "pixels"):
            tracker.init(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (left, top, right - left, bottom - top))
        return OpenCVTarget(box, tracker, (height, width))

    def step(self, images: Sequence[np.ndarray], targets: Sequence[OpenCVTarget]) -> list[TrackResult]:
        """Find each target in its next frame and remember where it is.

        Args:
            images: the frame of each target, (H, W, 3) RGB uint8.
            targets: from `start`.

        Returns:
            boxes as OpenCV gives them, mostly of whole pixels, and its score, NaN for a tracker that has none.

        Raises:
            UserError: an image is unusable or not of the size of those before, or OpenCV fails.
        """
        results = []
        for image, target in zip(images, targets, strict=True):
            if check_image(image) != target.size:
                raise UserError(f"a frame has {image.shape[1]} x {image.shape[0]} pixels and those before had "
                                f"{target.size[1]} x {target.size[0]}; OpenCV's trackers need frames of one size")
            with measured(self.parts, "track"):
                results.append(self._follow(image, target))
        return results

    def _follow(self, image: np.ndarray, target: OpenCVTarget) -> TrackResult:
        with _errors_of(f"OpenCV's {self.kind.title} failed"):
            found, box = target.tracker.update(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            score = target.tracker.getTrackingScore() if hasattr(target.tracker, "getTrackingScore") else -1.0
        if found and min(box[2:]) > 0:
            target.box_xywh = [float(value) for value in box]
        return TrackResult(list(target.box_xywh), float(score) if score >= 0 else math.nan, None)

    def _make(self) -> Any:
        """A new tracker of OpenCV's."""
        constructor = getattr(cv2, f"Tracker{self.kind.title}_create")
        if not self.files:
            return constructor()
        parameters = getattr(cv2, f"Tracker{self.kind.title}_Params")()
        for field, file in zip(self.kind.files, self.files, strict=True):
            setattr(parameters, field, str(file))
        with _errors_of(f"OpenCV cannot use {' and '.join(map(str, self.files))} as its {self.kind.title}; they are "
                        "damaged or of another network"):
            return constructor(parameters)


def find_kind(name: str) -> Kind:
    """The tracker of a name of the command line.

    Raises:
        UserError: there is none, or this OpenCV does not have it.
    """
    if name not in KINDS:
        raise UserError(f"OpenCV has no tracker {name!r} that is known here; choose one of {', '.join(KINDS)}")
    kind = KINDS[name]
    if not hasattr(cv2, f"Tracker{kind.title}_create"):
        raise UserError(f"OpenCV {cv2.__version__} as it is installed has no Tracker{kind.title}; the package "
                        "opencv-contrib-python has all (pip uninstall opencv-python opencv-python-headless first: only "
                        "one of them can be there)")
    return kind


def find_files(name: str, first: Path | None = None) -> tuple[Path, ...]:
    """The files of a tracker's network, in the order of `Kind.files`; none for one without.

    Args:
        first: the first file, under any name; further ones lie beside it under their published names. None takes all
            from pretrained_models.

    Raises:
        UserError: a file is missing (the message says where it comes from), or is given to a tracker without any.
    """
    kind = find_kind(name)
    names = list(kind.files.values())
    if first is not None and not names:
        raise UserError(f"OpenCV's {kind.title} has no network; leave --checkpoint out")
    files = [ROOT / "pretrained_models" / file for file in names] if first is None else \
        [first, *(first.with_name(file) for file in names[1:])]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        alone = "it" if len(names) == 1 else f"{names[0]} with the others beside it"
        raise UserError(f"OpenCV's {kind.title} needs {' and '.join(missing)}, from {kind.source}; put that there, or "
                        f"name {alone} with --checkpoint")
    return tuple(files)


@contextmanager
def _errors_of(what: str) -> Iterator[None]:
    """OpenCV's errors in the block as a UserError that begins with `what`; its warnings are not shown."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        yield
    except cv2.error as error:
        raise UserError(f"{what} ({error.err or error})") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
