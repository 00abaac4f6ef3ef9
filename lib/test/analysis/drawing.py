"""Boxes of several trackers, and the true ones, drawn on the frames of a sequence."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ...utils.boxes import box_iou, xywh_to_xyxy
from ...utils.crop import square_crop
from ...utils.errors import UserError
from ...utils.progress import progress
from ...vis.draw import PALETTE, VideoWriter, draw_boxes, image_strip, save_image
from ...vis.maps import blend_map, with_panels
from ..evaluation.datasets import Sequence as TestSequence
from ..evaluation.readahead import ReadAhead
from ..tracker import Tracker
from ..tracker.attention import AttentionProbe

TRUTH = "ground truth"
STRIP_FRAMES = 8
"""Frames of a strip when nobody chooses them."""
MOST_CELLS = 400
"""Frames that a strip can hold."""
VIDEOS = (".mp4", ".avi")


@dataclass(frozen=True)
class Rerun:
    """Our own tracker, run again while its boxes are drawn.

    Attributes:
        label: its name in the legend.
        tracker: with weights.
        score_map: show the score map over the search crop.
        attention: number of the layer whose template-to-search attention to show; None for none.
    """

    label: str
    tracker: Tracker
    score_map: bool = False
    attention: int | None = None


@dataclass
class _Shown:
    """One frame of the sequence."""

    number: int
    image: np.ndarray
    boxes: dict[str, Sequence[float]]
    panels: list[tuple[str, np.ndarray]] = field(default_factory=list)


def parse_frames(text: str, length: int) -> list[int]:
    """Numbers of frames from `0,50,100-200`, sorted; frames are counted from 0, ranges include both ends.

    Raises:
        UserError: another form, or a frame that the sequence of `length` frames does not have.
    """
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UserError(f"--frames {text}: expected numbers and ranges such as 0,50,100-200, found {part!r}")
        chosen.update(range(int(first), int(last if dash else first) + 1))
    if not chosen or max(chosen) >= length:
        raise UserError(f"--frames {text}: the sequence has the frames 0 to {length - 1}"
                        + ("" if chosen else ", and the range is empty"))
    return sorted(chosen)


def choose_frames(length: int, frames: str | None, every: int | None, strip: bool) -> list[int]:
    """The frames to draw: those of `frames` (all by default), of these each `every`-th; for a strip without either a
    few, evenly spread.

    Raises:
        UserError: see `parse_frames`, or more frames than a strip can hold.
    """
    chosen = list(range(length)) if frames is None else parse_frames(frames, length)
    if every is not None:
        chosen = chosen[::every]
    elif strip and frames is None:
        chosen = sorted({round(i) for i in np.linspace(0, length - 1, STRIP_FRAMES)})
    if strip and len(chosen) > MOST_CELLS:
        raise UserError(f"{len(chosen)} frames do not fit into one picture (at most {MOST_CELLS}); choose some with "
                        "--frames or --every, or write a video (.mp4)")
    return chosen


def draw_results(
    sequence: TestSequence,
    tracks: Mapping[str, np.ndarray],
    output: str | Path,
    frames: Sequence[int],
    *,
    truth: bool = True,
    rerun: Rerun | None = None,
    with_iou: bool = False,
    fps: float = 25.0,
    columns: int = 4,
    cell_width: int | None = None,
) -> Path:
    """Draw boxes with a legend, as a video or as a picture of several frames. The file is written whole or not at all.

    Args:
        sequence: the frames and the true boxes.
        tracks: label -> (N, 4) xywh of every frame of the sequence.
        output: `.mp4` or `.avi` for a video, another picture format for a strip.
        frames: numbers of the frames to draw, rising.
        truth: draw the true boxes too, where they are known.
        rerun: a tracker to run again from the first frame on; its maps stand beside the frame. On the first frame the
            template crop stands there.
        with_iou: show each tracker's IoU with the true box behind its label.
        fps: frames per second of a video.
        columns, cell_width: of a strip; None keeps the frames' width.

    Returns:
        The file; its ending can differ from `output`'s where OpenCV has no MPEG-4 encoder.

    Raises:
        UserError: a track of another length, a label that is used twice, a frame that cannot be read, or a file that
            cannot be written.
    """
    output = Path(output)
    for label, boxes in tracks.items():
        if len(boxes) < sequence.length:
            raise UserError(f"{label}: {len(boxes)} boxes for the {sequence.length} frames of {sequence.name}; finish "
                            "that result, or leave it out")
    labels = [TRUTH] * truth + [*tracks] + ([rerun.label] if rerun else [])
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double:
        raise UserError(f"two trackers are called {double!r}; give them labels, as in --tracker script:config=label")
    colors = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(label for label in labels if label != TRUTH)}
    colors[TRUTH] = (255, 255, 255)

    def pictures() -> Iterator[np.ndarray]:
        samples = _shown(sequence, tracks, frames, rerun)
        for shown in progress(samples, len(frames), f"drawing {sequence.name}", "frames"):
            true_box = sequence.ground_truth[shown.number]
            ious = {label: value for label, box in shown.boxes.items()
                    if math.isfinite(value := overlap(box, true_box))} if with_iou else {}
            boxes = ({TRUTH: true_box} if truth else {}) | shown.boxes
            text = f"{sequence.name} {shown.number}/{sequence.length - 1}"
            yield with_panels(draw_boxes(shown.image, boxes, colors, text, ious, legend=True), shown.panels)

    try:
        with closing(pictures()) as drawn:
            if output.suffix.lower() not in VIDEOS:
                save_image(output, image_strip(list(drawn), columns, cell_width=cell_width))
                return output
            first = next(drawn)
            with VideoWriter(output, fps, first.shape[1::-1]) as video:
                video.write(first)
                for picture in drawn:
                    video.write(picture)
            return video.path
    finally:
        sequence.frames.close()


def overlap(box_xywh: Sequence[float], true_xywh: Sequence[float]) -> float:
    """IoU of two boxes, 0..1; NaN where one of them is not known."""
    boxes = torch.tensor(np.array([box_xywh, true_xywh], dtype=np.float64))
    if not torch.isfinite(boxes).all():
        return math.nan
    return box_iou(*xywh_to_xyxy(boxes))[0].item()


def _shown(sequence: TestSequence, tracks: Mapping[str, np.ndarray], frames: Sequence[int],
           rerun: Rerun | None) -> Iterator[_Shown]:
    """The chosen frames with everybody's boxes."""
    if rerun is None:
        for number in frames:
            yield _Shown(number, sequence.frames[number], {label: boxes[number] for label, boxes in tracks.items()})
        return
    chosen = set(frames)
    with closing(_track_again(sequence, rerun)) as tracked:
        for shown in islice(tracked, max(chosen) + 1):
            if shown.number in chosen:
                shown.boxes = {label: boxes[shown.number] for label, boxes in tracks.items()} | shown.boxes
                yield shown


