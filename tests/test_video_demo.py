"""The demo: sources of frames, tracking with everything written, stopping, and errors."""

import os
import runpy
import signal
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.models.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.test.tracker import demo, display, sources
from lib.test.tracker.demo import run_demo
from lib.test.tracker.sources import Source, open_source
from lib.test.tracker.tracker import TrackResult
from lib.utils.errors import UserError
from lib.vis.draw import VideoWriter

SIZE = (160, 120)
FRAMES = 8


def frame(index: int) -> np.ndarray:
    """A white square that moves 3 px per frame to the right, on grey."""
    image = np.full((SIZE[1], SIZE[0], 3), 80, np.uint8)
    image[40:60, 20 + 3 * index:40 + 3 * index] = 255
    return image


def box(index: int) -> list[float]:
    return [20.0 + 3 * index, 40.0, 20.0, 20.0]


class BrightestTracker:
    """Finds the white square: a tracker without a network."""

    def initialize(self, image, box_xywh):
        self.size = box_xywh[2:]

    def track(self, image):
        rows, columns = np.nonzero(image[..., 0] > 200)
        return TrackResult([float(columns.min()), float(rows.min()), *self.size], 0.75, np.eye(16, dtype=np.float32))


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.avi"
    with VideoWriter(path, 12, SIZE) as video:
        for index in range(FRAMES):
            video.write(frame(index))
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "walk"
    folder.mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index + 1}.png"), frame(index))
    return folder


def lines(path):
    return path.read_text().splitlines()


def check_files(result, output, name, frames):
    assert sorted(path.name for path in output.iterdir()) == sorted(
        f"{name}{end}" for end in (".mp4", ".txt", "_time.txt", "_scores.txt"))
    boxes = [[int(v) for v in line.split("\t")] for line in lines(result.files["boxes"])]
    assert len(boxes) == frames
    assert np.abs(np.array(boxes) - [box(i) for i in range(frames)]).max() <= 1
    scores = [float(line) for line in lines(result.files["scores"])]
    assert scores == [1.0] + [0.75] * (frames - 1)
    assert len(lines(result.files["times"])) == frames
    capture = cv2.VideoCapture(str(result.files["video"]))
    seen = 0
    while capture.grab():
        seen += 1
    assert seen == frames


def test_video_file(film, tmp_path):
    source = open_source(str(film))
    assert (source.name, source.length, source.fps, source.live) == ("film", FRAMES, 12, False)
    result = run_demo(BrightestTracker(), source, box(0), tmp_path / "out")
    check_files(result, tmp_path / "out", "film", FRAMES)
    assert cv2.VideoCapture(str(result.files["video"])).get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert not result.interrupted and result.fps > 0


def test_picture_folder_in_natural_order(pictures, tmp_path):
    for index in range(FRAMES, 12):
        cv2.imwrite(str(pictures / f"{index + 1}.png"), frame(index))
    result = run_demo(BrightestTracker(), open_source(str(pictures)), box(0), tmp_path / "out", fps=5)
    check_files(result, tmp_path / "out", "walk", 12)
    assert cv2.VideoCapture(str(result.files["video"])).get(cv2.CAP_PROP_FPS) == pytest.approx(5)


def test_the_drawing_follows_the_target(pictures, tmp_path):
    result = run_demo(BrightestTracker(), open_source(str(pictures)), box(0), tmp_path, debug=2)
    capture = cv2.VideoCapture(str(result.files["video"]))
    for index in range(FRAMES):
        image = capture.read()[1][..., ::-1].astype(int)
        inset = image[-25:, -25:].max()
        assert (inset > 200) == (index > 0), "the score map is drawn once there is one"
        edge = image[45:56, round(box(index)[0])].mean(axis=0)
        assert edge[0] > edge[2] + 40, f"frame {index}: the box's left edge is orange"


