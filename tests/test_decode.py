"""Decoded parts of pictures: the pixels of OpenCV, whatever the kind of file."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
import trees
from PIL import Image

from lib.train.data import decode
from lib.train.data.decode import JpegPicture, TurboJpeg, find_turbojpeg, jpeg_size, open_picture
from lib.utils.errors import UserError
from lib.utils.images import decode_rgb

WIDTH, HEIGHT = 133, 97


def texture(width=WIDTH, height=HEIGHT):
    noise = np.random.default_rng(0).normal(0, 25, (height, width, 3))
    return np.clip(trees.picture(3, (width, height)) + noise, 0, 255).astype(np.uint8)


def jpeg(image=None, orientation=None, **options):
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(texture() if image is None else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def cmyk():
    buffer = io.BytesIO()
    Image.fromarray(texture()).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def opencv(suffix, *options):
    return cv2.imencode(suffix, texture(), options)[1].tobytes()


PLAIN_FILES = {
    "4:2:0": jpeg(subsampling=2), "4:2:2": jpeg(subsampling=1), "4:4:4": jpeg(subsampling=0),
    "4:4:0": simplejpeg.encode_jpeg(texture(), colorsubsampling="440"),
    "4:1:1": simplejpeg.encode_jpeg(texture(), colorsubsampling="411"),
    "progressive": jpeg(progressive=True), "grey": jpeg(texture()[..., 0]), "rgb": jpeg(keep_rgb=True),
    "restarts": opencv(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2), "zeros behind": jpeg() + b"\0" * 99,
    "one pixel": jpeg(texture(1, 1)), "narrow": jpeg(texture(9, 200)),
}
OTHER_FILES = {"cmyk": cmyk(), "turned": jpeg(orientation=6), "png": opencv(".png"), "bmp": opencv(".bmp")}


@pytest.fixture
def library():
    found = find_turbojpeg()
    if found is None:
        pytest.skip("no libturbojpeg of version 3 on this machine")
    return found


def parts(picture, count=40):
    """Random parts of a picture, the whole one and its corners."""
    rng = np.random.default_rng(0)
    width, height = picture.width, picture.height
    yield from ((0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height))
    for _ in range(count):
        left, right = np.sort(rng.choice(width + 1, 2, replace=False)).tolist()
        top, bottom = np.sort(rng.choice(height + 1, 2, replace=False)).tolist()
        yield left, top, right, bottom


@pytest.mark.parametrize("decoder", ["auto", "simplejpeg", "opencv"])
@pytest.mark.parametrize("kind", [*PLAIN_FILES, *OTHER_FILES])
def test_every_part_has_opencvs_pixels(kind, decoder):
    data = (PLAIN_FILES | OTHER_FILES)[kind]
    whole = decode_rgb(data, kind)
    picture = open_picture(data, kind, decoder)
    assert (picture.width, picture.height) == (whole.shape[1], whole.shape[0])
    for left, top, right, bottom in parts(picture):
        assert np.array_equal(picture.region(left, top, right, bottom), whole[top:bottom, left:right])


@pytest.mark.parametrize("kind", PLAIN_FILES)
def test_plain_files_take_the_fast_way(kind, library):
    picture = open_picture(PLAIN_FILES[kind], kind)
    assert isinstance(picture, JpegPicture)
    size = (picture.width, picture.height)
    for part in parts(picture, 10):
        assert library.region(picture.data, size, part) is not None


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_do_not(kind):
    assert jpeg_size(OTHER_FILES[kind]) is None


def test_an_exif_segment_without_orientation_changes_nothing():
    exif = Image.Exif()
    exif[0x010F] = "maker"
    assert jpeg_size(jpeg(exif=exif)) == (WIDTH, HEIGHT)
    assert jpeg_size(jpeg(orientation=3)) is None


@pytest.mark.parametrize("factor", decode.SHRINKS)
@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "grey", "narrow"])
def test_shrunk_parts_are_those_of_the_shrunk_whole(kind, factor, library):
    data = PLAIN_FILES[kind]
    picture = open_picture(data, kind).shrunk(factor)
    whole = open_picture(data, kind, "simplejpeg").shrunk(factor)
    assert (picture.width, picture.height) == (whole.width, whole.height)
    everything = whole.region(0, 0, whole.width, whole.height)
    assert everything.shape == (whole.height, whole.width, 3)
    for left, top, right, bottom in parts(picture, 20):
        assert np.array_equal(picture.region(left, top, right, bottom), everything[top:bottom, left:right])


def test_a_shrunk_picture_looks_like_the_picture():
    smooth = cv2.GaussianBlur(texture(160, 96), (0, 0), 4)
    small = open_picture(jpeg(smooth, quality=95), "smooth").shrunk(2)
    expected = cv2.resize(smooth, (80, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(small.region(0, 0, 80, 48).astype(int) - expected).mean() < 2


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg()[:-2], jpeg()[: len(jpeg()) // 2], opencv(".png")[:200]])
@pytest.mark.parametrize("decoder", ["auto", "opencv"])
def test_what_is_no_whole_picture_is_refused_at_once(data, decoder):
    with pytest.raises(UserError, match="cannot decode the image some.jpg"):
        open_picture(data, "some.jpg", decoder)


def test_a_fault_within_a_file_is_decided_by_opencv(library):
    """The fast decoders refuse; OpenCV shows what it can."""
    data = bytearray(jpeg(texture(320, 240)))
    middle = len(data) // 2
    data[middle : middle + 60] = b"\xff\xd1" * 30
    data = bytes(data)
    whole = decode_rgb(data, "damaged")
    picture = open_picture(data, "damaged")
    assert library.region(data, (320, 240), (0, 0, 320, 240)) is None
    assert np.array_equal(picture.region(10, 20, 300, 240), whole[20:240, 10:300])


def test_a_file_without_pixels_is_reported():
    data = trees.hollow(jpeg())
    assert jpeg_size(data) == (WIDTH, HEIGHT)
    with pytest.raises(UserError, match="cannot decode the image hollow.jpg"):
        open_picture(data, "hollow.jpg").region(0, 0, 5, 5)


def test_without_a_library_the_pixels_are_the_same(monkeypatch):
    monkeypatch.setattr(decode, "find_turbojpeg", lambda: None)
    data = PLAIN_FILES["4:2:0"]
    assert np.array_equal(open_picture(data, "x").region(5, 6, 90, 80), decode_rgb(data, "x")[6:80, 5:90])


def test_a_library_with_other_pixels_is_not_used(monkeypatch, library, caplog):
    monkeypatch.setattr(decode, "_libraries", lambda: iter([library.path]))
    monkeypatch.setattr(TurboJpeg, "region", lambda self, data, size, part, factor=1: np.zeros(1))
    find_turbojpeg.cache_clear()
    try:
        assert find_turbojpeg() is None
    finally:
        find_turbojpeg.cache_clear()
    assert "other pixels than simplejpeg" in caplog.text


@pytest.mark.parametrize("path", ["/no/such/libturbojpeg.so", "libc.so.6"])
def test_what_is_no_such_library_is_passed_over(path, monkeypatch):
    with pytest.raises(OSError):
        TurboJpeg(path)
    monkeypatch.setattr(decode, "_libraries", lambda: iter([path]))
    find_turbojpeg.cache_clear()
    try:
        assert find_turbojpeg() is None
    finally:
        find_turbojpeg.cache_clear()
