"""Drawing results: chosen frames, boxes, IoU, videos and strips, score maps and attention maps."""

import importlib.util
import logging
import math

import cv2
import numpy as np
import pytest
import torch
import trees
from fake_trackers import Frames, Mover
from tiny_models import scramble, tiny

from lib.families.build import build_for_test
from lib.models.base import Inputs
from lib.test.analysis.drawing import MOST_CELLS, Rerun, choose_frames, draw_results, overlap, parse_frames
from lib.test.evaluation import get_dataset
from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.results import tracker_folder
from lib.test.evaluation.running import run_dataset
from lib.test.evaluation.single import track_sequence
from lib.test.tracker import Tracker
from lib.test.tracker.attention import AttentionProbe
from lib.utils.errors import UserError
from lib.utils.files import ROOT
from lib.vis.draw import PALETTE
from lib.vis.images import color_map
from lib.vis.maps import blend_map, with_panels

TEACHER = ROOT / "pretrained_models" / "quickstart_teacher.pth.tar"
COUNT = 12


def sequence(count=COUNT, **frames):
    return Sequence("a", "lasot", Frames(count, **frames), np.tile([10.0, 8, 20, 16], (count, 1)))


def boxes(count=COUNT, x=30.0):
    return np.tile([x, 8, 20, 16], (count, 1))


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def video_frames(path):
    capture, images = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        images.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return images


# ---------------------------------------------------------------- which frames

def test_frames_are_chosen():
    assert parse_frames("0, 7,3-5,4", 8) == [0, 3, 4, 5, 7]
    assert choose_frames(5, None, None, strip=False) == [0, 1, 2, 3, 4]
    assert choose_frames(10, None, 4, strip=False) == choose_frames(10, None, 4, strip=True) == [0, 4, 8]
    assert choose_frames(30, "3-9", 3, strip=True) == [3, 6, 9]
    assert choose_frames(100, None, None, strip=True) == [0, 14, 28, 42, 57, 71, 85, 99]
    assert choose_frames(2, None, None, strip=True) == [0, 1]


@pytest.mark.parametrize(("text", "message"), [
    ("x", "found 'x'"), ("1-", "found '1-'"), ("-3", "found '-3'"), ("", "found ''"), ("8", "frames 0 to 7"),
    ("2-9", "frames 0 to 7"), ("5-2", "range is empty")])
def test_frames_that_do_not_exist(text, message):
    with pytest.raises(UserError, match=message):
        parse_frames(text, 8)


def test_a_strip_has_limits():
    assert len(choose_frames(1000, f"0-{MOST_CELLS - 1}", None, strip=True)) == MOST_CELLS
    with pytest.raises(UserError, match="do not fit into one picture"):
        choose_frames(1000, None, 2, strip=True)


# ---------------------------------------------------------------- boxes

def test_a_strip_has_a_cell_for_each_frame(tmp_path):
    path = draw_results(sequence(), {"one": boxes()}, tmp_path / "a.png", [0, 5, 11], columns=2, cell_width=120)
    assert read(path).shape == (2 * (80 + 6) + 6, 2 * (120 + 6) + 6, 3)


@pytest.mark.parametrize("truth", [True, False])
def test_boxes_have_the_colours_of_the_legend(tmp_path, truth):
    shown = Sequence("a", "lasot", Frames(1, size=(200, 300)), np.array([[50.0, 120, 40, 40]]))
    tracks = {"one": np.array([[120.0, 120, 40, 40]]), "two": np.array([[190.0, 120, 40, 40]])}
    picture = read(draw_results(shown, tracks, tmp_path / "a.png", [0], columns=1, truth=truth))[6:-6, 6:-6].astype(int)
    for x, color in ((50, (255, 255, 255) if truth else (0, 0, 0)), (120, PALETTE[0]), (190, PALETTE[1])):
        assert np.abs(picture[140, x] - color).max() < 60, (x, picture[140, x])


def test_a_video_has_the_chosen_frames(tmp_path):
    shown = sequence()
    path = draw_results(shown, {"one": boxes()}, tmp_path / "a.mp4", range(0, COUNT, 2), fps=10)
    images = video_frames(path)
    assert len(images) == 6 and images[0].shape == (40, 60, 3) and shown.frames.closed


