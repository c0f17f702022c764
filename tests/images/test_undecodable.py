"""A reason for everything that cannot be decoded."""

import os
import struct

import numpy as np
import pytest
from encoded_images import UPRIGHT, encode, png
from PIL import Image

from tlcli.images.decode import UndecodableError, decode


def test_32_bit_gray_without_a_range_is_rejected():
    with pytest.raises(UndecodableError, match=r"no known range; train with --intensity auto"):
        decode(encode(Image.new("F", (4, 4), 0.5), "TIFF"), 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_an_error(form, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
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
