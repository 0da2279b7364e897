"""Encoded pictures: what is cut, empty, huge or transparent; and resizing that does not alias."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

import nncompress_jax as nnc
from nncompress_jax.data import pictures
from nncompress_jax.data.pictures import decode, resize

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, kind, **options)
    return stream.getvalue()


def test_lossless_pictures_are_what_they_were():
    for kind, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})):
        pixels, was_transparent = decode(encoded(kind, **options))
        np.testing.assert_array_equal(pixels, NOISE)
        assert not was_transparent


def test_jpeg_is_decoded_as_pillow_does():
    file = encoded("JPEG", quality=90)
    np.testing.assert_array_equal(decode(file)[0], np.asarray(Image.open(io.BytesIO(file))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_cut_pictures(kind, share):
    file = encoded(kind)
    with pytest.raises(nnc.InputError):
        decode(file[: int(share * len(file))])


def test_half_a_jpeg_is_said_to_be_cut_though_its_thumbnail_is_whole():
    file = encoded("JPEG")
    marker = b"\xff\xe1" + struct.pack(">H", len(file) + 2) + file  # a whole picture among the metadata
    with_thumbnail = file[:2] + marker + file[2:]
    np.testing.assert_array_equal(decode(with_thumbnail)[0], decode(file)[0])
    with pytest.raises(nnc.InputError, match="^it is cut short: the JPEG file has no end$"):
        decode(with_thumbnail[: -len(file) // 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "it is empty"), (b"words", "no picture that can be read: "), (b"\xff\xd8\xff", "no picture that can")],
)
def test_what_is_no_picture(content, message):
    with pytest.raises(nnc.InputError, match=f"^{message}"):
        decode(content)


def bomb(width, height):
    """A PNG of some bytes that says that it has so many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_000, 9_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(nnc.InputError, match="pixels|no picture that can be read"):
        decode(bomb(*size))


def test_the_largest_picture_is_counted_in_pixels(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 48 * 64 - 1)
    with pytest.raises(nnc.InputError, match="^64 x 48 pixels, expected at most 3,071 in all$"):
        decode(encoded("PNG"))


def transparent(mode, **options):
    stream = io.BytesIO()
    image = Image.fromarray(np.dstack([NOISE, np.where(NOISE[..., 0] < 128, 0, 255).astype(np.uint8)]))
    image.convert(mode).save(stream, "PNG", **options)
    return stream.getvalue()


def test_transparency_is_put_on_white():
    pixels, was_transparent = decode(transparent("RGBA"))
    assert was_transparent
    hidden = NOISE[..., 0] < 128
    assert (pixels[hidden] == 255).all()
    np.testing.assert_array_equal(pixels[~hidden], NOISE[~hidden])
    half = np.full((2, 2, 4), (10, 20, 30, 102), np.uint8)  # 102 / 255 = 0.4
    pixels, _ = decode(cv2.imencode(".png", half[..., [2, 1, 0, 3]])[1].tobytes())
    assert pixels[0, 0].tolist() == [157, 161, 165]


def test_transparency_by_one_colour_and_none_at_all():
    palette = Image.fromarray(NOISE).convert("P")
    index = palette.getpixel((0, 0))
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=index)
    pixels, was_transparent = decode(stream.getvalue())
    assert was_transparent
    assert pixels[0, 0].tolist() == [255] * 3
    opaque = np.dstack([NOISE, np.full((48, 64), 255, np.uint8)])
    pixels, was_transparent = decode(cv2.imencode(".png", opaque[..., [2, 1, 0, 3]])[1].tobytes())
    assert not was_transparent
    np.testing.assert_array_equal(pixels, NOISE)


def test_thin_pictures_are_averaged_along_the_side_that_shrinks():
    """Black and white columns, one pixel each, become grey; before, one in sixteen was looked at."""
    wide = np.tile(np.array([0, 255] * 512, np.uint8), (32, 1))
    for image in (wide, wide.T, wide[:8], wide[:8].T):
        assert set(np.unique(resize(image, 64))) <= {127, 128}


def test_sides_that_shrink_or_grow_together_are_as_opencv_has_them():
    for size, how in ((16, cv2.INTER_AREA), (96, cv2.INTER_LINEAR)):
        np.testing.assert_array_equal(resize(NOISE, size), cv2.resize(NOISE, (size, size), interpolation=how))
