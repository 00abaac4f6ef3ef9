"""Follow targets through a video, a folder of pictures, a camera or a stream, and keep what was seen."""

import csv
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from ...utils.errors import UserError
from ...utils.files import write_text
from ...utils.ownership import own
from ...utils.parts import PartTimes, measured
from ...utils.progress import LINE_EVERY
from ...utils.signals import StopRequest
from ...utils.threads import BackgroundCalls
from ...vis.draw import PALETTE, VideoWriter, draw_boxes, draw_score_map
from ..evaluation.environment import env_settings
from ..evaluation.results import results_root, times_file, tracker_folder, write_result
from .base import check_box
from .display import Display
from .live import LiveTracker, Result
from .sources import Frame, Source

logger = logging.getLogger(__name__)

LOST_COLOR = (150, 150, 150)
WRITE_QUEUE = 4
"""Pictures that may wait for the video's encoder, which works in a thread of its own."""
SOURCES = ".sources.json"
"""In a folder of demos: name of the files -> place of the source."""
COLUMNS = ("frame", "time", "target", "x", "y", "w", "h", "score", "lost")
"""Of the table of boxes."""


@dataclass
class DemoResult:
    """What was tracked, one entry per tracked frame.

    Attributes:
        targets: of each frame, what was said about each target; score 1 in a frame whose box was given.
        numbers: of each frame in the source, from 0; gaps are frames that a live source dropped.
        times: of each frame, seconds since the first.
        seconds: time the tracker took, without reading and drawing.
        wall: seconds of the whole run, from the first frame to the last one written.
        interrupted: stopped by Ctrl-C (or a request to terminate) before the end.
        name: of the files, see `choose_name`.
        files: `video`, `table`, and of each target `boxes`, `times` and `scores` (with the target's number behind the
            name where there are several), where they were written.
    """

    targets: list[list[Result]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    interrupted: bool = False
    name: str = ""
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, frame: Frame, results: Sequence[Result], seconds: float) -> None:
        """Append one frame."""
        self.targets.append(list(results))
        self.numbers.append(frame.number)
        self.times.append(frame.seconds)
        self.seconds.append(seconds)

    @property
    def fps(self) -> float:
        """Tracked frames per second of the tracker's own time, NaN before the first tracked frame."""
        return (len(self.seconds) - 1) / sum(self.seconds[1:]) if len(self.seconds) > 1 else math.nan

    @property
    def dropped(self) -> int:
        """Frames of the source that there was no time for."""
        return self.numbers[-1] - self.numbers[0] + 1 - len(self.numbers) if self.numbers else 0

    def suffixes(self) -> list[str]:
        """What tells the targets' files apart: nothing for one, _1, _2, ... for several."""
        count = len(self.targets[0])
        return [""] if count == 1 else [f"_{number + 1}" for number in range(count)]

    def boxes_xywh(self, target: int = 0) -> np.ndarray:
        """(N, 4) boxes of one target, counted from 0, in pixels; the first is the given one."""
        return np.array([results[target].box for results in self.targets], dtype=np.float64)

    def scores(self, target: int = 0) -> list[float]:
        """N scores of one target, counted from 0: 0..1, 1 where the box was given, NaN for a model without scores."""
        return [results[target].score for results in self.targets]


