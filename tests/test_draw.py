"""Drawing on frames, tiles of frames, and videos."""

import cv2
import numpy as np
import pytest

from lib.utils.errors import UserError
from lib.vis.draw import (
    PALETTE,
    VideoWriter,
    draw_boxes,
    draw_score_map,
    fit_image,
    image_strip,
    is_present,
    save_image,
)

GREY = 90


@pytest.fixture
def image() -> np.ndarray:
    return np.full((240, 320, 3), GREY, np.uint8)


def changed(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return (image != drawn).any(axis=2)


def test_box_lies_on_its_edges_and_leaves_the_rest_alone(image):
    drawn = draw_boxes(image, {"": [100, 60, 80, 120]}, {"": (255, 0, 0)})
    assert image.min() == image.max() == GREY, "the input is not drawn on"
    for x, y in ((100, 120), (180, 120), (140, 60), (140, 180)):
        red, green, blue = (int(v) for v in drawn[y, x])
        assert red > 200 and green < 60 and blue < 60, (x, y)
    touched = changed(image, drawn)
    assert not touched[70:170, 110:170].any(), "nothing inside"
    assert not touched[:50].any() and not touched[:, :90].any() and not touched[:, 190:].any(), "nothing outside"


def test_sub_pixel_position_moves_the_line(image):
    at_whole, at_half = (draw_boxes(image, {"": [x, 60, 80, 120]}, {"": (255, 0, 0)}) for x in (100, 100.5))
    assert (at_whole[120, 95:106] != at_half[120, 95:106]).any()


@pytest.mark.parametrize("box", [None, [np.nan] * 4, [10, 10, 0, 5], [10, 10, 5, -1], [np.inf, 0, 5, 5]])
def test_absent_boxes_are_not_drawn(image, box):
    assert not is_present(box)
    assert not changed(image, draw_boxes(image, {"gone": box})).any()


def test_boxes_far_outside_are_harmless(image):
    drawn = draw_boxes(image, {"far": [1e7, -1e7, 50, 1e9], "corner": [-20, -20, 40, 40], "big": [-500, -99, 2e3, 2e3]})
    assert drawn.shape == image.shape and changed(image, drawn).any()


def test_lines_grow_with_the_image():
    def rows_of_line(side: int) -> int:
        image = np.full((side, side, 3), GREY, np.uint8)
        drawn = draw_boxes(image, {"": [side / 4, side / 4, side / 2, side / 2]})
        return int(changed(image, drawn)[: side // 2, side // 2].sum())

    assert rows_of_line(480) < rows_of_line(1920)


@pytest.mark.parametrize("color", [*PALETTE, (255, 255, 255), (0, 0, 0)])
def test_label_reads_on_its_tag(image, color):
    drawn = draw_boxes(image, {"WWWW": [100, 100, 80, 80]}, {"WWWW": color}, scores={"WWWW": 0.5})
    tag = drawn[72:95, 101:140].reshape(-1, 3).astype(float)
    fill = np.array(color, float)
    assert (np.abs(tag - fill).max(axis=1) < 1).any(), "the tag has the box's colour"

    def luminance(rgb):
        linear = np.where(rgb <= 10, rgb / 3294.6, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    ink = tag[np.abs(tag - fill).sum(axis=1).argmax()]
    low, high = sorted([luminance(fill), luminance(ink)])
    assert (high + 0.05) / (low + 0.05) > 4.5, "contrast that WCAG asks of text"


def test_tags_of_near_boxes_do_not_cover_each_other(image):
    boxes = {"one": [100, 100, 80, 60], "two": [102, 101, 80, 60], "three": [101, 102, 80, 60]}
    drawn = draw_boxes(image, boxes)
    areas = []
    for label, box in boxes.items():
        alone = draw_boxes(image, {label: box}, {label: (1, 254, 77)})
        areas.append(int((alone == (1, 254, 77)).all(axis=2).sum()))
    together = [int((drawn == color).all(axis=2).sum()) for color in PALETTE[:3]]
    assert all(t > 0.6 * a for t, a in zip(together, areas, strict=True)), (together, areas)


def test_text_stands_in_the_corner(image):
    drawn = draw_boxes(image, {}, text=["frame 3/10", "41.0 FPS"])
    touched = changed(image, drawn)
    assert touched[:40, :80].any() and not touched[:, 200:].any() and not touched[80:].any()
    assert drawn.max() == 255, "white letters"


def test_only_rgb_uint8_is_taken(image):
    for wrong in (image[..., 0], image.astype(np.float32), image[..., :2]):
        with pytest.raises(ValueError, match="RGB uint8"):
            draw_boxes(wrong, {})


def test_score_map_is_an_inset_in_the_corner(image):
    peak = np.zeros((16, 16), np.float32)
    peak[0, 0] = 1
    drawn = draw_score_map(image, peak)
    touched = changed(image, drawn)
    assert touched[-60:, -60:].all() and not touched[:170].any() and not touched[:, :250].any()
    inset = drawn[-61:, -61:].astype(int).sum(axis=2)
    assert inset[3, 3] > inset[30, 30] + 300, "the peak is bright, the rest dark"


def test_strip_tiles_row_by_row():
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    strip = image_strip([np.full((30, 40, 3), color, np.uint8) for color in colors], 3, gap=5)
    assert strip.shape == (2 * 35 + 5, 3 * 45 + 5, 3)
    for i, color in enumerate(colors):
        assert tuple(strip[20 + 35 * (i // 3), 25 + 45 * (i % 3)]) == color
    assert (strip[40:, -45:] == 255).all(), "the free place is background"
    small = image_strip([np.zeros((30, 40, 3), np.uint8), np.zeros((60, 40, 3), np.uint8)], 2, cell_width=20,
                        captions=["a", "b"], gap=0)
    assert small.shape == (15, 40, 3)


def test_strip_refuses_nonsense(image):
    for images, columns in (([], 2), ([image], 0)):
        with pytest.raises(ValueError):
            image_strip(images, columns)
    with pytest.raises(ValueError, match="captions"):
        image_strip([image], 1, captions=["a", "b"])


def test_fit_keeps_the_shape(image):
    image[:] = 200
    fitted = fit_image(image, (100, 100))
    assert fitted.shape == (100, 100, 3)
    assert fitted[50, 50, 0] == 200 and fitted[5, 50, 0] == 0 and fitted[95, 50, 0] == 0


def test_images_are_saved_as_rgb(tmp_path, image):
    image[..., 0] = 255
    save_image(tmp_path / "a.png", image)
    assert (cv2.imread(str(tmp_path / "a.png"))[..., ::-1] == image).all()
    with pytest.raises(UserError, match="xyz"):
        save_image(tmp_path / "a.xyz", image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["film.mp4", "film.avi"])
def test_video_holds_all_frames_in_order_and_colour(tmp_path, name):
    size = (65, 49)
    with VideoWriter(tmp_path / "new" / name, 10, size) as video:
        for level in range(0, 250, 25):
            video.write(np.full((49, 65, 3), (level, 30, 250 - level), np.uint8))
        assert not (tmp_path / "new" / name).exists(), "no half written file under the real name"
    assert video.frames == 10
    capture = cv2.VideoCapture(str(tmp_path / "new" / name))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for level in range(0, 250, 25):
        done, frame = capture.read()
        assert done and frame.shape == (48, 64, 3)
        assert np.abs(frame[24, 32, ::-1].astype(int) - (level, 30, 250 - level)).max() < 16
    assert not capture.read()[0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("fps", [0.5, 24000 / 1001, 59.94, 120.3333, 999.9])
def test_frame_rates(tmp_path, fps, image):
    with VideoWriter(tmp_path / "film.mp4", fps, (320, 240)) as video:
        for _ in range(5):
            video.write(image)
    assert video.path.suffix == ".mp4"
    assert cv2.VideoCapture(str(video.path)).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=0.01)


def test_video_fits_frames_of_another_size(tmp_path):
    with VideoWriter(tmp_path / "film.mp4", 10, (64, 48)) as video:
        video.write(np.full((48, 64, 3), 200, np.uint8))
        video.write(np.full((100, 50, 3), 200, np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    capture.read()
    frame = capture.read()[1]
    assert frame.shape == (48, 64, 3) and frame[24, 32, 0] > 150 and frame[24, 4, 0] < 50


def test_failing_block_leaves_no_video_and_keeps_the_old_one(tmp_path, image):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 10, (320, 240)) as video:
        video.write(image)
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_video_errors_are_the_users(tmp_path):
    with pytest.raises(UserError, match=r"\.mp4 or \.avi"):
        VideoWriter(tmp_path / "film.gif", 10, (64, 48))
    with pytest.raises(UserError, match="frames per second"):
        VideoWriter(tmp_path / "film.mp4", 0, (64, 48))
    with pytest.raises(UserError, match="0 frames"), VideoWriter(tmp_path / "film.mp4", 10, (64, 48)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_motion_jpeg_where_there_is_no_mpeg4(tmp_path, monkeypatch, caplog, image):
    real = cv2.VideoWriter

    def without_mpeg4(path, fourcc, *rest):
        if fourcc == cv2.VideoWriter_fourcc(*"mp4v"):
            return real()
        return real(path, fourcc, *rest)

    monkeypatch.setattr("lib.vis.video.cv2.VideoWriter", without_mpeg4)
    with VideoWriter(tmp_path / "film.mp4", 10, (320, 240)) as video:
        video.write(image)
    assert video.path == tmp_path / "film.avi" and video.path.is_file()
    assert "film.avi" in caplog.text


def test_a_legend_leaves_the_boxes_free():
    image = np.zeros((240, 320, 3), np.uint8)
    boxes = {"one": (150, 100, 40, 40), "two": (152, 102, 40, 40)}
    colors = {"one": (255, 0, 0), "two": (0, 0, 255)}
    plain = draw_boxes(image, {"": boxes["one"]}, {"": colors["one"]})
    drawn = draw_boxes(image, boxes, colors, legend=True)
    corner, rest = drawn[:70, :100], drawn[80:, 110:]
    assert (corner[..., 0] > 200).any() and (corner[..., 2] > 200).any()
    assert not (rest[:15] > 0).any() and (plain[80:, 110:][15:] > 0).any()
    assert (draw_boxes(image, boxes, colors)[80:, 110:][:15] > 0).any()
