"""The demo's sources: films, folders of pictures, cameras and streams; a slow tracker, silence and errors."""

import csv
import os
import signal
import threading
import time
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from demo_fakes import FRAMES, SIZE, Brightest, FakeCapture, SilentCapture, box, brightest, frame, lines
from square_runs import wait_until

from lib.test.tracker import sources
from lib.test.tracker.demo import run_demo
from lib.test.tracker.live import LiveTracker
from lib.test.tracker.sources import open_source
from lib.utils.errors import UserError
from lib.vis.video import VideoWriter


def test_video_that_states_too_many_frames_ends_quietly(film, tmp_path, caplog):
    source = open_source(str(film))
    source._frames._length = source.length = FRAMES + 5
    result = run_demo(brightest(), source, [box(0)], tmp_path / "out")
    assert len(result.targets) == FRAMES
    assert f"states {FRAMES + 5} frames but holds {FRAMES}" in caplog.text


def test_a_video_that_states_too_few_frames_is_followed_to_its_end(film, tmp_path, caplog):
    source = open_source(str(film))
    source._frames._length = source.length = FRAMES - 3
    result = run_demo(brightest(), source, [box(0)], tmp_path / "out")
    assert [targets[0].box[0] for targets in result.targets] == [box(index)[0] for index in range(FRAMES)]
    assert f"states {FRAMES - 3} frames but holds {FRAMES}" in caplog.text


def test_a_film_of_less_than_a_frame_per_second(tmp_path):
    with VideoWriter(tmp_path / "slow.mp4", 0.5, SIZE) as video:
        for index in range(3):
            video.write(frame(index))
    source = open_source(str(tmp_path / "slow.mp4"))
    assert (source.fps, [shot.seconds for shot in source.frames()]) == (0.5, [0, 2, 4])


def test_a_folder_of_pictures_has_its_sequence_name(pictures):
    (pictures.parent / "run").mkdir()
    pictures.rename(pictures.parent / "run" / "img")
    for folder in ("run", "run/img"):
        assert open_source(str(pictures.parent / folder)).name == "run"


def test_unreadable_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 100)
    for name in ("missing.mp4", "empty", "broken.mp4"):
        with pytest.raises(UserError, match=name):
            open_source(str(tmp_path / name))


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

    capture = SilentCapture()
    source = sources.LiveSource(capture, "silent", "the connection was lost")
    started = time.monotonic()
    with pytest.raises(UserError, match="silent gives no more frames after 2; the connection was lost"):
        run_demo(brightest(), source, [box(0)], tmp_path)
    assert time.monotonic() - started < 3
    capture.wake.set()
    assert len(lines(tmp_path / "silent.txt")) == 2


def test_who_waits_is_asked_in_silence_and_the_thread_reads_on():
    capture, asked = SilentCapture(), []
    source = sources.LiveSource(capture, "silent", "gone")

    def stopped():
        asked.append(threading.current_thread())
        if len(asked) == 3:
            capture.wake.set()
            wait_until(lambda: source._reader.count > 2, 10)
        return False

    wait_until(lambda: source._reader.count == 2)
    with closing(source.frames(stopped)) as frames:
        first = next(frames)
        assert (first.image == frame(1)).all() and not asked, "a frame is there, nobody waits"
        second = next(frames)
    assert (second.image == frame(1 + second.number)).all() and second.number > 0
    assert asked == [threading.main_thread()] * 3


def test_frames_that_came_while_the_user_was_drawing_are_seen(monkeypatch):
    """A box drawn anew takes longer than the patience with a silent source."""
    monkeypatch.setattr(sources, "PATIENCE", 0.5)
    capture = SilentCapture()
    source = sources.LiveSource(capture, "silent", "gone")

    def draws():
        capture.wake.set()
        wait_until(lambda: source._reader.count > 2, 10)
        time.sleep(0.6)
        return False

    wait_until(lambda: source._reader.count == 2)
    with closing(source.frames(draws)) as frames:
        assert next(frames).number < next(frames).number


def test_a_silent_source_ends_when_nobody_waits_any_longer():
    capture, answers = SilentCapture(), [False, True, True]
    source = sources.LiveSource(capture, "silent", "gone")
    wait_until(lambda: source._reader.count == 2)
    assert len(list(source.frames(lambda: answers.pop(0)))) == 1 and not answers
    capture.wake.set()


def test_streams_are_named_without_the_password(fake_capture):
    assert open_source("rtsp://user:secret@host:554/street/1").name == "host_554_street_1"
    with pytest.raises(UserError, match="cannot open the stream rtsp://elsewhere/1;") as error:
        open_source("rtsp://user:secret@elsewhere/1")
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="address"):
        open_source("rtsp://[::1")


def test_a_film_over_http_is_read_in_order(film, tmp_path):
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
        assert not source.live and source.length == FRAMES
        result = run_demo(brightest(), source, [box(0)], tmp_path / "out")
        lost = open_source(f"{address}/film.avi")
        server.shutdown()
    assert source.name == f"127.0.0.1_{server.server_port}_film.avi"
    assert [targets[0].box[0] for targets in result.targets] == [box(index)[0] for index in range(FRAMES)]
    assert len(lines(tmp_path / "out" / f"{source.name}.txt")) == FRAMES
    with pytest.raises(UserError, match=f"{address}/film.avi can no longer be opened"):
        next(lost.frames())


def test_two_pictures_for_one_frame_are_refused(pictures):
    first = min(pictures.iterdir())
    (pictures / f"{first.stem}.bmp").write_bytes(first.read_bytes())
    with pytest.raises(UserError, match=first.stem):
        open_source(str(pictures))


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