def test_iou_stands_in_the_legend(tmp_path):
    assert overlap([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert math.isnan(overlap([0, 0, 10, 10], [np.nan] * 4))
    hidden = Sequence("a", "lasot", Frames(1), np.full((1, 4), np.nan))
    pictures = {}
    for name, shown, with_iou in (("plain", sequence(1), False), ("iou", sequence(1), True), ("hidden", hidden, True),
                                  ("hidden plain", hidden, False)):
        pictures[name] = read(draw_results(shown, {"one": boxes(1)}, tmp_path / f"{name}.png", [0], with_iou=with_iou))
    assert (pictures["plain"] != pictures["iou"]).any()
    assert (pictures["hidden plain"] == pictures["hidden"]).all()


@pytest.mark.parametrize(("tracks", "output", "frames", "message"), [
    ({"one": boxes(COUNT - 1)}, "a.png", {}, "one: 11 boxes for the 12 frames of a"),
    ({"ground truth": boxes()}, "a.png", {}, "two trackers are called 'ground truth'"),
    ({"one": boxes()}, "a.png", {"broken": 3}, "cannot read frame 3"),
    ({"one": boxes()}, "a.mp4", {"broken": 3}, "cannot read frame 3"),
    ({"one": boxes()}, "a.xyz", {}, "image format"),
])
def test_nothing_is_written_when_something_is_wrong(tmp_path, tracks, output, frames, message):
    with pytest.raises(UserError, match=message):
        draw_results(sequence(**frames), tracks, tmp_path / output, range(COUNT))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- maps

def test_maps_over_a_crop():
    image = np.full((40, 40, 3), 100, np.uint8)
    values = np.array([[0.0, 1.0], [np.nan, 0.5]])
    assert (color_map(values)[1, 0] == 0).all() and color_map(values)[0, 1].sum() > color_map(values)[1, 1].sum()
    blended = blend_map(image, values, opacity=0.5)
    assert blended.shape == image.shape and image.min() == image.max() == 100
    assert (blended[30, 10] == 50).all() and blended[10, 30].sum() > blended[30, 30].sum() > blended[10, 10].sum()
    assert (blend_map(image, values, opacity=0) == image).all()


def test_panels_stand_beside_the_frame():
    image = np.zeros((60, 80, 3), np.uint8)
    assert with_panels(image, []) is image
    white = np.full((16, 16, 3), 255, np.uint8)
    both = with_panels(image, [("", white), ("", white)])
    assert both.shape == (60, 110, 3) and (both[:, :80] == 0).all() and (both[:, 80:] == 255).all()
    assert with_panels(image, [("", white)]).shape == (60, 140, 3)


@pytest.fixture(scope="module")
def model():
    return scramble(build_for_test(tiny())).eval()


def crops():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, 3, 32, 32, generator=generator), torch.randn(1, 3, 64, 64, generator=generator)


@torch.no_grad()
def test_attention_is_that_of_the_layer(model):
    tokens = model.embed(Inputs.of(*crops()))
    for layer in model.layers[:3]:
        tokens = layer(tokens)
    attention = model.layers[3].attn
    qkv = attention.qkv(model.layers[3].norm1(tokens.x)).reshape(1, 20, 3, 2, 16).permute(2, 0, 3, 1, 4)
    weights = (qkv[0] @ qkv[1].transpose(-2, -1) / 4).softmax(-1)
    expected = weights[0, :, :4, 4:].mean(dim=(0, 1)).reshape(4, 4)
    with AttentionProbe(model, 3) as probe:
        assert probe.map is None
        seen = model(*crops()).score_map
    assert np.allclose(probe.map, expected.numpy(), atol=1e-6) and probe.map.dtype == np.float32
    kept = probe.map
    assert torch.equal(seen, model(*crops()).score_map) and probe.map is kept, "the probe is off after the block"


@torch.no_grad()
def test_attention_after_elimination():
    model = scramble(build_for_test(tiny("ce"))).eval()
    with AttentionProbe(model, -1) as probe:
        model(*crops())
    assert probe.layer == 11 and probe.map.shape == (4, 4)
    assert np.isnan(probe.map).sum() == 16 - 7, "of 16 tokens 70 % are kept three times: 12, 9, 7"
    assert 0 < np.nansum(probe.map) <= 1


def test_attention_of_what_has_none(model):
    with pytest.raises(UserError, match="there is no layer 12: the model has 12 layers, 0 to 11"):
        AttentionProbe(model, 12)
    with pytest.raises(UserError, match="need a one-stream tracker with attention layers, not function"):
        AttentionProbe(lambda template, search: None, 0)


# ---------------------------------------------------------------- the script

@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return trees.folder(tmp_path_factory.mktemp("work") / "videos", frames=COUNT)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, videos):
    """A save folder with the results of two trackers."""
    folder = tmp_path_factory.mktemp("out")
    for config in ("mine", "yours"):
        run_dataset(get_dataset(f"folder:{videos}", None), Mover,
                    tracker_folder(folder / "test" / "tracking_results", "ostrack", config), device="cpu")
    return folder


