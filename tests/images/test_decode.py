"""Decoding: every format, mode, and orientation."""

import io
import struct

import numpy as np
import pytest
from encoded_images import STORED_AS, UPRIGHT, array, encode, exif, png
from PIL import Image

from tlcli.images.decode import decode, upright_dimensions
from tlcli.images.worker import DecodeOptions, read_image


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG", "TIFF", "BMP", "GIF", "PPM", "AVIF"])
def test_formats(form):
    options = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95, "subsampling": 0},
        "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    }
    found = array(encode(UPRIGHT, form, **options.get(form, {})))
    assert found.shape == UPRIGHT.shape
    assert np.abs(found - UPRIGHT).mean() < 2


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_every_orientation_gives_the_upright_image(form, orientation, order):
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}[form]
    stored = np.ascontiguousarray(STORED_AS[orientation](UPRIGHT))
    found = array(encode(stored, form, exif=exif(orientation, order=order), **options))
    assert found.shape == UPRIGHT.shape
    assert np.abs(found - UPRIGHT).mean() < (2 if form == "JPEG" else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff(orientation):
    stored = np.ascontiguousarray(STORED_AS[orientation](UPRIGHT))
    np.testing.assert_array_equal(array(encode(stored, "TIFF", tiffinfo={0x112: orientation})), UPRIGHT)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(65535),
        exif(6, kind=2),
        exif(6, kind=99),
        b"Exif\0\0" + b"no EXIF at all",
        b"Exif\0\0" + b"II*\0",
        b"Exif\0\0" + b"II*\0\xff\xff\xff\xff",
    ],
)
def test_an_invalid_orientation_is_ignored(form, block):
    found = array(encode(UPRIGHT, form, exif=block))
    np.testing.assert_array_equal(found, array(encode(UPRIGHT, form)))


def test_gray_equals_the_converted_colors():
    gray = decode(encode(UPRIGHT, "PNG"), 1)
    assert gray.mode == "L"
    np.testing.assert_array_equal(np.asarray(gray), np.asarray(Image.fromarray(UPRIGHT).convert("L")))


def test_the_format_is_detected_from_the_content(tmp_path, small):
    (tmp_path / "photo.jpg").write_bytes(encode(UPRIGHT, "GIF"))
    (tmp_path / "photo.gif").write_bytes(encode(UPRIGHT, "GIF"))
    one, two = (
        read_image(str(tmp_path / name), DecodeOptions(preprocessing=small)) for name in ("photo.jpg", "photo.gif")
    )
    assert one.error is None
    assert one.pixels == two.pixels


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_a_file_is_decoded(form):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(array(data)[0, 0], [255, 0, 0])


def test_palette_transparency_is_composited_over_white():
    image = Image.new("P", (4, 2), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    found = array(encode(image, "PNG", transparency=0))
    np.testing.assert_array_equal(found[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(found[0, 1], [200, 100, 50])


def test_half_transparency_is_composited_over_white():
    for channels in (3, 1):
        data = encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")
        assert np.abs(array(data, channels) - 127).max() <= 1


def test_a_transparent_color_becomes_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    found = array(encode(image, "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(found[0], [[255, 255, 255], [9, 9, 9]])


def test_gray_with_transparency():
    image = Image.new("LA", (2, 1), (40, 255))
    image.putpixel((1, 0), (40, 0))
    found = array(encode(image, "PNG"))
    np.testing.assert_array_equal(found[0], [[40, 40, 40], [255, 255, 255]])


def test_cmyk():
    found = array(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(found - [255, 0, 0]).max() < 20
    assert array(encode(Image.new("CMYK", (16, 16)), "TIFF")).min() == 255


@pytest.mark.parametrize("channels", [3, 1])
def test_one_bit(channels):
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    found = array(encode(image, "PNG"), channels)
    assert (found[0, 0] == 0).all()
    assert (found[0, 1] == 255).all()


@pytest.mark.parametrize("channels", [3, 1])
def test_a_lab_tiff(channels):
    found = array(encode(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF"), channels)
    assert found.min() > 240


RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(
    "data",
    [
        encode(RAMP, "PNG"),
        encode(RAMP, "TIFF"),
        encode(Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes()), "TIFF"),
        b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian tiff", "pgm"],
)
def test_16_bit_gray_is_scaled_not_clipped(data, channels):
    found = array(data, channels).reshape(256, -1)
    assert np.abs(found - np.arange(256)[:, None]).max() <= 1


def test_16_bit_color_is_scaled_not_clipped():
    row = b"\0" + struct.pack(">6H", 0, 65535, 32768, 257 * 10, 257 * 20, 257 * 30)
    found = array(png(2, 1, 16, 2, row))
    assert np.abs(found[0] - [[0, 255, 128], [10, 20, 30]]).max() <= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_upright_dimensions_are_those_of_the_decoded_image(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, form, exif=exif)
    file.seek(0)
    expected = (20, 30) if orientation >= 5 else (30, 20)
    assert upright_dimensions(file) == expected == decode(file.getvalue(), 3).size
