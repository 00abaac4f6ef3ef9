"""OpenCV's trackers as baselines: from the command line and behind the run-time tracker's interface."""

import json
import logging

import cv2
import numpy as np
import pytest
from demo_fakes import box, frame
from square_runs import load_script

from lib.test.evaluation import manifest
from lib.test.tracker import opencv
from lib.test.tracker.choice import choose_tracker, parse_tracker
from lib.test.tracker.live import LiveTracker
from lib.test.tracker.opencv import KINDS, OpenCVTracker, find_files
from lib.test.tracker.redetect import Redetection
from lib.utils.errors import UserError
from lib.utils.parts import PartTimes


class Scripted:
    """In OpenCV's place: says what it is told to, and keeps what it was given."""

    answers = ((True, (7, 8, 9, 10), 0.5), (False, (0, 0, 0, 0), 0.1), (True, (1, 2, 3, 4), -1.0))

    def init(self, image, given):
        self.first, self.given, self.left = image, given, list(self.answers)

    def update(self, image):
        found, where, self.score = self.left.pop(0)
        return found, where

    def getTrackingScore(self):
        return self.score


@pytest.fixture
def scripted(monkeypatch):
    """An `OpenCVTracker` around `Scripted`."""
    monkeypatch.setattr(cv2, "TrackerMIL_create", Scripted)
    return OpenCVTracker("mil")


@pytest.fixture
def test_script(root, tmp_path):
    """`test_script(*arguments)`: tracking/test.py's main in this process, results below tmp_path."""
    return lambda *arguments: load_script(root / "tracking" / "test.py").main(
        [*arguments, "--save_dir", str(tmp_path / "out")])


def published(name):
    """The files of a network, or the test is skipped."""
    try:
        return find_files(name)
    except UserError as error:
        pytest.skip(str(error))


def overlap(one, other):
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    inside = max(0, right - left) * max(0, bottom - top)
    return inside / (one[2] * one[3] + other[2] * other[3] - inside)


def test_boxes_and_scores_are_opencvs(scripted):
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = 200     # red
    scripted.initialize(image, [10.4, 5.6, 20.3, 10.2])
    results = [scripted.track(image) for _ in range(3)]
    inside = scripted._target.tracker
    assert inside.given == (10, 6, 21, 10) and inside.first[0, 0].tolist() == [0, 0, 200]
    assert [result.box_xywh for result in results] == [[7, 8, 9, 10], [7, 8, 9, 10], [1, 2, 3, 4]]
    assert results[0].score == 0.5 and results[1].score == 0.1 and np.isnan(results[2].score)


@pytest.mark.parametrize("given, inside", [([-5, -5, 25, 15], (0, 0, 20, 10)), ([50, 30, 40, 40], (50, 30, 10, 10))])
def test_a_first_box_is_cut_off_at_the_frame(scripted, given, inside):
    target = scripted.start(np.zeros((40, 60, 3), np.uint8), given)
    assert target.tracker.given == inside


def test_mil_stays_at_a_still_square_and_its_part_is_timed():
    image = np.random.default_rng(0).integers(0, 80, (120, 160, 3), dtype=np.uint8)
    image[40:60, 60:80] = 230
    tracker = OpenCVTracker("mil", device="auto", benchmark="lasot")
    tracker.parts = PartTimes(tracker.device)
    tracker.initialize(image, [60, 40, 20, 20])
    boxes = [tracker.track(image).box_xywh for _ in range(5)]
    assert overlap(boxes[-1], [60, 40, 20, 20]) > 0.15 and tracker.box_xywh == boxes[-1]    # it draws at random
    assert len(tracker.parts.seconds["track"]) == 5


def test_targets_are_apart(scripted):
    one, two = scripted.start(frame(0), box(0)), scripted.start(frame(0), box(0))
    scripted.step([frame(1)], [one])
    assert one.box_xywh == [7, 8, 9, 10] and two.box_xywh == box(0)
    assert [result.box_xywh for result in scripted.step([frame(2)] * 2, [one, two])] == [[7, 8, 9, 10]] * 2


