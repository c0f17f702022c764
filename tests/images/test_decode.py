"""Decoding: every format, mode, and orientation; a reason for everything that cannot be decoded."""

import io
import os
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tlcli.images.decode import UndecodableError, decode, upright_dimensions
from tlcli.images.preprocess import fit_image, oversampling
from tlcli.images.worker import DecodeOptions, read_image

GENERATOR = np.random.default_rng(0)
UPRIGHT = np.kron(GENERATOR.integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
"""uint8 [32, 48, 3] of 8 x 8 blocks, which JPEG preserves almost exactly."""

STORED_AS = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: upright[::-1, ::-1],
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""Pixels that a camera stores for each EXIF orientation."""


def encode(image, form, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def array(data, channels=3):
    return np.asarray(decode(data, channels), np.int16)


def exif(orientation, kind=3, order="<"):
    """Return an EXIF block with one tag, Orientation, of the given TIFF type (3: short)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    value = struct.pack(order + "H2x", orientation) if kind == 3 else struct.pack(order + "I", orientation)
    return b"Exif\0\0" + head + struct.pack(order + "HHI", 0x112, kind, 1) + value + bytes(4)


def png(width, height, depth, kind, rows=b""):
    """Return a PNG with any header: `kind` is its color type, `rows` its data before compression."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


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


# Modes


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


def test_32_bit_gray_without_a_range_is_rejected():
    with pytest.raises(UndecodableError, match=r"no known range; train with --intensity auto"):
        decode(encode(Image.new("F", (4, 4), 0.5), "TIFF"), 3)


# Files that are not images


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_an_error(form, share):
    noise = GENERATOR.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encode(noise, form)
    with pytest.raises(UndecodableError):
        decode(data[: int(share * len(data))], 3)


def test_an_empty_file():
    with pytest.raises(UndecodableError, match="empty"):
        decode(b"", 3)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0" * 5000,
        b"hello\n",
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'{"error": "not found"}',
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    ],
)
def test_other_files_raise_an_error_with_one_line(data):
    with pytest.raises(UndecodableError, match=r"\A.+\Z"):
        decode(data, 3)


def test_eps_is_rejected_without_starting_a_program(tmp_path, monkeypatch):
    witness = tmp_path / "started"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch '{witness}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UndecodableError, match="EPS"):
        decode(encode(UPRIGHT, "EPS"), 3)
    assert not witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        png(100_000, 100_000, 8, 2),
        png(16_385, 16_384, 1, 0),  # just above the limit, and 34 MB as stored
        b"GIF89a" + struct.pack("<HH3x", 65535, 65535) + b"," + struct.pack("<4Hx", 0, 0, 65535, 65535) + b"\2\1\0\0;",
        b"P6 60000 60000 255\n" + bytes(100),
    ],
    ids=["png", "png just too large", "gif", "ppm"],
)
def test_a_decompression_bomb_is_rejected(data):
    with pytest.raises(UndecodableError, match="pixels"):
        decode(data, 3)


def photograph(width, height):
    """Return soft shapes with fine grain, like a photograph."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / width * 9 + rows / height * turn) for turn in (2, 5, 11)]
    grain = GENERATOR.normal(0, 6, (height, width, 3))
    return np.clip(127 + 90 * np.stack(waves, axis=-1) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_reduced_while_decoding_and_gives_nearly_the_same_pixels(fit, orientation, small):
    upright = photograph(1600, 1200)
    stored = np.ascontiguousarray(STORED_AS[orientation](upright))
    data = encode(stored, "JPEG", quality=92, exif=exif(orientation))
    preprocessing = replace(small, height=32, width=64, fit=fit)
    sizes = []

    def needed(size):
        sizes.append(size)
        return oversampling(size, preprocessing)

    drafted, whole = decode(data, 3, needed), decode(data, 3)
    assert sizes == [(1600, 1200)], "the size of the upright image"
    assert whole.size == (1600, 1200)
    assert drafted.size in {(400, 300), (200, 150)}
    found, expected = (np.asarray(fit_image(p, preprocessing), np.float64) for p in (drafted, whole))
    assert np.abs(found - expected).mean() <= 1


@pytest.mark.parametrize(
    ("size", "form", "factor", "decoded"),
    [
        ((640, 480), "JPEG", 7.9, (160, 120)),
        ((640, 480), "JPEG", 1.9, (640, 480)),
        ((644, 484), "JPEG", 99, (161, 121)),  # not divisible by 8
        ((641, 480), "JPEG", 99, (641, 480)),
        ((640, 480), "PNG", 99, (640, 480)),
        ((640, 480), "MPO", 99, (80, 60)),
    ],
)
def test_reduction_while_decoding(size, form, factor, decoded):
    options = {"save_all": True, "append_images": [Image.new("RGB", size)]} if form == "MPO" else {}
    data = encode(photograph(*size), form, **options)
    assert decode(data, 3, lambda _: factor).size == decoded


def test_a_truncated_jpeg_is_rejected_at_every_size():
    data = encode(photograph(640, 480), "JPEG")
    with pytest.raises(UndecodableError, match="truncated"):
        decode(data[: len(data) // 2], 3, lambda _: 8)


def test_read_image_equals_decode_and_fit_image(tmp_path, small):
    path = tmp_path / "large.jpg"
    path.write_bytes(encode(photograph(960, 640), "JPEG"))
    image = decode(path.read_bytes(), 3, lambda size: oversampling(size, small))
    assert image.size != (960, 640)
    assert read_image(str(path), DecodeOptions(preprocessing=small)).pixels == fit_image(image, small).tobytes()


# Dimensions


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