def run_demo(
    tracker: LiveTracker,
    source: Source,
    boxes_xywh: Sequence[Sequence[float]] | None,
    output: str | Path,
    *,
    display: Display | None = None,
    max_frames: int | None = None,
    fps: float | None = None,
    sub_pixel: bool = False,
    debug: int = 0,
    parts: PartTimes | None = None,
) -> DemoResult:
    """Track, draw and write `<name>.mp4`, `<name>.csv` (everything said about every target in every frame) and, of each
    target, `<name>.txt` (boxes), `<name>_time.txt` and `<name>_scores.txt`, as `<name>_1.txt` and so on where there are
    several.

    The files are written whole: at the end, when the user stops, and when a later frame cannot be read or tracked
    (what came before is kept; then the error is raised). A live source drops the frames that there is no time for; the
    video shows the picture before them again, so it keeps the source's pace and its frame numbers.

    Args:
        tracker: without targets yet.
        source: the frames; `source.name` names the files.
        boxes_xywh: of the targets in the first frame, pixels; None lets the user draw one on `display`.
        output: folder for the files.
        display: a window; keys there, also while a live source is silent: q or Esc ends, as closing it does, r draws
            the boxes anew.
        max_frames: stop after so many tracked frames, the first included.
        fps: frame rate of the written video; None takes the source's.
        sub_pixel: boxes with decimals in the text files instead of integers cut towards zero, as OSTrack writes them.
        debug: 1 logs every frame, 2 also draws the first target's score map into the video.
        parts: where to note how long each part of a frame takes: wait (for the next frame: threads read ahead), crop,
            network, box, draw and write (waiting for the thread that encodes).

    Raises:
        UserError: no frame, no or an unusable box, an unreadable frame, frames of another shape, a camera or stream
            that is gone, or files that cannot be written.
    """
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; it must be at least 1")
    if fps is not None and not 0 < fps <= 1000:
        raise UserError(f"fps is {fps}; it must be above 0 and at most 1000")
    output = Path(output)
    result = DemoResult()
    failure = None
    stop = StopRequest()
    window = _Window(display, tracker, result)
    with closing(source.frames(lambda: stop.requested or window.refresh())) as frames:
        first = next(frames, None)
        if first is None:
            raise UserError(f"{source.name} had given no frame yet when the run was ended" if window.ended
                            else f"{source.name} holds no frame")
        height, width = first.image.shape[:2]
        boxes = [check_box(box, height, width) for box in boxes_xywh or [_drawn_box(first.image, display)]]
        result.name = choose_name(output, source.name, source.place)
        video = VideoWriter(output / f"{result.name}.mp4", fps or source.fps, (width, height))
        start = time.perf_counter()
        with stop, video, BackgroundCalls(WRITE_QUEUE) as background:
            try:
                images = islice(_timed(chain([first], frames), parts), max_frames)
                _follow(tracker, images, boxes, result, partial(background.do, video.write), stop,
                        _Annotator(source.length, debug), window, parts)
            except UserError as error:
                if not result.targets:
                    raise
                failure = error
            result.interrupted = stop.requested
        result.wall = time.perf_counter() - start
    result.files = {"video": video.path} | _write_files(result, output, sub_pixel)
    if failure is not None:
        dropped = f", {result.dropped} were dropped" if source.live else ""
        raise UserError(f"{failure} ({len(result.targets)} frames before it are in {output}{dropped})") from failure
    return result


def default_output(save_dir: str | Path | None = None) -> Path:
    """`<save_dir>/video_demo`; None takes the save folder of the environment settings."""
    return Path(env_settings().save_dir if save_dir is None else save_dir).expanduser() / "video_demo"