def test_max_frames_and_decimals(film, tmp_path):
    result = run_demo(BrightestTracker(), open_source(str(film)), [20.5, 40, 20, 20], tmp_path / "out", max_frames=3,
                      sub_pixel=True)
    assert len(lines(result.files["boxes"])) == 3
    assert lines(result.files["boxes"])[0].split("\t") == ["20.5000", "40.0000", "20.0000", "20.0000"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_keeps_what_was_tracked(film, tmp_path, number):
    class Stopping(BrightestTracker):
        tracked = 0

        def track(self, image):
            self.tracked += 1
            if self.tracked == 3:
                os.kill(os.getpid(), number)
            return super().track(image)

    before = signal.getsignal(number)
    result = run_demo(Stopping(), open_source(str(film)), box(0), tmp_path / "out")
    assert result.interrupted
    check_files(result, tmp_path / "out", "film", 4)
    assert signal.getsignal(number) is before


def test_unreadable_frame_keeps_the_ones_before(pictures, tmp_path):
    (pictures / "4.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"4\.png.*3 frames before it are in"):
        run_demo(BrightestTracker(), open_source(str(pictures)), box(0), tmp_path / "out")
    assert len(lines(tmp_path / "out/walk.txt")) == len(lines(tmp_path / "out/walk_scores.txt")) == 3
    assert cv2.VideoCapture(str(tmp_path / "out/walk.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_video_that_states_too_many_frames_ends_quietly(film, tmp_path, caplog):
    source = open_source(str(film))
    source._frames._length = source.length = FRAMES + 5
    result = run_demo(BrightestTracker(), source, box(0), tmp_path / "out")
    assert len(result.boxes_xywh) == FRAMES
    assert f"states {FRAMES + 5} frames but holds {FRAMES}" in caplog.text


@pytest.mark.parametrize("given, message", [
    ([500, 40, 20, 20], "outside the frame of 160 x 120"), ([20, 40, 0, 20], "w > 0"),
    ([20, 40, float("nan"), 20], "cannot be tracked"), (None, "--optional_box X Y W H"),
])
def test_unusable_target_writes_nothing(film, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        run_demo(BrightestTracker(), open_source(str(film)), given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [{"max_frames": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_options_out_of_range(film, tmp_path, option):
    with pytest.raises(UserError, match=next(iter(option))):
        run_demo(BrightestTracker(), open_source(str(film)), box(0), tmp_path / "out", **option)


def test_unreadable_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 100)
    for name in ("missing.mp4", "empty", "broken.mp4"):
        with pytest.raises(UserError, match=name):
            open_source(str(tmp_path / name))


class FakeDisplay:
    """A window whose user draws the boxes and presses the keys given."""

    def __init__(self, boxes, keys=""):
        self.boxes, self.keys, self.shown = list(boxes), list(keys), 0

    def select(self, image):
        return self.boxes.pop(0)

    def show(self, image):
        self.shown += 1
        return self.keys.pop(0) if self.keys else ""


def test_box_drawn_by_the_user_and_keys(film, tmp_path):
    window = FakeDisplay([box(0), [30.0, 40.0, 10.0, 10.0]], ["", "r", "", "q"])
    result = run_demo(BrightestTracker(), open_source(str(film)), None, tmp_path / "out", display=window)
    assert window.shown == len(result.boxes_xywh) == 4
    assert result.boxes_xywh[0] == box(0) and result.boxes_xywh[2] == [30, 40, 10, 10]
    assert result.scores == [1, 0.75, 1, 0.75]
    with pytest.raises(UserError, match="no box was drawn"):
        run_demo(BrightestTracker(), open_source(str(film)), None, tmp_path / "out", display=FakeDisplay([None]))


def test_no_display_without_screen_or_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(display.cv2, "getBuildInformation", lambda: "  GUI:                  QT5\n")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not display.can_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert display.can_display()
    monkeypatch.setattr(display.cv2, "getBuildInformation", lambda: "  GUI:                  NONE\n")
    assert not display.can_display()


class FakeCapture:
    """cv2.VideoCapture of a camera that gives `FRAMES` frames and is then unplugged."""

    def __init__(self, number):
        self.number, self.index, self.released = number, 0, False

    def isOpened(self):  # noqa: N802
        return self.number == 0

    def get(self, key):
        return 0.0

    def read(self):
        self.index += 1
        return (True, frame(self.index - 1)) if self.index <= FRAMES else (False, None)

    def release(self):
        self.released = True


def test_camera(tmp_path, monkeypatch):
    real = cv2.VideoCapture
    monkeypatch.setattr(sources.cv2, "VideoCapture",
                        lambda what: FakeCapture(what) if isinstance(what, int) else real(what))
    source = open_source("0")
    assert (source.name, source.live, source.length, source.fps) == ("camera0", True, None, sources.DEFAULT_FPS)
    run_demo(BrightestTracker(), source, box(0), tmp_path / "a", max_frames=3)
    assert len(lines(tmp_path / "a/camera0.txt")) == 3
    assert source._capture.released
    with pytest.raises(UserError, match="camera 0 gives no more frames"):
        run_demo(BrightestTracker(), open_source("0"), box(0), tmp_path / "b")
    assert len(lines(tmp_path / "b/camera0.txt")) == FRAMES
    with pytest.raises(UserError, match="cannot open camera 7"):
        open_source("7")


def test_empty_source(tmp_path):
    class Empty(Source):
        name, fps, length, live = "empty", 25.0, 0, False

        def __iter__(self):
            yield from ()

    with pytest.raises(UserError, match="no frame"):
        run_demo(BrightestTracker(), Empty(), box(0), tmp_path)


@pytest.fixture
def script(root, monkeypatch):
    """`tracking/video_demo.py` with its arguments, run from here; returns its exit status."""
    main = runpy.run_path(str(root / "tracking/video_demo.py"), run_name="video_demo")["main"]

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["video_demo.py", *map(str, arguments)])
        return main()

    return run


TINY = ["MODEL.BACKBONE.EMBED_DIM=48", "MODEL.BACKBONE.NUM_HEADS=3", "MODEL.HEAD.NUM_CHANNELS=16"]
SET = [part for key in TINY for part in ("--set", key)]


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of a tiny student."""
    torch.manual_seed(0)
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", TINY)
    save_slim(tmp_path / "weights.pth.tar", build_for_test(cfg), cfg, {})
    return tmp_path / "weights.pth.tar"


def test_script_tracks_with_a_model(script, film, checkpoint, tmp_path):
    status = script("compresstracker", "compresstracker_vitb_256_4", film, "--optional_box", 20, 40, 20, 20,
                    "--checkpoint", checkpoint, "--device", "cpu", "--output", tmp_path / "out", "--no-display",
                    "--max_frames", 4, "--save_dir", tmp_path / "save", "--save_results", *SET)
    assert status == 0
    boxes = lines(tmp_path / "out/film.txt")
    assert len(boxes) == 4 and boxes[0] == "20\t40\t20\t20"
    assert lines(tmp_path / "save/test/tracking_results/compresstracker/compresstracker_vitb_256_4/video_film.txt") \
        == boxes
    assert all(0 <= float(score) <= 1 for score in lines(tmp_path / "out/film_scores.txt"))


def test_script_without_checkpoint_names_the_file(script, film, tmp_path):
    with pytest.raises(UserError, match="nothing.pth.tar"):
        script("compresstracker", "compresstracker_vitb_256_4", film, "--optional_box", 20, 40, 20, 20,
               "--checkpoint", tmp_path / "nothing.pth.tar", "--device", "cpu", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_default_folders(tmp_path, monkeypatch):
    settings = SimpleNamespace(save_dir=str(tmp_path / "s"), results_path=str(tmp_path / "r"))
    monkeypatch.setattr(demo, "env_settings", lambda: settings)
    assert demo.default_output() == tmp_path / "s/video_demo"
    assert demo.default_output(tmp_path) == tmp_path / "video_demo"
    result = demo.DemoResult()
    result.add([1.9, 2, 3, 4], 1.0, 0.1)
    path = demo.save_as_results(result, "ostrack", "some/folder/mine.yaml", "film")
    assert path == tmp_path / "r/ostrack/mine/video_film.txt" and path.read_text() == "1\t2\t3\t4\n"
