"""What a file is that is no image for us, told from its first bytes so that a person knows what to do. Torch-free."""

from __future__ import annotations

import contextlib
import warnings
from typing import IO

from PIL import Image, TiffImagePlugin

SIGNATURE_BYTES = 1000
"""Bytes of a file that it is told by."""

SIGNATURES = (
    (0, b"%PDF", "a PDF file; export its pages as PNG"),
    (0, b"%!PS", "an EPS (PostScript) file, which only another program could draw; export it as PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS (PostScript) file, which only another program could draw; export it as PNG"),
    (128, b"DICM", "a DICOM file; export it as 16-bit PNG or TIFF"),
    (0, b"PK\x03\x04", "a ZIP archive or an Office document; unpack it"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (0, b"Rar!", "a RAR archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (257, b"ustar", "a tar archive; unpack it"),
    (0, b"8BPS", "a Photoshop file; export it as PNG"),
    (0, b"\xff\x0a", "a JPEG XL image, which can't be decoded here; save it as PNG or JPEG"),
    (4, b"JXL ", "a JPEG XL image, which can't be decoded here; save it as PNG or JPEG"),
    (4, b"jP  ", "a JPEG 2000 image, which isn't decoded; save it as PNG or TIFF"),
    (0, b"\x93NUMPY", "a NumPy array; save it as PNG or TIFF"),
    (0, b"SIMPLE  =", "a FITS file; save it as 16-bit TIFF"),
    (0, b"\x89HDF", "an HDF5 file; save its images as PNG or TIFF"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the image with git lfs pull"),
)
"""Offset, bytes there, and what that is."""

TEXTS = (
    (b"<svg", "an SVG drawing; export it as PNG"),
    (b"<html", "a web page; perhaps the download failed"),
    (b"<!doctype html", "a web page; perhaps the download failed"),
    (b"<?xml", "an XML document"),
)
"""What text begins with, near enough, in small letters."""

HEIC = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
FILMS = frozenset(b"qt   isom iso2 mp41 mp42 M4V  M4VH avc1 3gp4 3gp5 3g2a".split())


def is_heic(data: bytes) -> bool:
    """Whether a file is an image in HEIC, the format of many phones."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC


def describe_unsupported(data: bytes, file: IO[bytes]) -> str:
    """A file that no decoder knows, in words: what it is and what to do, as far as that can be told.

    Args:
        data: Its first bytes, `SIGNATURE_BYTES` of them if there are so many.
        file: All of it.
    """
    for offset, signature, name in SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data[4:8] == b"ftyp" and data[8:12].strip() in FILMS:
        return "a film; save single frames as JPEG"
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in TEXTS:
        if start.startswith(beginning) or (beginning == b"<svg" and beginning in start):
            return name
    if data[:4] in {b"II*\0", b"MM\0*"}:
        return _what_tiff(data, file)
    return "not an image of a known format"


def unsupported_tiff_reason(image: Image.Image) -> str | None:
    """What Pillow would leave out of a TIFF without a word, as a reason to refuse it; None for other images.

    Channels that the file says nothing of are no transparency, and of several it takes as many as it knows. Of signed
    values with 8 bits it takes no sign.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    tags = image.tag_v2
    if 0 in tags.get(338, ()) and tags.get(277, 1) > len(image.getbands()):
        return _channels(tags)
    if 2 in tags.get(339, ()) and 8 in tags.get(258, ()):
        return "a TIFF with signed values of 8 bits, which can't be decoded; save them unsigned"
    return None


def _what_tiff(data: bytes, file: IO[bytes]) -> str:
    """What is uncommon about a TIFF that Pillow doesn't know; its tags often lie at its end."""
    # Hostile bytes raise anything, and Pillow warns of tags that end too early.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file.seek(tags.next)
        tags.load(file)
        if 256 in tags and 257 in tags:  # width and height
            return _channels(tags)
    return "a truncated or damaged TIFF; copy it again"


def _channels(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    depths = "/".join(str(depth) for depth in sorted(set(tags.get(258, (1,)))))
    return (
        f"a TIFF with {int(tags.get(277, 1))} channels of {depths} bits, which can't be decoded; save it as RGB or gray"
    )
