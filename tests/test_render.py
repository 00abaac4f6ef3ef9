"""The synthetic benchmark: deterministic, complete, correctly labelled, and no texture in two parts."""

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.quickstart import render
from lib.quickstart.baseline import MatchTemplateTracker
from lib.quickstart.photographs import cut_out, list_photographs, read_outlines
from lib.quickstart.render import SPLITS, render_benchmark
from lib.quickstart.scene import Sequence, make_assets, tight_box
from lib.utils.errors import UserError

SMALL = {"frames": (4, 6), "size": (160, 120)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def overlap(a: list[float], b: np.ndarray) -> float:
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(np.add(a[:2], a[2:]), b[:2] + b[2:])
    common = np.clip(high - low, 0, None).prod()
    return float(common / (np.prod(a[2:]) + np.prod(b[2:]) - common))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    render_benchmark(folder, seed=3, train=3, val=1, test=2, **SMALL)
    return folder


def test_layout_is_that_of_got10k(rendered):
    for split, count, length in (("train", 3, 4), ("val", 1, 6), ("test", 2, 6)):
        names = (rendered / split / "list.txt").read_text().split()
        assert names == sorted(p.name for p in (rendered / split).iterdir() if p.is_dir())
        assert len(names) == count
        for name in names:
            folder = rendered / split / name
            assert [p.name for p in sorted(folder.glob("*.jpg"))] == [f"{i:08d}.jpg" for i in range(1, length + 1)]
            boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")
            cover, absent = (np.loadtxt(folder / f"{label}.label", dtype=int) for label in ("cover", "absence"))
            assert boxes.shape == (length, 4) and cover.shape == absent.shape == (length,)
            assert cover.min() >= 0 and cover.max() <= 8 and np.array_equal(absent, cover == 0)
            assert cover[0] >= 6, "the first picture shows the object"
            assert np.all(boxes[:, :2] >= 0) and np.all(boxes[:, :2] + boxes[:, 2:] <= [160.001, 120.001])
            assert np.all(boxes[:, 2:] > 4)
            assert cv2.imread(str(folder / "00000001.jpg")).shape == (120, 160, 3)
            assert "[METAINFO]" in (folder / "meta_info.ini").read_text()


def test_same_seed_same_bytes_whatever_the_workers(rendered, tmp_path):
    render_benchmark(tmp_path, seed=3, train=3, val=1, test=2, workers=2, **SMALL)
    assert files(tmp_path) == files(rendered)
    render_benchmark(tmp_path / "other", seed=4, train=1, val=0, test=0, **SMALL)
    assert files(tmp_path / "other" / "train")["train_00000/00000001.jpg"] != \
        files(rendered / "train")["train_00000/00000001.jpg"]


def test_no_texture_or_shape_recurs():
    seen: dict[str, str] = {}
    for split in SPLITS:
        for index in range(6):
            assets = make_assets(11, split, index, (160, 120))
            pictures = {"background": assets.background, "target": assets.target.colour,
                        "target shape": assets.target.cover}
            for kind, sprites in (("distractor", assets.distractors), ("occluder", assets.occluders)):
                pictures |= {f"{kind} {i}": item.colour for i, item in enumerate(sprites)}
            for role, picture in pictures.items():
                key = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
                place = f"{split} {index} {role}"
                assert key not in seen, f"{place} repeats {seen[key]}"
                seen[key] = place
    assert len(seen) > 6 * 3 * 6


def test_nothing_is_rendered_twice_and_an_interruption_is_completed(rendered, monkeypatch):
    whole = files(rendered)
    stamps = {p: p.stat().st_mtime_ns for p in rendered.rglob("*.jpg")}
    drawn: list[str] = []
    draw = render._render
    monkeypatch.setattr(render, "_render", lambda job: (drawn.append(Path(job.folder).name), draw(job)))
    render_benchmark(rendered, seed=3, train=3, val=1, test=2, **SMALL)
    assert drawn == [] and {p: p.stat().st_mtime_ns for p in rendered.rglob("*.jpg")} == stamps

    lost = rendered / "train" / "train_00001"
    lost.rename(lost.with_name(".train_00001.part"))
    (rendered / "train" / "list.txt").unlink()
    render_benchmark(rendered, seed=3, train=3, val=1, test=2, **SMALL)
    assert drawn == ["train_00001"] and files(rendered) == whole

    drawn.clear()
    monkeypatch.setattr(render, "VERSION", render.VERSION + 1)
    render_benchmark(rendered, seed=3, train=1, val=1, test=2, **SMALL)
    assert sorted(drawn) == ["test_00000", "test_00001", "train_00000", "val_00000"]
    assert [p.name for p in (rendered / "train").iterdir() if p.is_dir()] == ["train_00000"]


def test_a_smaller_benchmark_keeps_the_sequences_of_a_larger_one(tmp_path, monkeypatch):
    render_benchmark(tmp_path, seed=4, train=2, val=0, test=0, **SMALL)
    monkeypatch.setattr(render, "_render", lambda job: pytest.fail(f"{job.folder} was drawn again"))
    listed = tmp_path / "train" / "list.txt"
    for number in (1, 2):
        render_benchmark(tmp_path, seed=4, train=number, val=0, test=0, **SMALL)
        assert listed.read_text().split() == ["train_00000", "train_00001"][:number]
        assert sorted(p.name for p in (tmp_path / "train").iterdir() if p.is_dir()) == ["train_00000", "train_00001"]


def test_a_failure_leaves_no_half_sequence(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        render_benchmark(tmp_path, seed=1, train=1, val=0, test=0, **SMALL)
    monkeypatch.undo()
    assert os.listdir(tmp_path / "train") == ["render.json"]
    render_benchmark(tmp_path, seed=1, train=1, val=0, test=0, **SMALL)
    assert (tmp_path / "train" / "list.txt").read_text() == "train_00000\n"


def test_box_is_tight_and_cut_off_at_the_border():
    alpha = np.zeros((20, 30), np.float32)
    alpha[5:12, 8:20] = 1.0
    assert tight_box(alpha, (100, 50)) == pytest.approx((108, 55, 12, 7))
    alpha[5:12, 7] = 0.25
    x, _, w, _ = tight_box(alpha, (0, 0))
    assert 7.5 < x < 8 and x + w == pytest.approx(20)
    assert tight_box(alpha[:, 10:], (0, 0))[0] == 0
    assert tight_box(np.zeros((4, 4), np.float32), (3, 3)) == (0, 0, 0, 0)


def test_the_box_holds_the_object(monkeypatch):
    """Without occluders, light and noise, only the inside of the box and its shadow differ from a picture without the
    object."""
    sequence = Sequence(2, "test", 1, length=3, size=(160, 120))
    sequence._shutter = 0.0
    sequence._occluders.clear()
    frames = list(sequence.frames())
    target = sequence.assets.target
    blank = np.zeros_like(target.cover)
    monkeypatch.setattr(sequence, "assets", type(sequence.assets)(
        sequence.assets.background, type(target)(target.colour, blank, target.aspect),
        sequence.assets.distractors, sequence.assets.occluders))
    for frame, empty in zip(frames, sequence.frames(), strict=True):
        x, y, w, h = frame.box
        changed = np.abs(frame.image.astype(int) - empty.image).max(axis=-1) > 60
        rows, columns = np.nonzero(changed)
        assert rows.size > 30 and empty.box == (0, 0, 0, 0) and frame.visible == 1.0
        assert columns.min() >= x - 2 and columns.max() <= x + w + 2
        assert rows.min() >= y - 2 and rows.max() <= y + h + 2


def test_photographs_stay_in_their_split(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        cv2.imwrite(str(photos / f"{i}.png"), np.full((100, 140, 3), 20 * i + 40, np.uint8))
    render_benchmark(tmp_path / "out", seed=0, train=2, val=1, test=1, backgrounds=photos, **SMALL)
    used = {split: {name for name, _ in json.loads((tmp_path / "out" / split / "render.json").read_text())
                    ["photographs"]} for split in SPLITS}
    assert len(set.union(*used.values())) == sum(map(len, used.values())) == 8
    (photos / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="0.png"):
        render_benchmark(tmp_path / "bad", seed=0, train=0, val=1, test=0, backgrounds=photos, **SMALL)
    with pytest.raises(UserError, match="no such folder"):
        render_benchmark(tmp_path / "bad", seed=0, train=1, val=0, test=0, backgrounds=tmp_path / "none", **SMALL)


def outlined(folder: Path, count: int = 8) -> tuple[Path, Path]:
    """Grey photographs, each with a red disc of 60 px, and the COCO instances file that outlines the discs."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    disc = np.stack([100 + 30 * np.cos(angle), 70 + 30 * np.sin(angle)], axis=-1)
    images, annotations = [], []
    for i in range(count):
        photo = np.full((140, 200, 3), 120, np.uint8)
        cv2.circle(photo, (100, 70), 31, (0, 0, 220), -1)
        cv2.imwrite(str(photos / f"{i}.png"), photo)
        images.append({"id": i, "file_name": f"{i}.png"})
        annotations.append({"image_id": i, "segmentation": [disc.ravel().tolist()], "iscrowd": 0})
        annotations.append({"image_id": i, "segmentation": {"counts": [5, 3], "size": [9, 9]}, "iscrowd": 1})
        annotations.append({"image_id": i, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0})
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return photos, path


def test_objects_are_cut_out_of_photographs(tmp_path):
    photos, outlines = outlined(tmp_path)
    found = read_outlines(outlines, list_photographs(photos))
    assert len(found) == 8 and all(len(items) == 1 for items in found.values())     # no crowd, nothing small
    item = cut_out(next(iter(found.values()))[0], 100)
    inside = item.cover[..., 0] > 0.9
    assert item.aspect == pytest.approx(1, abs=0.02) and inside.mean() == pytest.approx(np.pi / 4 * (100 / 116) ** 2,
                                                                                         abs=0.03)
    assert (item.colour[inside].astype(int) - (0, 0, 220)).__abs__().max() < 10
    render_benchmark(tmp_path / "out", seed=0, train=2, val=0, test=0, backgrounds=photos, outlines=outlines, **SMALL)
    for folder in sorted((tmp_path / "out" / "train").glob("train_*")):
        boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")
        for number, (x, y, w, h) in enumerate(boxes, start=1):
            frame = cv2.imread(str(folder / f"{number:08d}.jpg")).astype(int)
            middle = frame[int(y + h / 2), int(x + w / 2)]
            assert middle[2] - middle[:2].max() > 40 and 0.3 < w / h < 3
    again = files(tmp_path / "out")
    render_benchmark(tmp_path / "out", seed=0, train=2, val=0, test=0, backgrounds=photos, outlines=outlines, **SMALL)
    assert files(tmp_path / "out") == again


def test_outlines_that_cannot_be_used_are_named(tmp_path):
    photos, outlines = outlined(tmp_path, 5)

    def draw(**arguments):
        render_benchmark(tmp_path / "out", seed=0, train=1, val=0, test=0, **arguments, **SMALL)

    with pytest.raises(UserError, match="5 usable objects .* at least 6"):
        draw(backgrounds=photos, outlines=outlines)
    with pytest.raises(UserError, match="give backgrounds"):
        draw(outlines=outlines)
    outlines.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(UserError, match="outlines no object of at least 40 px"):
        draw(backgrounds=photos, outlines=outlines)
    outlines.write_text("{")
    with pytest.raises(UserError, match="instances.json is not a readable COCO"):
        draw(backgrounds=photos, outlines=outlines)


@pytest.mark.parametrize(("change", "name"), [({"seed": -1}, "seed"), ({"test": -2}, "test"),
                                              ({"workers": 0}, "workers"), ({"frames": (1, 5)}, r"frames\[0\]"),
                                              ({"size": (320, 20)}, "height")])
def test_bad_arguments_are_named(tmp_path, change, name):
    with pytest.raises(UserError, match=name):
        render_benchmark(tmp_path, **({"seed": 0, "train": 1, "val": 1, "test": 1} | change))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not a rendered split"):
        render_benchmark(tmp_path, seed=0, train=1, val=0, test=0, **SMALL)
    assert (tmp_path / "train" / "mine.txt").read_text() == "keep"


def test_baseline_follows_a_shifted_picture_and_only_that():
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    tracker = MatchTemplateTracker()
    with pytest.raises(UserError, match="initialize"):
        tracker.track(image)
    tracker.initialize(image, [60, 40, 30, 24])
    result = tracker.track(np.roll(image, (9, -14), axis=(0, 1)))
    assert result.box_xywh == [46, 49, 30, 24] and result.score > 0.99
    tracker.initialize(image, [60, 40, 30, 24])
    assert overlap(tracker.track(np.roll(image, 60, axis=1)).box_xywh, np.array([120, 40, 30, 24])) < 0.5
    with pytest.raises(UserError, match="outside"):
        tracker.initialize(image, [400, 0, 10, 10])


def test_correlation_does_not_solve_the_benchmark():
    """Correlation with the first template loses most of the overlap on the mean of a few sequences."""
    scores = []
    for index in range(6):
        tracker = MatchTemplateTracker()
        for t, frame in enumerate(Sequence(1, "test", index, length=40, size=(320, 240)).frames()):
            if t == 0:
                tracker.initialize(frame.image, frame.box)
            else:
                scores.append(overlap(tracker.track(frame.image).box_xywh, np.array(frame.box)))
    assert 0.1 < np.mean(scores) < 0.6
