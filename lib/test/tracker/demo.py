"""Follow one target through a video, a folder of pictures or a camera, and keep what was seen."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from lib.test.evaluation.environment import env_settings
from lib.test.evaluation.results import tracker_folder, write_result
from lib.test.tracker.display import Display
from lib.test.tracker.sources import Source
from lib.test.tracker.tracker import Tracker, check_box
from lib.utils.errors import UserError
from lib.utils.files import write_text
from lib.utils.signals import StopRequest
from lib.vis.draw import VideoWriter, draw_boxes, draw_score_map

logger = logging.getLogger(__name__)

COLOR = (230, 159, 0)
LINE_EVERY = 15.0
"""Seconds between two lines about the progress."""


@dataclass
class DemoResult:
    """What was tracked, one entry per frame.

    Attributes:
        boxes_xywh: pixels; the first is the given box.
        scores: 0..1; 1 for a frame whose box was given, NaN for a model without scores.
        seconds: time the tracker took, without reading and drawing.
        interrupted: stopped by Ctrl-C (or a request to terminate) before the end.
        files: `video`, `boxes`, `times` and `scores`, where they were written.
    """

    boxes_xywh: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, box_xywh: Sequence[float], score: float, seconds: float) -> None:
        """Append one frame."""
        self.boxes_xywh.append([float(v) for v in box_xywh])
        self.scores.append(score)
        self.seconds.append(seconds)

    @property
    def fps(self) -> float:
        """Tracked frames per second of the tracker's own time, NaN before the first tracked frame."""
        return (len(self.seconds) - 1) / sum(self.seconds[1:]) if len(self.seconds) > 1 else math.nan


def run_demo(
    tracker: Tracker,
    source: Source,
    box_xywh: Sequence[float] | None,
    output: str | Path,
    *,
    label: str = "target",
    display: Display | None = None,
    max_frames: int | None = None,
    fps: float | None = None,
    sub_pixel: bool = False,
    debug: int = 0,
) -> DemoResult:
    """Track, draw and write `<name>.mp4`, `<name>.txt` (boxes), `<name>_time.txt` and `<name>_scores.txt`.

    The files are written whole: at the end, when the user stops, and when a later frame cannot be read or tracked
    (what came before is kept; then the error is raised).

    Args:
        tracker: with `initialize` and `track`.
        source: the frames; `source.name` names the files.
        box_xywh: target in the first frame, pixels; None lets the user draw it on `display`.
        output: folder for the files.
        label: word at the box.
        display: a window; keys there: q or Esc ends, r draws a new box.
        max_frames: stop after so many frames, the first included.
        fps: frame rate of the written video; None takes the source's.
        sub_pixel: boxes with decimals instead of integers cut towards zero, as OSTrack writes them.
        debug: 1 logs every frame, 2 also draws the score map into the video.

    Raises:
        UserError: no frame, no or an unusable box, an unreadable frame, or files that cannot be written.
    """
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; it must be at least 1")
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"fps is {fps}; it must be above 0 and at most 1000")
    output = Path(output)
    result = DemoResult()
    failure = None
    with closing(iter(source)) as frames:
        first = next(frames, None)
        if first is None:
            raise UserError(f"{source.name} holds no frame")
        height, width = first.shape[:2]
        box = check_box(_first_box(first, box_xywh, display), height, width)
        video = VideoWriter(output / f"{source.name}.mp4", fps or source.fps, (width, height))
        with StopRequest() as stop, video:
            try:
                images = islice(chain([first], frames), max_frames)
                _follow(tracker, images, box, result, video, stop, _Annotator(label, source.length, debug), display)
            except UserError as error:
                if not result.boxes_xywh:
                    raise
                failure = error
            result.interrupted = stop.requested
    boxes_file = output / f"{source.name}.txt"
    scores_file = output / f"{source.name}_scores.txt"
    write_text(scores_file, "".join(f"{score:.6f}\n" for score in result.scores))
    write_result(boxes_file, np.array(result.boxes_xywh), result.seconds, sub_pixel)
    result.files = {"video": video.path, "boxes": boxes_file, "scores": scores_file,
                    "times": boxes_file.with_name(f"{boxes_file.stem}_time.txt")}
    if failure is not None:
        raise UserError(f"{failure} ({len(result.boxes_xywh)} frames before it are in {output})") from failure
    return result


