"""Damaged files and files of other types: each gives an image or a reason, whatever its content."""

import contextlib
import hashlib
import os
import random
import resource
import socket
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from damaged_files import KINDS, NOISE, PIXELS, damaged, exif_orientation
from encoded_images import encode
from PIL import Image, features

from tlcli.images.decode import FORMATS, UndecodableError, decode
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import MAX_BYTES, MEMORY_LIMIT, DecodedImage, DecodeOptions, read_image
from tlcli.storage.stored import Stamp

FUZZED = 1000
"""Number of damaged files of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_each_damaged_file_gives_an_image_or_a_reason_and_is_not_modified(kind, tmp_path, small):
    draw = random.Random(kind)
    paths = [tmp_path / f"{number}.jpg" for number in range(FUZZED)]
    digests = []
    for number, path in enumerate(paths):
        data = damaged(KINDS[kind], draw, number)
        path.write_bytes(data)
        digests.append(hashlib.sha256(data).digest())
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        images = list(loader.load(map(str, paths)))
    assert [image.digest for image in images] == digests, "in order, none lost, and no decoder crashed or hung"
    reasons = [image.error for image in images if image.error is not None]
    assert 0 < len(reasons) < FUZZED
    assert all(reason.strip() and len(reason.splitlines()) == 1 for reason in reasons)
    assert all((image.pixels is None) == (image.error is not None) for image in images)
    assert {len(image.pixels) for image in images if image.pixels is not None} == {16 * 16 * 3}
    assert [hashlib.sha256(path.read_bytes()).digest() for path in paths] == digests


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_rejected_or_decoded_completely(kind):
    whole = np.asarray(decode(KINDS[kind], 3))
    rejected = 0
    for length in range(0, len(KINDS[kind]), max(1, len(KINDS[kind]) // 60)):
        try:
            found = np.asarray(decode(KINDS[kind][:length], 3))
        except UndecodableError:
            rejected += 1
        else:
            np.testing.assert_array_equal(found, whole)
    assert rejected > 40


def test_a_truncated_jpeg_with_an_end_marker_is_filled_with_gray():
    """SECURITY.md documents this, because libjpeg accepts such a file as complete."""
    data = encode(NOISE, "JPEG")
    found = np.asarray(decode(data[: len(data) * 2 // 3] + b"\xff\xd9", 3), np.int16)
    assert found[:8].std() > 30
    assert found[-4:].std() < 5


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (bytes(128) + b"DICM" + bytes(99), "DICOM"),
        (b"PK\x03\x04" + bytes(30), "ZIP"),
        (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "XML|SVG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC|invalid|Invalid"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"8BPS\0\1", "Photoshop"),
        (b"hello\n", "not an image of a known format"),
        (b"\0" * 5000, "not an image of a known format"),
    ],
)
def test_other_file_types_are_named(data, name):
    with pytest.raises(UndecodableError, match=name):
        decode(data, 3)


def tiff(channels, bits, width=4, height=3):
    """Return a TIFF with any number of channels, each of the same depth."""
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, width * height * channels * bits // 8),
    ]
    pixels = bytes(width * height * channels * bits // 8)
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHI", tag, kind, count) + struct.pack("<I", value) for tag, kind, count, value in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + bytes(4)


def test_a_multi_channel_tiff_is_rejected_with_its_channels():
    with pytest.raises(UndecodableError, match=r"TIFF with 13 channels of 16 bits.*save it as RGB or gray"):
        decode(tiff(13, 16), 3)


def test_heic_is_decoded_upright(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    upright = Image.fromarray(PIXELS)
    pillow_heif.from_pillow(upright.transpose(Image.Transpose.ROTATE_90)).save(
        tmp_path / "a.heic", quality=-1, exif=exif_orientation(6).tobytes()
    )
    found = np.asarray(decode((tmp_path / "a.heic").read_bytes(), 3), np.int16)
    assert found.shape == PIXELS.shape
    assert np.abs(found - PIXELS).mean() < 12  # HEIC halves the resolution of colors


def test_heic_without_a_decoder_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UndecodableError, match=r"pip install 'tlcli\[heic\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", 3)


def test_every_documented_format_has_a_decoder():
    assert all(features.check(name) for name in ("jpg", "zlib", "webp", "avif", "libtiff"))
    assert not {"EPS", "WMF", "PDF", "FPX", "MIC"} & set(FORMATS), "these start programs, or parse formats that can"


def test_a_file_above_the_size_limit_is_rejected_without_reading_it(tmp_path):
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    image = read_image(str(path), DecodeOptions())
    assert "more than the limit of 1,073,741,824" in image.error
    assert image.digest is None


def test_a_decoder_process_has_a_memory_limit(small, draw, tmp_path):
    path = draw(tmp_path / "a.png")
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        assert next(loader.load([str(path)])).error is None
        (process,) = loader._processes
        limit = resource.prlimit(process._process.pid, resource.RLIMIT_DATA)[0]
    assert limit == MEMORY_LIMIT


@pytest.mark.slow
def test_the_largest_image_fits_into_the_memory_limit(small, largest):
    assert largest.stat().st_size < 4e6
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        (image,) = loader.load([str(largest)])
    assert image.error is None
    assert image.pixels == b"\xff" * len(image.pixels), "transparent is white"


@pytest.mark.parametrize("size", [(1, 1), (1, 16_000), (30_000, 1)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_the_smallest_and_the_longest_images(size, form, small, tmp_path):
    path = tmp_path / "odd"
    path.write_bytes(encode(Image.new("RGB", size, (9, 99, 199)), form))
    for fit in ("squash", "crop", "pad"):
        image = read_image(str(path), DecodeOptions(preprocessing=type(small)(**vars(small) | {"fit": fit})))
        assert image.error is None
        assert len(image.pixels) == 16 * 16 * 3


def test_special_files_are_rejected_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for path in (*tmp_path.iterdir(), Path("/dev/zero")):
            assert "is a folder, a pipe, a socket or a device" in read_image(str(path), DecodeOptions()).error


def test_a_regular_file_without_available_data_does_not_end_the_process(monkeypatch):
    """Some files in /proc are regular files, but behave like pipes."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb"):
        monkeypatch.setattr("tlcli.images.worker.open_image_file", lambda *_: contextlib.nullcontext((file, Stamp())))
        assert read_image("/proc/kmsg", DecodeOptions()) == DecodedImage(error="cannot be read: no data available")
