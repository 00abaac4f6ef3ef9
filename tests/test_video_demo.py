"""The demo: sources of frames, tracking with everything written, stopping, and errors."""

import csv
import logging
import os
import runpy
import signal
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.deploy.export import ExportOptions, export_model
from lib.models.build import build_for_test
from lib.models.checkpoint import load_weights, save_slim
from lib.test.tracker import demo, display, sources
from lib.test.tracker.demo import parts_table, run_demo
from lib.test.tracker.live import LiveTracker, Result
from lib.test.tracker.lost import LostRule
from lib.test.tracker.sources import Frame, Source, open_source
from lib.test.tracker.tracker import Target, TrackResult, check_box
from lib.utils.errors import UserError
from lib.utils.parts import PartTimes
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


class Brightest:
    """Finds the white square for every target: a run-time tracker without a network."""

    parts = None
    score = 0.75

    def start(self, image, box_xywh):
        return Target(check_box(box_xywh, *image.shape[:2]), torch.zeros(1))

    def step(self, images, targets):
        results = []
        for image, target in zip(images, targets, strict=True):
            rows, columns = np.nonzero(image[..., 0] > 200)
            target.box_xywh = [float(columns.min()), float(rows.min()), *target.box_xywh[2:]]
            results.append(TrackResult(list(target.box_xywh), self.score, np.eye(16, dtype=np.float32)))
        return results


def brightest(**options):
    return LiveTracker(Brightest(), **options)


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
        f"{name}{end}" for end in (".mp4", ".csv", ".txt", "_time.txt", "_scores.txt"))
    boxes = [[int(v) for v in line.split("\t")] for line in lines(result.files["boxes"])]
    assert len(boxes) == frames
    assert np.abs(np.array(boxes) - [box(i) for i in range(frames)]).max() <= 1
    scores = [float(line) for line in lines(result.files["scores"])]
    assert scores == [1.0] + [0.75] * (frames - 1)
    assert len(lines(result.files["times"])) == frames
    table = list(csv.DictReader(lines(result.files["table"])))
    assert [int(row["frame"]) for row in table] == list(range(frames)) and {row["target"] for row in table} == {"1"}
    assert np.abs([float(row["x"]) - box(i)[0] for i, row in enumerate(table)]).max() <= 1
    capture = cv2.VideoCapture(str(result.files["video"]))
    seen = 0
    while capture.grab():
        seen += 1
    assert seen == frames


def test_video_file(film, tmp_path):
    source = open_source(str(film))
    assert (source.name, source.length, source.fps, source.live) == ("film", FRAMES, 12, False)
    result = run_demo(brightest(), source, [box(0)], tmp_path / "out")
    check_files(result, tmp_path / "out", "film", FRAMES)
    assert cv2.VideoCapture(str(result.files["video"])).get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert not result.interrupted and result.fps > 0


def test_picture_folder_in_natural_order(pictures, tmp_path):
    for index in range(FRAMES, 12):
        cv2.imwrite(str(pictures / f"{index + 1}.png"), frame(index))
    result = run_demo(brightest(), open_source(str(pictures)), [box(0)], tmp_path / "out", fps=5)
    check_files(result, tmp_path / "out", "walk", 12)
    assert cv2.VideoCapture(str(result.files["video"])).get(cv2.CAP_PROP_FPS) == pytest.approx(5)


def test_the_drawing_follows_the_target(pictures, tmp_path):
    result = run_demo(brightest(), open_source(str(pictures)), [box(0)], tmp_path, debug=2)
    capture = cv2.VideoCapture(str(result.files["video"]))
    for index in range(FRAMES):
        image = capture.read()[1][..., ::-1].astype(int)
        inset = image[-25:, -25:].max()
        assert (inset > 200) == (index > 0), "the score map is drawn once there is one"
        edge = image[45:56, round(box(index)[0])].mean(axis=0)
        assert edge[0] > edge[2] + 40, f"frame {index}: the box's left edge is orange"