def test_what_cannot_be_followed_is_said(scripted, monkeypatch):
    with pytest.raises(RuntimeError, match="before OpenCVTracker.initialize"):
        scripted.track(frame(0))
    with pytest.raises(UserError, match="sides must be at least 8 pixels"):
        scripted.initialize(frame(0), [10, 10, 4, 4])     # OpenCV would not come back
    scripted.initialize(frame(0), box(0))
    with pytest.raises(UserError, match="30 x 20 pixels and those before had 160 x 120"):
        scripted.track(np.zeros((20, 30, 3), np.uint8))

    def refuse(*_):
        raise cv2.error("no samples")
    monkeypatch.setattr(Scripted, "init", refuse)
    with pytest.raises(UserError, match=r"OpenCV's MIL refuses the target box .*no samples"):
        scripted.initialize(frame(0), box(0))


def test_a_tracker_or_file_that_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no tracker 'kcf' that is known here; choose one of nano, vit"):
        OpenCVTracker("kcf")
    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    with pytest.raises(UserError, match="has no TrackerCSRT; the package opencv-contrib-python"):
        OpenCVTracker("csrt")
    monkeypatch.setattr(opencv, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"needs \S+nanotrack_backbone_sim.onnx and \S+nanotrack_head_sim.onnx, from .*"
                                        "HonglinChu/SiamTrackers"):
        find_files("nano")
    (tmp_path / "mine.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"needs \S+nanotrack_head_sim.onnx, from"):
        find_files("nano", tmp_path / "mine.onnx")
    assert find_files("vit", tmp_path / "mine.onnx") == (tmp_path / "mine.onnx",)
    with pytest.raises(UserError, match=r"OpenCV cannot use \S+mine.onnx as its Vit"):
        OpenCVTracker("vit", [tmp_path / "mine.onnx"])
    with pytest.raises(UserError, match="MIL has no network"):
        find_files("mil", tmp_path / "mine.onnx")


@pytest.mark.parametrize("more, message", [
    (["--backend", "fast"], "--backend does nothing"), (["--set", "TEST.WINDOW=false"], "--set does nothing"),
    (["--exported", "x"], "--exported does nothing"), (["--device", "cuda"], "run on the CPU")])
def test_options_of_other_trackers_are_refused(test_script, capsys, more, message):
    with pytest.raises(SystemExit):
        test_script("opencv", "mil", "--dataset", "folder:x", *more)
    assert message in capsys.readouterr().err


def test_the_help_names_all_of_them(test_script, capsys):
    with pytest.raises(SystemExit):
        test_script("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert f"of opencv: {', '.join(KINDS)}" in told


def test_from_the_command_line_to_the_analysis(test_script, root, tmp_path, square_data, capsys, caplog):
    with caplog.at_level(logging.INFO):
        assert test_script("opencv", "mil", "--dataset", f"folder:{square_data}", "--float", "--batch", "2") == 0
    folder = tmp_path / "out/test/tracking_results/opencv/mil"
    stored = json.loads((folder / "manifest.json").read_text())
    assert stored["settings"] == {"opencv.version": cv2.__version__} and stored["script"] == "opencv"
    analysis = load_script(root / "tracking" / "analysis_results.py")
    assert analysis.main(["--save_dir", str(tmp_path / "out"), "--dataset", f"folder:{square_data}", "--formats",
                          "none", "--script", "opencv", "--config", "mil"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mil "))
    assert float(line.split()[1]) > 3.9 and line.split()[-1] == "2/2"     # the first frame of 24 is given


def test_results_of_another_opencv_are_refused(tmp_path, monkeypatch):
    _, options = parse_tracker("opencv/mil")
    before = choose_tracker(options).made_with()
    monkeypatch.setattr(cv2, "__version__", "4.9.0")
    assert manifest.differences(before, choose_tracker(options).made_with()) == [
        f"opencv.version {before['settings']['opencv.version']} instead of 4.9.0"]


def test_the_live_tracker_follows_but_does_not_redetect(scripted):
    live = LiveTracker(scripted)
    live.init_all(frame(0), [box(0), [50, 50, 20, 20]])
    assert [result.box for result in live.update_all(frame(1))] == [[7, 8, 9, 10]] * 2
    with pytest.raises(UserError, match="leave re-detection out"):
        LiveTracker(scripted, redetect=Redetection())


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.files])
def test_networks_follow_a_square(name):
    files = published(name)
    tracker = choose_tracker(parse_tracker(f"opencv/{name}@{files[0]}")[1]).make(device="cpu")
    tracker.initialize(frame(0), box(0))
    results = [tracker.track(frame(index)) for index in range(1, 6)]
    assert overlap(results[-1].box_xywh, box(5)) > 0.4 and 0 < results[-1].score <= 1
