"""The demo: tracking with everything written and drawn, the window, stopping, and errors."""

import csv
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from demo_fakes import FRAMES, Brightest, FakeDisplay, box, brightest, frame, lines

from lib.test.tracker import demo, display
from lib.test.tracker.demo import parts_table, run_demo
from lib.test.tracker.live import LiveTracker, Result
from lib.test.tracker.lost import LostRule
from lib.test.tracker.sources import Frame, Source, open_source
from lib.utils.errors import UserError
from lib.utils.frames import open_frames
from lib.utils.parts import PartTimes
from lib.vis.draw import VideoWriter


def check_files(result, output, name, frames):
    assert sorted(path.name for path in output.iterdir() if path.name[0] != ".") == sorted(
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
    for _ in range(2):
        result = run_demo(brightest(), open_source(str(path)), [box(0)], ".")
        assert path.read_bytes() == before and result.files["video"].name == "film-2.mp4"


def test_films_of_one_name_keep_their_files_apart(film, tmp_path, caplog):
    films = [tmp_path / place / "clip.mp4" for place in "ab"]
    for path in films:
        path.parent.mkdir()
        shutil.copy(film, path)
    with caplog.at_level("INFO"):
        first, second, again = (run_demo(brightest(), open_source(str(path)), [box(0)], tmp_path / "out").files
                                for path in (*films, films[0]))
    assert (first["table"].name, second["table"].name, again["table"].name) == ("clip.csv", "clip-2.csv", "clip.csv")
    assert len(list((tmp_path / "out").glob("clip*.mp4"))) == 2
    assert "has files of another clip, so those of this one are called clip-2" in caplog.text


def test_the_table_has_the_time_stamps_of_the_film(film, monkeypatch):
    stamps = [0, 40, 80, 200, 320, 320, 300, 400]    # of a variable frame rate; two do not rise
    source = open_source(str(film))
    monkeypatch.setattr(source._frames, "seconds", lambda index: (1000 + stamps[index]) / 1000)
    times = [frame.seconds for frame in source.frames()]
    assert times == pytest.approx([0, 0.04, 0.08, 0.2, 0.32, 0.32 + 1 / 12, 0.32 + 2 / 12, 0.32 + 3 / 12])
    frames = open_source(str(film))._frames
    assert frames.seconds(3) is None
    frames[3]
    assert frames.seconds(3) == pytest.approx(3 / 12)


def test_a_film_may_have_any_ending(film, tmp_path):
    assert len(open_frames(film.rename(tmp_path / "film.dat"))) == FRAMES
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(UserError, match="cannot open the video .*text.mp4"):
        len(open_frames(tmp_path / "text.mp4"))
    (tmp_path / "one.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="one.jpg is one picture; name a video file or the folder"):
        open_frames(tmp_path / "one.jpg")


@pytest.mark.parametrize("option", [{"max_frames": 0}, {"fps": 0.0}, {"fps": float("nan")}])
def test_options_out_of_range(film, tmp_path, option):
    with pytest.raises(UserError, match=next(iter(option))):
        run_demo(brightest(), open_source(str(film)), [box(0)], tmp_path / "out", **option)


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


class Silent(Source):
    """A live source that gives `given` frames, and then none until it need not be waited for."""

    name, fps, length, live = "silent", 25.0, None, True

    def __init__(self, given):
        self.given = given

    def frames(self, stopped):
        yield from (Frame(frame(index), index, index / self.fps) for index in range(self.given))
        while not stopped():
            pass


@pytest.mark.parametrize("end", ["q", "\x1b"])
def test_keys_in_the_silence_of_a_live_source(tmp_path, end):
    window = FakeDisplay([[30.0, 40.0, 10.0, 10.0]], silent_keys=["", "r", "", end])
    result = run_demo(brightest(), Silent(3), [box(0)], tmp_path, display=window)
    assert not window.boxes and not window.silent_keys and window.shown == len(result.targets) == 3
    assert result.boxes_xywh().tolist() == [box(0), box(1), [30, 40, 10, 10]] and result.scores() == [1, 0.75, 1]
    assert not result.interrupted and lines(result.files["boxes"])[2] == "30\t40\t10\t10"


def test_keys_before_the_first_frame(tmp_path):
    window = FakeDisplay([], silent_keys="rq")
    with pytest.raises(UserError, match="silent had given no frame yet when the run was ended"):
        run_demo(brightest(), Silent(0), [box(0)], tmp_path / "out", display=window)
    assert not window.silent_keys and not (tmp_path / "out").exists()


def fake_screen(monkeypatch, keys=(), visible=(), gone=False):
    """A window of OpenCV in which `keys` are pressed, -1 for none, and that says whether it is `visible` where none is,
    an exception for an error; `gone`: it cannot be destroyed any more. Returns what it has shown, and its sizes."""
    shown, sizes, keys, visible = [], [], list(keys), list(visible)

    def tell(title, what):
        said = visible.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def destroy(title):
        if gone:
            raise cv2.error("NULL guiReceiver")

    monkeypatch.setattr(display, "cv2", SimpleNamespace(
        WINDOW_NORMAL=0, WINDOW_KEEPRATIO=0, WND_PROP_VISIBLE=4, COLOR_RGB2BGR=cv2.COLOR_RGB2BGR, error=cv2.error,
        cvtColor=cv2.cvtColor, namedWindow=lambda *_: None, destroyWindow=destroy, getWindowProperty=tell,
        imshow=lambda title, image: shown.append(image[0, 0].tolist()),
        resizeWindow=lambda title, width, height: sizes.append((width, height)),
        selectROI=lambda title, image, fromCenter: (1, 2, 3, 4), waitKey=lambda wait: keys.pop(0)))
    return shown, sizes


def test_a_window_shows_and_refreshes(monkeypatch):
    shown, _ = fake_screen(monkeypatch, [-1, ord("q") | 0x100000, ord("r")], [1.0])
    window = display.Display("film")
    assert [window.refresh(), window.show(np.array([[[1, 2, 3]]], np.uint8)), window.refresh()] == ["", "q", "r"]
    assert shown == [[3, 2, 1]]
    window.close()


@pytest.mark.parametrize(("visible", "keys"), [
    ([1.0, 1.0, 0.0], ["", "", "q"]), ([1.0, cv2.error("NULL guiReceiver"), 1.0], ["", "q", ""]),
    ([-1.0, -1.0, -1.0], ["", "", ""])])
def test_closing_the_window_ends(monkeypatch, visible, keys):
    """Where OpenCV tells: some systems always answer -1."""
    fake_screen(monkeypatch, [-1] * 3, visible, gone=True)
    window = display.Display("film")
    assert [window.refresh() for _ in range(3)] == keys
    window.close()


@pytest.mark.parametrize(("frame_size", "size"), [
    ((320, 240), (640, 480)), ((1000, 500), (1280, 640)), ((3840, 2160), (1280, 720)), ((400, 1600), (200, 800))])
def test_the_first_frame_gives_the_window_its_size(monkeypatch, frame_size, size):
    _, sizes = fake_screen(monkeypatch, [-1] * 2, [1.0] * 2)
    window = display.Display("film")
    image = np.zeros((*frame_size[::-1], 3), np.uint8)
    assert window.select(image) == [1, 2, 3, 4]
    window.show(image)
    window.show(image[:10, :10])
    assert sizes == [size]


def test_a_box_that_is_not_drawn_anew_stays(film, tmp_path):
    window = FakeDisplay([None, [5.0, 6.0, 7.0, 8.0]], ["", "r", "q"])
    result = run_demo(brightest(), open_source(str(film)), [box(0), box(0)], tmp_path, display=window)
    assert result.targets[1][0].box != [5, 6, 7, 8] and result.targets[1][1] == Result([5, 6, 7, 8], 1.0, False)
    assert result.boxes_xywh(1)[2, 2:].tolist() == [7, 8]


def test_several_targets_have_files_of_their_own(film, tmp_path):
    boxes = [box(0), [1.0, 2.0, 30.0, 40.0]]
    tmp_path = tmp_path / "out"
    result = run_demo(brightest(), open_source(str(film)), boxes, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("film*")) == sorted(
        ["film.mp4", "film.csv", *(f"film_{n}{end}" for n in (1, 2)
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


def test_empty_source(tmp_path):
    class Empty(Source):
        name, fps, length, live = "empty", 25.0, 0, False

        def frames(self, stopped):
            yield from ()

    with pytest.raises(UserError, match="no frame"):
        run_demo(brightest(), Empty(), [box(0)], tmp_path)


def test_default_folders(tmp_path, monkeypatch):
    settings = SimpleNamespace(save_dir=str(tmp_path / "s"), results_path=str(tmp_path / "r"))
    monkeypatch.setattr(demo, "env_settings", lambda: settings)
    assert demo.default_output() == tmp_path / "s/video_demo"
    assert demo.default_output(tmp_path) == tmp_path / "video_demo"
    result = demo.DemoResult(name="film")
    result.add(Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0), [Result([1.9, 2, 3, 4], 1.0, False)], 0.1)
    path, = demo.save_as_results(result, "ostrack", "mine")
    assert path == tmp_path / "r/ostrack/mine/video_film.txt" and path.read_text() == "1\t2\t3\t4\n"
    result.targets[0] *= 2
    paths = demo.save_as_results(result, "ostrack", "mine")
    assert [path.name for path in paths] == ["video_film_1.txt", "video_film_2.txt"]
