"""Small pictures of the sequences that trackers do worst on, with the boxes of all of them."""

import base64
import logging
from typing import NamedTuple

import cv2
import numpy as np

from ...utils.errors import UserError
from ...vis.charts import COLORS
from ...vis.draw import draw_boxes, fit_image
from .frame_errors import annotated, overlap
from .report import by_score
from .results import BenchmarkReport, boxes_of

logger = logging.getLogger(__name__)

WIDTH = 480
QUALITY = 70
TRUTH = "#ffffff"
_FRAMES = (0.25, 0.6, 0.95)
"""Places among the annotated frames of a sequence that are shown."""


class Picture(NamedTuple):
    """One frame: its number from 1, a data URI of a JPEG, and the overlap of each tracker by label."""

    frame: int
    uri: str
    overlaps: dict[str, float]


def worst_sequences(report: BenchmarkReport, count: int) -> list[str]:
    """Names of the `count` sequences with the lowest AUC, as the mean over the scored trackers, worst first."""
    trackers = [tracker for tracker in report.trackers if tracker.scores]
    if not trackers:
        return []
    means = {name: np.mean([tracker.sequences[name].auc for tracker in trackers]) for name in report.names}
    return sorted(means, key=lambda name: means[name])[:count]


def thumbnails(report: BenchmarkReport, count: int) -> dict[str, list[Picture]]:
    """Pictures of the `count` worst sequences whose frames are at hand, worst first."""
    by_name = {sequence.name: sequence for sequence in report.benchmark}
    shown = {}
    for name in worst_sequences(report, len(report.names)) if count else ():
        if len(shown) == count:
            break
        sequence = by_name[name]
        if not len(getattr(sequence, "frames", None) or ()):
            continue
        try:
            shown[name] = _pictures(report, sequence)
        except UserError as error:
            logger.warning("no pictures of %s: %s", name, error)
    return shown


def _pictures(report: BenchmarkReport, sequence) -> list[Picture]:
    """A few frames of one sequence, small, with all boxes; UserError when a frame cannot be read."""
    truth = np.asarray(sequence.ground_truth, dtype=float)
    predictions = {}
    for tracker in by_score(report):
        if tracker.scores:
            predictions[tracker.label] = boxes_of(report.sources[tracker.label], sequence, report.convention)
    frames = np.flatnonzero(annotated(truth))
    pictures = []
    for index in dict.fromkeys(int(frames[round(place * (len(frames) - 1))]) for place in _FRAMES):
        image = sequence.frames[index]
        scale = WIDTH / image.shape[1]
        small = fit_image(image, (WIDTH, max(1, round(image.shape[0] * scale))))
        boxes = {"": truth[index], **{label: pred[index] for label, pred in predictions.items()}}
        colors = [TRUTH, *(COLORS[i % len(COLORS)] for i in range(len(predictions)))]
        for box, color in zip(boxes.values(), colors, strict=True):
            small = draw_boxes(small, {"": box * scale}, {"": _rgb(color)})
        overlaps = {label: float(overlap(pred[index:index + 1], truth[index:index + 1])[0])
                    for label, pred in predictions.items()}
        pictures.append(Picture(index + 1, _data_uri(small), overlaps))
    return pictures


def _rgb(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of #rrggbb."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _data_uri(image: np.ndarray) -> str:
    """An RGB uint8 image as a JPEG within a link."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