def choose_name(output: Path, name: str, place: str) -> str:
    """What the files of a source are called in a folder: its name, with -2, -3, ... behind it where files of that name
    are there that are not known to be of a source of the same place. Those of an earlier run of the same source are
    replaced.

    Args:
        name, place: see `Source`.
    """
    with own(output, share=True):
        sources_file = output / SOURCES
        try:
            places = json.loads(sources_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            places = {}
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        chosen = next(candidate for candidate in names
                      if places.get(candidate, None if _is_there(output, candidate) else place) == place)
        if places.get(chosen) != place:
            write_text(sources_file, json.dumps(places | {chosen: place}, indent=1) + "\n")
    if chosen != name:
        logger.info("%s has files of another %s, so those of this one are called %s", output, name, chosen)
    return chosen


def _is_there(output: Path, name: str) -> bool:
    return any((output / f"{name}{ending}").exists() for ending in (".csv", ".txt", ".mp4", ".avi"))


def save_as_results(result: DemoResult, script: str, config: str, save_dir: str | Path | None = None,
                    sub_pixel: bool = False) -> list[Path]:
    """Write the boxes (and times) where the official code keeps those of a video: in the results folder of the tracker,
    as `<script>/<config>/video_<its name>.txt`, or `video_<its name>_1.txt` and so on for several targets.

    Args:
        config: the tracker's name there, see `Choice.name`.
        save_dir: None takes the results folder of the environment settings.
    """
    folder = tracker_folder(results_root(save_dir, env_settings()), script, config)
    paths = [folder / f"video_{result.name}{suffix}.txt" for suffix in result.suffixes()]
    for target, path in enumerate(paths):
        write_result(path, result.boxes_xywh(target), result.seconds, sub_pixel)
    return paths


def parts_table(parts: PartTimes, result: DemoResult) -> list[str]:
    """Lines of a table: each part of a frame, its median milliseconds and its share of their sum; then the tracker's
    share of the whole run."""
    medians = {name: 1e3 * float(np.median(seconds)) for name, seconds in parts.seconds.items()}
    total = sum(medians.values())
    lines = [f"{name:8s} {value:8.2f} ms {value / total:6.1%}" for name, value in medians.items()]
    return [*lines, f"{'sum':8s} {total:8.2f} ms, {1e3 / total:.1f} frames/s",
            f"the tracker took {sum(result.seconds) / result.wall:.1%} of the run's {result.wall:.1f} s, "
            f"{len(result.seconds) / result.wall:.1f} frames/s"]


def _write_files(result: DemoResult, output: Path, sub_pixel: bool) -> dict[str, Path]:
    """Everything but the video; kind -> file."""
    name = result.name
    files = {"table": output / f"{name}.csv"}
    for target, suffix in enumerate(result.suffixes()):
        boxes_file = output / f"{name}{suffix}.txt"
        scores_file = output / f"{name}{suffix}_scores.txt"
        write_text(scores_file, "".join(f"{score:.6f}\n" for score in result.scores(target)))
        write_result(boxes_file, result.boxes_xywh(target), result.seconds, sub_pixel)
        files |= {f"boxes{suffix}": boxes_file, f"scores{suffix}": scores_file,
                  f"times{suffix}": times_file(boxes_file)}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for results, number, moment in zip(result.targets, result.numbers, result.times, strict=True):
        for target, tracked in enumerate(results, 1):
            score = "" if math.isnan(tracked.score) else f"{tracked.score:.6f}"
            writer.writerow([number, f"{moment:.3f}", target, *(f"{value:.2f}" for value in tracked.box), score,
                             int(tracked.lost)])
    write_text(files["table"], table.getvalue())
    return files


def _drawn_box(image: np.ndarray, display: Display | None) -> Sequence[float]:
    """The box that the user draws."""
    if display is None:
        raise UserError("no target: give its box in the first frame, --box X Y W H (pixels). Drawing it with "
                        "the mouse needs a screen and opencv-python instead of opencv-python-headless")
    drawn = display.select(image)
    if drawn is None:
        raise UserError("no box was drawn; drag the mouse over the target and press Enter")
    return drawn


def _timed(frames: Iterator[Frame], parts: PartTimes | None) -> Iterator[Frame]:
    """The frames, with the time that each took to come in `parts`."""
    while True:
        with measured(parts, "wait"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


class _Annotator:
    """Draws and logs what the tracker says about a frame."""

    def __init__(self, length: int | None, debug: int):
        self._length, self._debug = length, debug
        self._next_line = time.monotonic() + LINE_EVERY

    def draw(self, frame: Frame, result: DemoResult, score_map: np.ndarray | None) -> np.ndarray:
        """The frame with the latest boxes, scores, frame number and speed; lost targets are grey and named so."""
        total = f"/{self._length}" if self._length and frame.number < self._length else ""
        text = [f"frame {frame.number + 1}{total}"] + ([] if math.isnan(result.fps) else [f"{result.fps:.1f} FPS"])
        boxes, colors, scores = {}, {}, {}
        for number, tracked in enumerate(result.targets[-1]):
            label = "target" if len(result.targets[-1]) == 1 else f"target {number + 1}"
            label = f"{label} lost" if tracked.lost else label
            boxes[label] = tracked.box
            colors[label] = LOST_COLOR if tracked.lost else PALETTE[number % len(PALETTE)]
            if not math.isnan(tracked.score):
                scores[label] = tracked.score
        self._log(frame, total, result)
        image = frame.image
        if self._debug >= 2 and score_map is not None:
            image = draw_score_map(image, score_map)
        return draw_boxes(image, boxes, colors, text, scores)

    def _log(self, frame: Frame, total: str, result: DemoResult) -> None:
        """Every frame when debugging, otherwise now and then."""
        if self._debug >= 1:
            logger.info("frame %d%s: %s", frame.number + 1, total, "; ".join(
                f"box {' '.join(f'{v:.1f}' for v in tracked.box)}, score {tracked.score:.3f}{', lost' * tracked.lost}"
                for tracked in result.targets[-1]))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            logger.info("frame %d%s, %.1f FPS, %d frames dropped", frame.number + 1, total, result.fps, result.dropped)


class _Window:
    """The display, if there is one, and what its keys do.

    Attributes:
        ended: the user has pressed q or Esc, or closed it.
    """

    def __init__(self, display: Display | None, tracker: LiveTracker, result: DemoResult):
        self._display, self._tracker, self._result = display, tracker, result
        self._image: np.ndarray | None = None
        self.ended = False

    def show(self, picture: np.ndarray, image: np.ndarray) -> None:
        """Show what was drawn into the frame `image`, and take a key."""
        if self._display is not None:
            self._image = image
            self._press(self._display.show(picture))

    def refresh(self) -> bool:
        """Keep the window alive where no picture comes, and take a key; whether the user has ended the run."""
        if self._display is not None:
            self._press(self._display.refresh())
        return self.ended

    def _press(self, key: str) -> None:
        if key in ("q", "\x1b"):
            self.ended = True
        elif key == "r" and self._image is not None:
            for target in range(len(self._result.targets[-1])):
                box = self._display.select(self._image)
                if box is not None:
                    self._tracker.restart(target, self._image, box)
                    self._result.targets[-1][target] = _given(box)


def _follow(tracker: LiveTracker, frames: Iterator[Frame], boxes: Sequence[Sequence[float]], result: DemoResult,
            write: Callable[[np.ndarray, int], None], stop: StopRequest, annotator: _Annotator,
            window: _Window, parts: PartTimes | None) -> None:
    """Track through `frames`, adding to `result`, until they end or the user stops; `write` takes a picture for the
    video and how often it is shown."""
    drawn = None
    for frame in frames:
        if stop.requested:
            return
        start = time.perf_counter()
        if not result.targets:
            tracker.init_all(frame.image, boxes)
            results = [_given(box) for box in boxes]
            tracker.tracker.parts = parts
        else:
            results = tracker.update_all(frame.image)
        dropped = frame.number - result.numbers[-1] - 1 if result.numbers else 0
        result.add(frame, results, time.perf_counter() - start)
        noted = parts if len(result.targets) > 1 else None
        with measured(noted, "draw"):
            picture = annotator.draw(frame, result, tracker.score_maps[0])
        with measured(noted, "write"):
            if dropped:
                write(drawn, dropped)
            write(picture, 1)
        drawn = picture
        window.show(drawn, frame.image)
        if window.ended:
            return


def _given(box_xywh: Sequence[float]) -> Result:
    """What a frame says about a target whose box was given in it."""
    return Result([float(v) for v in box_xywh], 1.0, False)
