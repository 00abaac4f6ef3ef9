"""One size and one set of pixels for every picture, whatever reads it."""

import io
import logging
import struct

import cv2
import numpy as np
import pytest
import trees
from PIL import Image

from lib.test.analysis.results import image_size
from lib.test.evaluation.sequence import Sequence
from lib.train.data.decode import open_picture
from lib.utils import images
from lib.utils.errors import UserError
from lib.utils.frames import ImageFrames
from lib.utils.images import decode_rgb, depth_loss, look_at

SIZE = (41, 24)


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(trees.picture(3, SIZE)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind="JPEG", orientation=6, mode="RGB"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(kind, mode, exif=exif)


def with_exif_behind(png):
    """A PNG file whose Exif data stand behind the pixels."""
    start = png.index(b"eXIf") - 4
    end = start + 12 + struct.unpack_from(">I", png, start)[0]
    return png[:start] + png[end:-12] + png[start:end] + png[-12:]


def after_comments(jpeg):
    """A JPEG file whose header begins with 192 KiB of comments."""
    return jpeg[:2] + b"".join(b"\xff\xfe\xff\xff" + bytes(0xFFFD) for _ in range(3)) + jpeg[2:]


def deep(low=7000, high=8000, suffix=".png"):
    """A grey picture of 16 bits."""
    values = np.linspace(low, high, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    return cv2.imencode(suffix, values)[1].tobytes()


def bmp_of_os2():
    """A BMP file with the short header, where sizes have 16 bits."""
    rows = trees.picture(3, SIZE)[::-1, :, ::-1].reshape(SIZE[1], -1)
    pixels = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    return struct.pack("<2sIIIIHHHH", b"BM", 26 + len(pixels), 0, 26, 12, *SIZE, 1, 24) + pixels


KINDS = {
    "jpeg": encoded("JPEG"), "grey jpeg": encoded("JPEG", "L"), "cmyk": encoded("JPEG", "CMYK"),
    "turned jpeg": turned(), "mirrored jpeg": turned(orientation=2), "turned cmyk": turned(mode="CMYK"),
    "png": encoded("PNG"), "palette": encoded("PNG", "P"), "black and white": encoded("PNG", "1"),
    "alpha": encoded("PNG", "RGBA"), "grey with alpha": encoded("PNG", "LA"), "turned png": turned("PNG"),
    "png turned at its end": with_exif_behind(turned("PNG")), "16 bit": deep(), "16 bit tiff": deep(suffix=".tiff"),
    "filled up": encoded("JPEG")[:2] + b"\xff\xff\xff" + encoded("JPEG")[2:],
    "turned, filled up": turned()[:2] + b"\xff\xff\xff" + turned()[2:],
    "bmp": encoded("BMP"), "bmp of OS/2": bmp_of_os2(), "tiff": encoded("TIFF"),
    "turned tiff": encoded("TIFF", tiffinfo={274: 6}),
    "webp": encoded("WEBP"), "turned webp": turned("WEBP"), "gif": encoded("GIF"),
    "long header": after_comments(encoded("JPEG")), "turned, long header": after_comments(turned()),
}


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_readers_agree(tmp_path, kind, ending):
    """On pixels and size, by the content and not by the ending of the name."""
    data = KINDS[kind]
    (tmp_path / f"1{ending}").write_bytes(data)
    frames = ImageFrames(tmp_path, [f"1{ending}"])
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width, _ = pixels.shape
    assert ("turned" in kind) == ((width, height) != SIZE)
    assert np.array_equal(decode_rgb(data, kind), pixels) and np.array_equal(frames[0], pixels)
    assert frames.look().size == (width, height) == look_at(lambda limit: data[:limit], kind, decode=True).size
    assert image_size(Sequence("s", "d", frames, np.ones((1, 4)))) == (width, height)
    for decoder in ("auto", "simplejpeg", "opencv"):
        picture = open_picture(data, kind, decoder)
        assert (picture.width, picture.height) == (width, height)
        assert np.array_equal(picture.region(0, 0, width, height), pixels)


@pytest.mark.parametrize("kind", ["jpeg", "bmp"])
def test_of_most_pictures_only_the_header_is_read(kind):
    asked = []
    assert look_at(lambda limit: asked.append(limit) or (KINDS[kind] + bytes(1 << 17))[:limit], kind).size == SIZE
    assert asked == [images.HEADER_BYTES]


@pytest.mark.parametrize("data", [b"", b"no picture", encoded("PNG")[:100], KINDS["turned jpeg"][:200]])
def test_what_is_no_picture_is_named(data):
    with pytest.raises(UserError, match="cannot decode the image a.jpg"):
        look_at(lambda limit: data, "a.jpg")


def twelve_bits(jpeg):
    """A JPEG file that says so; no writer of such is at hand."""
    place = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:place] + b"\x0c" + jpeg[place + 1:]


@pytest.mark.parametrize(("data", "words"), [
    (twelve_bits(encoded("JPEG")), "JPEG files of 12 bits are not read; write it with 8 bits"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    (b"\0\0\0\x18ftypheic" + bytes(40), "heic pictures are not read; convert it"),
    (b"\xff\xd8\xff\xe0", "damaged or no image")])
def test_the_advice_fits_what_cannot_be_decoded(data, words):
    with pytest.raises(UserError, match=f"cannot decode the image a.jpg .*{words}"):
        decode_rgb(data, "a.jpg")


@pytest.mark.parametrize(("data", "warns"), [
    (deep(), True), (deep(0, 16383), True), (deep(suffix=".tiff"), True), (deep(0, 65535), False),
    (deep(20000, 50000), False), (cv2.imencode(".png", (trees.picture(1)[..., 0] // 8).astype(np.uint16) * 257)[1]
                                  .tobytes(), False),
    (cv2.imencode(".png", (trees.picture(1)[..., 0] // 8).astype(np.uint16) * 256)[1].tobytes(), False)])
def test_grey_levels_that_are_lost_are_said_once(data, warns, monkeypatch, caplog):
    monkeypatch.setattr(images, "_loss_named", type(images._loss_named)())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            decode_rgb(data, "thermal.png")
    assert caplog.text.count("thermal.png: 16-bit pictures are cut to 8 bits") == int(warns)


def test_one_hot_pixel_does_not_hide_the_loss():
    values = cv2.imdecode(np.frombuffer(deep(), np.uint8), cv2.IMREAD_UNCHANGED)
    values[0, 0], values[-1, -1] = 65535, 0
    assert "% of the range (most pixels are in 70" in depth_loss(cv2.merge([values] * 3))


def test_pixels_that_are_no_whole_numbers_are_refused():
    data = cv2.imencode(".tiff", np.random.default_rng(0).random((20, 30, 3), np.float32))[1].tobytes()
    with pytest.raises(UserError, match="heat.tiff has float32 pixels; write it with 8 bits"):
        decode_rgb(data, "heat.tiff")