def _track_again(sequence: TestSequence, rerun: Rerun) -> Iterator[_Shown]:
    """Every frame with the box of `rerun`, and its maps as far as they are asked for."""
    tracker = rerun.tracker
    with ExitStack() as stack:
        probe = None
        if rerun.attention is not None:
            probe = stack.enter_context(AttentionProbe(tracker.model, rerun.attention))
        images = stack.enter_context(closing(iter(ReadAhead(sequence.frames))))
        for number, image in enumerate(images):
            panels = []
            if number == 0:
                box = sequence.first_box()
                tracker.initialize(image, box)
                crop = square_crop(image, box, tracker.template_factor, tracker.template_size).image
                panels = [("template", crop)] * (rerun.score_map + (probe is not None))
            else:
                before = tracker.box_xywh
                result = tracker.track(image)
                box = result.box_xywh
                crop = square_crop(image, before, tracker.search_factor, tracker.search_size).image
                if rerun.score_map and result.score_map is not None:
                    panels.append((f"score {result.score:.2f}", blend_map(crop, result.score_map)))
                if probe is not None:
                    attention = blend_map(crop, probe.map / np.nanmax(probe.map))
                    panels.append((f"attention, layer {probe.layer}", attention))
            yield _Shown(number, image, {rerun.label: box}, panels)