def default_output(save_dir: str | Path | None = None) -> Path:
    """`<save_dir>/video_demo`; None takes the save folder of the environment settings."""
    return Path(env_settings().save_dir if save_dir is None else save_dir).expanduser() / "video_demo"


def save_as_results(result: DemoResult, script: str, config: str, name: str, save_dir: str | Path | None = None,
                    sub_pixel: bool = False) -> Path:
    """Write the boxes (and times) where the official code keeps those of a video: in the results folder of the tracker,
    as `<script>/<config>/video_<name>.txt`.

    Args:
        config: name of the yaml file, or its path.
        save_dir: None takes the results folder of the environment settings.
    """
    results = env_settings().results_path if save_dir is None else Path(save_dir).expanduser() / "test/tracking_results"
    config = Path(config).stem if config.endswith(".yaml") else config
    path = tracker_folder(results, script, config) / f"video_{name}.txt"
    write_result(path, np.array(result.boxes_xywh), result.seconds, sub_pixel)
    return path


def _first_box(image: np.ndarray, box_xywh: Sequence[float] | None, display: Display | None) -> Sequence[float]:
    """The given box, or the one the user draws."""
    if box_xywh is not None:
        return box_xywh
    if display is None:
        raise UserError("no target: give its box in the first frame, --optional_box X Y W H (pixels). Drawing it with "
                        "the mouse needs a screen and opencv-python instead of opencv-python-headless")
    drawn = display.select(image)
    if drawn is None:
        raise UserError("no box was drawn; drag the mouse over the target and press Enter")
    return drawn


class _Annotator:
    """Draws and logs what the tracker says about a frame."""

    def __init__(self, label: str, length: int | None, debug: int):
        self._label, self._length, self._debug = label, length, debug
        self._next_line = time.monotonic() + LINE_EVERY

    def draw(self, image: np.ndarray, result: DemoResult, score_map: np.ndarray | None) -> np.ndarray:
        """The frame with the latest box, score, frame number and speed."""
        number, box, score = len(result.boxes_xywh), result.boxes_xywh[-1], result.scores[-1]
        total = f"/{self._length}" if self._length else ""
        text = [f"frame {number}{total}"] + ([] if math.isnan(result.fps) else [f"{result.fps:.1f} FPS"])
        scores = {} if math.isnan(score) else {self._label: score}
        if self._debug >= 2 and score_map is not None:
            image = draw_score_map(image, score_map)
        self._log(number, total, box, score, result.fps)
        return draw_boxes(image, {self._label: box}, {self._label: COLOR}, text, scores)

    def _log(self, number: int, total: str, box: list[float], score: float, fps: float) -> None:
        """Every frame when debugging, otherwise now and then."""
        if self._debug >= 1:
            logger.info("frame %d%s: box %s, score %.3f", number, total, " ".join(f"{v:.1f}" for v in box), score)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            logger.info("frame %d%s, %.1f FPS", number, total, fps)


def _follow(tracker: Tracker, images: Iterator[np.ndarray], box: list[float], result: DemoResult, video: VideoWriter,
            stop: StopRequest, annotator: _Annotator, display: Display | None) -> None:
    """Track through `images`, adding to `result` and `video`, until they end or the user stops."""
    new_box: Sequence[float] | None = box
    for image in images:
        if stop.requested:
            return
        start = time.perf_counter()
        score_map = None
        if new_box is not None:
            tracker.initialize(image, new_box)
            result.add(new_box, 1.0, time.perf_counter() - start)
        else:
            found = tracker.track(image)
            score_map = found.score_map
            result.add(found.box_xywh, found.score, time.perf_counter() - start)
        new_box = None
        drawn = annotator.draw(image, result, score_map)
        video.write(drawn)
        if display is not None:
            key = display.show(drawn)
            if key in ("q", "\x1b"):
                return
            if key == "r":
                new_box = display.select(image)
