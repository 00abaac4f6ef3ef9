#!/usr/bin/env python
"""Track one target with an ONNX export: NumPy, OpenCV and ONNX Runtime, nothing else.

This file stands alone: copy it, with the folder that `tracking/export_model.py --format onnx` wrote, to wherever the
tracker shall run. It shows all that a client has to do (crop, normalise, run, read the box, map it back) and gives the
boxes of the project's own tracker.

    python docs/track_onnx.py EXPORT_FOLDER VIDEO_OR_FOLDER X Y W H --output boxes.txt
"""

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

MARGIN = 10  # pixels of the box that stay inside the frame


class OnnxTracker:
    """`start(frame, box)`, then `track(frame)` per frame. Frames are RGB uint8, boxes x, y, w, h in pixels."""

    def __init__(self, folder: str | Path, threads: int = 0):
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise SystemExit(f"no exported tracker in {folder} (manifest.json not found)")
        self.facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.main = "search" if "search" in self.facts["parts"] else "tracker"
        inputs = self.facts["parts"][self.main]["inputs"]
        if self.facts["format"] != "onnx" or "template_mask" in inputs or "window" not in inputs:
            raise SystemExit(f"{folder} is no ONNX export of a CENTER head without a template mask, or an older one: "
                             "export again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.x64quantprecision", "1")      # int8 on x86 CPUs without VNNI
        self.sessions = {name: onnxruntime.InferenceSession(str(folder / part["file"]), options)
                         for name, part in self.facts["parts"].items()}
        side = self.facts["search_size"] // self.facts["stride"]
        hann = np.hanning(side + 2)[1:-1]
        self.window = (np.outer(hann, hann) if self.facts["window"] else np.ones((side, side))).astype(np.float32)

    def start(self, frame: np.ndarray, box: list[float]) -> None:
        self.box = x, y, w, h = [float(value) for value in box]
        if not (w > 0 and h > 0 and x < frame.shape[1] and y < frame.shape[0] and x + w > 0 and y + h > 0):
            raise SystemExit(f"the box {self.box} has no area in a frame of {frame.shape[1]} x {frame.shape[0]} pixels")
        crop, _ = self._crop(frame, self.facts["template_factor"], self.facts["template_size"])
        if "template" in self.facts["parts"]:
            self.fixed = {"tokens": self._run("template", {"template": crop})["tokens"]}
        else:
            self.fixed = {"template": crop}

    def track(self, frame: np.ndarray) -> tuple[list[float], float]:
        """The box in this frame, and its score in 0..1."""
        size = self.facts["search_size"]
        crop, scale = self._crop(frame, self.facts["search_factor"], size)
        found = self._run(self.main, {**self.fixed, "search": crop, "window": self.window})
        side = size / scale                                      # of the crop, in pixels of the frame
        cx, cy, w, h = found["boxes"][0, 0] * side
        x, y, old_w, old_h = self.box
        left, top = x + (old_w - side - w) / 2 + cx, y + (old_h - side - h) / 2 + cy
        self.box = clip([left, top, w, h], *frame.shape[:2])
        return self.box, float((found["score_map"][0, 0] * self.window).max())

    def _crop(self, frame: np.ndarray, factor: float, size: int) -> tuple[np.ndarray, float]:
        """The square around the box as the graph wants it, and its pixels per pixel of the frame. Outside the frame it
        is black; the frame's last row and column count as outside."""
        x, y, w, h = self.box
        side = math.ceil(math.sqrt(w * h) * factor)
        left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
        square = np.zeros((side, side, 3), np.uint8)
        x0, x1 = max(left, 0), min(left + side, frame.shape[1] - 1)
        y0, y1 = max(top, 0), min(top + side, frame.shape[0] - 1)
        if x0 < x1 and y0 < y1:
            square[y0 - top:y1 - top, x0 - left:x1 - left] = frame[y0:y1, x0:x1]
        crop = cv2.resize(square, (size, size))[None]
        if not self.facts["take_pixels"]:
            crop = (crop / np.float32(255) - np.float32(self.facts["mean"])) / np.float32(self.facts["std"])
            crop = np.ascontiguousarray(crop.transpose(0, 3, 1, 2))
        return crop, size / side

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        part = self.facts["parts"][name]
        outputs = {role: port["name"] for role, port in part["outputs"].items()}
        feeds = {port["name"]: inputs[role] for role, port in part["inputs"].items()}
        return dict(zip(outputs, self.sessions[name].run(list(outputs.values()), feeds), strict=True))


def clip(box: list[float], height: int, width: int) -> list[float]:
    """The box with each side moved into the frame, at least MARGIN wide and high."""
    x, y, w, h = (float(value) for value in box)
    left, right = min(max(0.0, x), width - MARGIN), min(max(MARGIN, x + w), width)
    top, bottom = min(max(0.0, y), height - MARGIN), min(max(MARGIN, y + h), height)
    return [left, top, max(MARGIN, right - left), max(MARGIN, bottom - top)]


def frames_of(path: Path):
    """RGB frames of a video file, or of a folder of pictures in name order."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            image = cv2.imread(str(file))
            if image is not None:
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return
    video = cv2.VideoCapture(str(path))
    while True:
        there, image = video.read()
        if not there:
            return
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="folder with manifest.json")
    parser.add_argument("video", type=Path, help="video file, or folder of pictures")
    parser.add_argument("box", type=float, nargs=4, help="x y w h of the target in the first frame, in pixels")
    parser.add_argument("--output", type=Path, required=True, help="text file for the boxes, one x,y,w,h per frame")
    options = parser.parse_args(arguments)
    tracker = OnnxTracker(options.export)
    boxes = []
    for frame in frames_of(options.video):
        if boxes:
            boxes.append(tracker.track(frame)[0])
        else:
            tracker.start(frame, options.box)
            boxes.append(options.box)
    if not boxes:
        raise SystemExit(f"no frame in {options.video}")
    options.output.write_text("".join(",".join(f"{value:.2f}" for value in box) + "\n" for box in boxes))
    print(f"{len(boxes)} boxes: {options.output}")


if __name__ == "__main__":
    main()
