"""Identify files that cannot be decoded by their first bytes, and describe what to do about them. Torch-free."""

from __future__ import annotations

import contextlib
import warnings
from typing import IO

from PIL import TiffImagePlugin

from tlcli.images.tiff import describe_channels

SIGNATURE_BYTES = 1000
"""Bytes at the start of a file that identify it."""

SIGNATURES = (
    (0, b"%PDF", "a PDF file; export its pages as PNG"),
    (0, b"%!PS", "an EPS (PostScript) file, which needs a PostScript interpreter; export it as PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS (PostScript) file, which needs a PostScript interpreter; export it as PNG"),
    (128, b"DICM", "a DICOM file; export it as 16-bit PNG or TIFF"),
    (0, b"PK\x03\x04", "a ZIP archive or an Office document; unpack it"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (0, b"Rar!", "a RAR archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (257, b"ustar", "a tar archive; unpack it"),
    (0, b"8BPS", "a Photoshop file; export it as PNG"),
    (0, b"\xff\x0a", "a JPEG XL image, which is not supported; save it as PNG or JPEG"),
    (4, b"JXL ", "a JPEG XL image, which is not supported; save it as PNG or JPEG"),
    (4, b"jP  ", "a JPEG 2000 image, which is not supported; save it as PNG or TIFF"),
    (0, b"MM\0+", "a big-endian BigTIFF, which is not supported; save it as PNG or TIFF"),
    (0, b"\x93NUMPY", "a NumPy array; save it as PNG or TIFF"),
    (0, b"SIMPLE  =", "a FITS file; save it as 16-bit TIFF"),
    (0, b"\x89HDF", "an HDF5 file; save its images as PNG or TIFF"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the image with git lfs pull"),
)
"""Offset, bytes at this offset, and description with advice."""

TEXT_STARTS = (
    (b"<svg", "an SVG drawing; export it as PNG"),
    (b"<html", "a web page, so the download may have failed; download it again"),
    (b"<!doctype html", "a web page, so the download may have failed; download it again"),
    (b"<?xml", "an XML document, not an image"),
)
"""Lowercase beginning of a text file, and description with advice."""

HEIC_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
VIDEO_BRANDS = frozenset(b"qt   isom iso2 mp41 mp42 M4V  M4VH avc1 3gp4 3gp5 3g2a".split())


def is_heic(data: bytes) -> bool:
    """Return whether a file is a HEIC image, the default format of many phones."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS


def describe_unsupported(data: bytes, file: IO[bytes]) -> str:
    """Describe a file that no decoder supports: what it is and, if known, what to do.

    Args:
        data: Its first `SIGNATURE_BYTES` bytes, or all of a shorter file.
        file: The file, open for reading.
    """
    for offset, signature, name in SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data[4:8] == b"ftyp" and data[8:12].strip() in VIDEO_BRANDS:
        return "a video; save single frames as JPEG"
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in TEXT_STARTS:
        if start.startswith(beginning) or (beginning == b"<svg" and beginning in start):
            return name
    if data[:4] in {b"II*\0", b"MM\0*", b"II+\0"}:
        return _describe_tiff(data, file)
    return "not an image of a known format"


def _describe_tiff(data: bytes, file: IO[bytes]) -> str:
    """Describe a TIFF that Pillow does not support, from its tags, which are often at the end of the file."""
    # On hostile bytes, Pillow raises any exception type, and it warns about truncated tags.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        file.seek(tags.next)
        tags.load(file)
        if 256 in tags and 257 in tags:  # width and height
            return describe_channels(tags)
    return "a truncated or damaged TIFF; copy it again"