def test_max_frames_and_decimals(film, tmp_path):
    result = run_demo(brightest(), open_source(str(film)), [[20.5, 40, 20, 20]], tmp_path / "out", max_frames=3,
                      sub_pixel=True)
    assert len(lines(result.files["boxes"])) == 3
    assert lines(result.files["boxes"])[0].split("\t") == ["20.5000", "40.0000", "20.0000", "20.0000"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_keeps_what_was_tracked(film, tmp_path, number):
    class Stopping(Brightest):
        tracked = 0

        def step(self, images, targets):
            self.tracked += 1
            if self.tracked == 3:
                os.kill(os.getpid(), number)
            return super().step(images, targets)

    before = signal.getsignal(number)
    result = run_demo(LiveTracker(Stopping()), open_source(str(film)), [box(0)], tmp_path / "out")
    assert result.interrupted
    check_files(result, tmp_path / "out", "film", 4)
    assert signal.getsignal(number) is before


def test_unreadable_frame_keeps_the_ones_before(pictures, tmp_path):
    (pictures / "4.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"4\.png.*3 frames before it are in"):
        run_demo(brightest(), open_source(str(pictures)), [box(0)], tmp_path / "out")
    assert len(lines(tmp_path / "out/walk.txt")) == len(lines(tmp_path / "out/walk_scores.txt")) == 3
    assert cv2.VideoCapture(str(tmp_path / "out/walk.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_video_that_states_too_many_frames_ends_quietly(film, tmp_path, caplog):
    source = open_source(str(film))
    source._frames._length = source.length = FRAMES + 5
    result = run_demo(brightest(), source, [box(0)], tmp_path / "out")
    assert len(result.targets) == FRAMES
    assert f"states {FRAMES + 5} frames but holds {FRAMES}" in caplog.text


@pytest.mark.parametrize("given, message", [
    ([500, 40, 20, 20], "outside the frame of 160 x 120"), ([20, 40, 0, 20], "w > 0"),
    ([20, 40, float("nan"), 20], "cannot be tracked"), (None, "--box X Y W H"),
])
def test_unusable_target_writes_nothing(film, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        run_demo(brightest(), open_source(str(film)), given and [given], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_video_that_is_read_is_not_written_over(film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = film.rename(tmp_path / "film.mp4")
    before = path.read_bytes()
    with pytest.raises(UserError, match="written over the one that is read, .*film.mp4.*--output"):
        run_demo(brightest(), open_source(str(path)), [box(0)], ".")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    assert len(run_demo(brightest(), open_source(str(path)), [box(0)], tmp_path / "out").targets) == FRAMES


def test_a_folder_of_pictures_has_its_sequence_name(pictures):
    (pictures.parent / "run").mkdir()
    pictures.rename(pictures.parent / "run" / "img")
    for folder in ("run", "run/img"):
        assert open_source(str(pictures.parent / folder)).name == "run"


@pytest.mark.parametrize("option", [{"max_frames": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_options_out_of_range(film, tmp_path, option):
    with pytest.raises(UserError, match=next(iter(option))):
        run_demo(brightest(), open_source(str(film)), [box(0)], tmp_path / "out", **option)


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
    result = run_demo(brightest(), open_source(str(film)), None, tmp_path / "out", display=window)
    assert window.shown == len(result.targets) == 4
    boxes = result.boxes_xywh()
    assert boxes[0].tolist() == box(0) and boxes[1].tolist() == [30, 40, 10, 10]
    assert boxes[2].tolist() == [26, 40, 10, 10], "tracked on from the new box"
    assert result.scores() == [1, 1, 0.75, 0.75]
    with pytest.raises(UserError, match="no box was drawn"):
        run_demo(brightest(), open_source(str(film)), None, tmp_path / "out", display=FakeDisplay([None]))


def test_a_box_that_is_not_drawn_anew_stays(film, tmp_path):
    window = FakeDisplay([None, [5.0, 6.0, 7.0, 8.0]], ["", "r", "q"])
    result = run_demo(brightest(), open_source(str(film)), [box(0), box(0)], tmp_path, display=window)
    assert result.targets[1][0].box != [5, 6, 7, 8] and result.targets[1][1] == Result([5, 6, 7, 8], 1.0, False)
    assert result.boxes_xywh(1)[2, 2:].tolist() == [7, 8]


def test_several_targets_have_files_of_their_own(film, tmp_path):
    boxes = [box(0), [1.0, 2.0, 30.0, 40.0]]
    result = run_demo(brightest(), open_source(str(film)), boxes, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("film*")) == sorted(
        ["film.avi", "film.mp4", "film.csv", *(f"film_{n}{end}" for n in (1, 2)
                                               for end in (".txt", "_time.txt", "_scores.txt"))])
    assert lines(tmp_path / "film_2.txt")[:2] == ["1\t2\t30\t40", lines(tmp_path / "film_2.txt")[1]]
    assert lines(tmp_path / "film_2.txt")[3].endswith("\t30\t40")
    table = list(csv.DictReader(lines(result.files["table"])))
    assert [row["target"] for row in table[:4]] == ["1", "2", "1", "2"] and len(table) == 2 * FRAMES
    assert [table[4][column] for column in ("frame", "time", "score", "lost")] == ["2", "0.167", "0.750000", "0"]


def test_lost_targets_are_said_and_drawn(film, tmp_path):
    tracker = brightest(lost=LostRule(0.8, 0.9, 3))
    result = run_demo(tracker, open_source(str(film)), [box(0)], tmp_path / "out")
    assert [results[0].lost for results in result.targets] == [False] * 3 + [True] * 5
    table = list(csv.DictReader(lines(result.files["table"])))
    assert [row["lost"] for row in table] == ["0"] * 3 + ["1"] * 5
    capture = cv2.VideoCapture(str(result.files["video"]))
    edges = [capture.read()[1][45:56, round(box(i)[0])].astype(int).mean(axis=0) for i in range(FRAMES)]
    assert edges[1][2] > edges[1][0] + 40 and abs(edges[6][2] - edges[6][0]) < 20, "orange, then grey"


def test_models_without_scores(film, tmp_path):
    tracker = brightest()
    tracker.tracker.score = float("nan")
    result = run_demo(tracker, open_source(str(film)), [box(0)], tmp_path)
    assert not any(results[0].lost for results in result.targets)
    assert list(csv.DictReader(lines(result.files["table"])))[3]["score"] == ""


def test_a_frame_of_another_size_takes_the_boxes_along(pictures, tmp_path, caplog):
    for index in range(5, FRAMES):
        cv2.imwrite(str(pictures / f"{index + 1}.png"), cv2.resize(frame(index), (80, 60)))
    result = run_demo(brightest(), open_source(str(pictures)), [box(0)], tmp_path / "out")
    assert "160 x 120 to 80 x 60" in caplog.text and len(result.targets) == FRAMES
    assert result.boxes_xywh()[5, 2:].tolist() == [10, 10]


def test_a_frame_of_another_shape_is_refused(pictures, tmp_path):
    cv2.imwrite(str(pictures / "6.png"), np.zeros((120, 120, 3), np.uint8))
    with pytest.raises(UserError, match=r"120 x 120.*160 x 120.*5 frames before it are in"):
        run_demo(brightest(), open_source(str(pictures)), [box(0)], tmp_path / "out")
    assert len(lines(tmp_path / "out/walk.txt")) == 5


def test_benchmark_tells_every_part(film, tmp_path):
    parts = PartTimes()
    tracker = brightest()
    result = run_demo(tracker, open_source(str(film)), [box(0)], tmp_path, parts=parts)
    assert tracker.tracker.parts is parts
    assert list(parts.seconds) == ["wait", "draw", "write"]
    assert len(parts.seconds["draw"]) == len(parts.seconds["write"]) == FRAMES - 1
    assert result.wall > sum(result.seconds) > 0
    parts.seconds = {"wait": [0.001, 0.001, 0.5], "network": [0.003]}
    result.seconds, result.wall = [0.5, 0.5], 4.0
    table = parts_table(parts, result)
    assert table[0].split() == ["wait", "1.00", "ms", "25.0%"] and "4.00 ms, 250.0 frames/s" in table[-2]
    assert table[-1] == "the tracker took 25.0% of the run's 4.0 s, 0.5 frames/s"


def test_an_error_of_the_encoder_ends_the_run(film, tmp_path, monkeypatch):
    def full(self, image, times=1):
        raise RuntimeError("no encoder")

    monkeypatch.setattr(VideoWriter, "write", full)
    with pytest.raises(RuntimeError, match="no encoder"):
        run_demo(brightest(), open_source(str(film)), [box(0)], tmp_path / "out")
    assert not any(path.suffix == ".mp4" for path in (tmp_path / "out").iterdir())


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
    """cv2.VideoCapture of a live source that gives `FRAMES` frames at a pace and is then gone."""

    def __init__(self, number, *_, seconds=0.02):
        self.number, self.index, self.released, self.seconds = number, 0, False, seconds

    def isOpened(self):  # noqa: N802
        return self.number in (0, "rtsp://user:secret@host:554/street/1")

    def get(self, key):
        return 0.0

    def read(self):
        time.sleep(self.seconds)
        self.index += 1
        return (True, frame(self.index - 1)) if self.index <= FRAMES else (False, None)

    def release(self):
        self.released = True


@pytest.fixture
def fake_capture(monkeypatch):
    """Cameras and RTSP streams are `FakeCapture`s; files are files."""
    real = cv2.VideoCapture

    def choose(what, *options):
        live = isinstance(what, int) or what.startswith("rtsp:")
        return FakeCapture(what) if live else real(what, *options)

    monkeypatch.setattr(sources.cv2, "VideoCapture", choose)


def test_camera(tmp_path, fake_capture):
    source = open_source("0")
    assert (source.name, source.live, source.length, source.fps) == ("camera0", True, None, sources.DEFAULT_FPS)
    run_demo(brightest(), source, [box(0)], tmp_path / "a", max_frames=3)
    assert len(lines(tmp_path / "a/camera0.txt")) == 3
    assert source._capture.released
    with pytest.raises(UserError, match=rf"camera0 gives no more frames after {FRAMES}; was it unplugged.*before it"):
        run_demo(brightest(), open_source("0"), [box(0)], tmp_path / "b")
    assert cv2.VideoCapture(str(tmp_path / "b/camera0.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
    with pytest.raises(UserError, match="cannot open camera 7"):
        open_source("7")


def test_a_slow_tracker_drops_frames_and_does_not_lag(tmp_path, fake_capture):
    ages = []

    class Slow(Brightest):
        def step(self, images, targets):
            ages.append(source._capture.index - 1 - numbers[-1])
            time.sleep(0.05)
            return super().step(images, targets)

    class Noting(sources.LiveSource):
        def frames(self, stopped):
            for shown in super().frames(stopped):
                numbers.append(shown.number)
                yield shown

    numbers = []
    source = Noting(FakeCapture(0), "slow", "gone")
    with pytest.raises(UserError, match="gone"):
        run_demo(LiveTracker(Slow()), source, [box(0)], tmp_path)
    assert numbers[0] == 0 and len(numbers) < FRAMES and numbers == sorted(set(numbers))
    assert np.median(ages) <= 1, "the tracker works on the newest frame"
    table = list(csv.DictReader(lines(tmp_path / "slow.csv")))
    assert [int(row["frame"]) for row in table] == numbers
    assert float(table[-1]["time"]) == pytest.approx(0.02 * numbers[-1], abs=0.1)
    assert len(lines(tmp_path / "slow.txt")) == len(numbers)
    capture = cv2.VideoCapture(str(tmp_path / "slow.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == numbers[-1] + 1, "the video keeps the source's pace"


def test_a_silent_source_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE", 0.1)

    class Silent(FakeCapture):
        def read(self):
            if self.index == 2:
                released.wait(5)
                return False, None
            return super().read()

    released = threading.Event()
    source = sources.LiveSource(Silent(0), "silent", "the connection was lost")
    started = time.monotonic()
    threading.Timer(0.6, released.set).start()
    with pytest.raises(UserError, match="silent gives no more frames after 2; the connection was lost"):
        run_demo(brightest(), source, [box(0)], tmp_path)
    assert time.monotonic() - started < 3
    assert len(lines(tmp_path / "silent.txt")) == 2


def test_streams_are_named_without_the_password(fake_capture):
    assert open_source("rtsp://user:secret@host:554/street/1").name == "host_554_street_1"
    with pytest.raises(UserError, match="cannot open the stream rtsp://elsewhere/1;") as error:
        open_source("rtsp://user:secret@elsewhere/1")
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="address"):
        open_source("rtsp://[::1")


def test_a_stream_over_http(film, tmp_path):
    """FFmpeg itself reads the address, here of a server on this machine."""
    handler = partial(type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}),
                      directory=str(film.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            source = open_source(f"{address}/film.avi")
        except UserError:
            pytest.skip("this OpenCV reads no addresses (it has no FFmpeg)")
        with pytest.raises(UserError, match="the stream has ended"):
            run_demo(brightest(), source, [box(0)], tmp_path / "out")
        server.shutdown()
    assert source.name == f"127.0.0.1_{server.server_port}_film.avi"
    assert 1 <= len(lines(tmp_path / "out" / f"{source.name}.txt")) <= FRAMES


@pytest.fixture
def camera_over_http():
    """Address of a camera on this machine: JPEG pictures without an end, 40 a second, until `silent` is set."""

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            for index in range(10_000):
                data = cv2.imencode(".jpg", frame(index % FRAMES))[1].tobytes()
                try:
                    self.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
                                     % (len(data), data))
                except OSError:
                    return
                time.sleep(0.025)
                while camera.silent and not camera.over:
                    time.sleep(0.01)

        def log_message(self, *_):
            """Nothing."""

    camera = SimpleNamespace(address="", silent=False, over=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        camera.address = f"http://127.0.0.1:{server.server_port}/live"
        yield camera
        camera.over = True
        server.shutdown()


def test_a_live_stream_begins_with_the_newest_frame_and_stops_in_silence(camera_over_http, tmp_path):
    try:
        source = open_source(camera_over_http.address)
    except UserError:
        pytest.skip("this OpenCV reads no addresses (it has no FFmpeg)")
    assert source.live and source.length is None

    class Slow(Brightest):
        tracked = 0

        def step(self, images, targets):
            time.sleep(0.06)
            self.tracked += 1
            if self.tracked == 5:
                camera_over_http.silent = True
                threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
            return super().step(images, targets)

    begin = time.monotonic()
    while source._reader.count < 4 and time.monotonic() < begin + 5:
        time.sleep(0.01)
    before = source._reader.count
    assert before >= 4, "it is read before it is asked for"
    begin = time.monotonic()
    result = run_demo(LiveTracker(Slow()), source, [box(0)], tmp_path)
    assert result.interrupted and time.monotonic() - begin < sources.PATIENCE / 2
    assert result.numbers[0] == 0 and result.numbers[:6] != [0, 1, 2, 3, 4, 5] and result.dropped > 0
    assert source._reader.count >= before + result.numbers[-1]
    assert len(lines(result.files["boxes"])) == len(result.numbers) >= 6
    assert cv2.VideoCapture(str(result.files["video"])).get(cv2.CAP_PROP_FRAME_COUNT) == result.numbers[-1] + 1


def test_empty_source(tmp_path):
    class Empty(Source):
        name, fps, length, live = "empty", 25.0, 0, False

        def frames(self, stopped):
            yield from ()

    with pytest.raises(UserError, match="no frame"):
        run_demo(brightest(), Empty(), [box(0)], tmp_path)


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


def test_script_runs_every_backend(script, film, checkpoint, tmp_path, caplog):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", TINY)
    model = build_for_test(cfg)
    load_weights(model, checkpoint, role="test")
    export_model(model.eval(), cfg, checkpoint, tmp_path / "export", ExportOptions("torchscript"))

    def track(name, *options):
        assert script("compresstracker", "compresstracker_vitb_256_4", film, "--box", 20, 40, 20, 20, "--box", 60, 30,
                      30, 40, "--device", "cpu", "--output", tmp_path / name, "--float", "--max_frames", 4,
                      "--no-display", "--benchmark", "--save_dir", tmp_path, "--save_results", *options) == 0
        return np.stack([np.loadtxt(tmp_path / name / f"film_{target}.txt") for target in (1, 2)])

    with caplog.at_level(logging.INFO):
        weights = "--checkpoint", checkpoint, *SET
        plain, fast = track("plain", *weights), track("fast", *weights, "--backend", "fast")
        export = track("export", "--exported", tmp_path / "export", "--backend", "torchscript")
    assert plain.shape == (2, 4, 4)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=0.05)
    np.testing.assert_allclose(export, plain, rtol=0, atol=0.05)
    assert caplog.text.count("median time of the parts of a frame") == 3
    results = tmp_path / "test/tracking_results/compresstracker"
    assert {path.name.removeprefix("compresstracker_vitb_256_4") for path in results.iterdir()} \
        == {"", "_fast", "_torchscript"}


def test_script_refuses_options_that_exclude_each_other(script, film, capsys):
    with pytest.raises(SystemExit):
        script("ostrack", "quickstart_teacher", film, "--backend", "onnxruntime")
    assert "needs --exported FOLDER" in capsys.readouterr().err


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
    result.add(Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0), [Result([1.9, 2, 3, 4], 1.0, False)], 0.1)
    path, = demo.save_as_results(result, "ostrack", "mine", "film")
    assert path == tmp_path / "r/ostrack/mine/video_film.txt" and path.read_text() == "1\t2\t3\t4\n"
    result.targets[0] *= 2
    paths = demo.save_as_results(result, "ostrack", "mine", "film")
    assert [path.name for path in paths] == ["video_film_1.txt", "video_film_2.txt"]