@pytest.fixture
def main(videos, saved):
    spec = importlib.util.spec_from_file_location("vis_results", ROOT / "tracking" / "vis_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main(["--dataset", f"folder:{videos}", "--sequence", "first", "--save_dir",
                                           str(saved), *arguments])


def test_all_results_as_a_video(main, saved, caplog):
    with caplog.at_level(logging.INFO):
        assert main("--iou") == 0
    path = saved / "test" / "vis_results" / "folder_videos_first.mp4"
    assert len(video_frames(path)) == COUNT and f"{COUNT} frames in {path}" in caplog.text


def test_chosen_results_as_a_strip(main, saved, tmp_path):
    folder = saved / "test" / "tracking_results" / "ostrack" / "yours" / "folder_videos"
    assert main("--tracker", "ostrack:mine=A", "--result", f"B={folder}", "--frames", "0,4,8", "--columns", "3",
                "--width", "48", "--output", str(tmp_path / "x.png")) == 0
    assert read(tmp_path / "x.png").shape == (32 + 12, 3 * 54 + 6, 3)


def test_our_tracker_runs_again_with_its_maps(main, videos, tmp_path):
    arguments = ["--run", "ostrack:quickstart_teacher=ours", "--checkpoint", str(TEACHER), "--device", "cpu", "--every",
                 "3", "--score-map", "--attention", "5"]
    assert main(*arguments, "--output", str(tmp_path / "x.mp4")) == 0
    images = video_frames(tmp_path / "x.mp4")
    assert len(images) == 4 and images[0].shape == (64, 96 + 32, 3)
    maps = [image[:, 96:].astype(int) for image in images]
    assert all(np.abs(maps[0] - other).mean() > 10 for other in maps[1:]), "the template, then maps"


def test_the_run_gives_the_boxes_of_the_test(videos):
    from lib.test.analysis import drawing

    tracker = Tracker.from_config("ostrack", "quickstart_teacher", checkpoint=TEACHER, device="cpu")
    shown, = get_dataset(f"folder:{videos}", None, "first")
    expected = track_sequence(tracker, shown).boxes_xywh
    again = [frame.boxes["ours"] for frame in drawing._track_again(shown, Rerun("ours", tracker, True, 0))]
    assert np.array_equal(np.array(again), expected)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--tracker", "ostrack:theirs"], "no results in .*theirs"),
    (["--result", "B=/"], "no file of B is called like first.*There are"),
    (["--run", "ostrack"], "expected script:config"),
    (["--run", "ostrack:quickstart_teacher", "--checkpoint", "nowhere.pth"], "no checkpoint at .*nowhere.pth"),
    (["--frames", "3-99"], "the sequence has the frames 0 to 11"),
])
def test_mistakes_are_named(main, arguments, message):
    with pytest.raises(UserError, match=message):
        main(*arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--attention", "3"], "need --run"), (["--every", "0"], "--every must be 1 or more"),
    (["--fps", "0"], "--fps must be above 0")])
def test_wrong_usage(main, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main(*arguments)
    assert message in capsys.readouterr().err
