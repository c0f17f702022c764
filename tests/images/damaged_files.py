"""Small files of 15 kinds, and damage to them."""

from __future__ import annotations

import numpy as np
from encoded_images import encode
from PIL import Image

GENERATOR = np.random.default_rng(0)
PIXELS = np.kron(GENERATOR.integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
NOISE = GENERATOR.integers(0, 256, (40, 56, 3)).astype(np.uint8)


def exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


KINDS = {
    "jpeg": encode(PIXELS, "JPEG", exif=exif_orientation(6)),
    "progressive jpeg": encode(PIXELS, "JPEG", progressive=True),
    "cmyk jpeg": encode(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "png": encode(PIXELS, "PNG", exif=exif_orientation(3)),
    "palette": encode(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=0),
    "16-bit png": encode(GENERATOR.integers(0, 65536, (24, 24)).astype(np.uint16), "PNG"),
    "webp": encode(PIXELS, "WEBP", exif=exif_orientation(5)),
    "lossless webp": encode(PIXELS, "WEBP", lossless=True),
    "gif": encode(PIXELS, "GIF"),
    "tiff": encode(PIXELS, "TIFF", tiffinfo={0x112: 7}),
    "packed tiff": encode(PIXELS, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": encode(PIXELS, "TIFF", compression="jpeg"),
    "bmp": encode(PIXELS, "BMP"),
    "ppm": encode(PIXELS, "PPM"),
    "avif": encode(PIXELS, "AVIF"),
}


def damaged(data, draw, number):
    """Return a file with some bits flipped, or a range of bytes overwritten, doubled, or removed."""
    broken = bytearray(data)
    # Half of the damage is in the headers, where most formats are vulnerable.
    within = min(len(data), 400) if number % 2 else len(data)
    if number % 6:
        for _ in range(draw.choice([1, 1, 2, 8])):
            broken[draw.randrange(within)] ^= 1 << draw.randrange(8)
        return bytes(broken)
    start, length = draw.randrange(within), draw.randrange(1, 40)
    middle = draw.choice([b"", draw.randbytes(length), b"\xff" * length, bytes(broken[start : start + length]) * 2])
    return bytes(broken[:start]) + middle + bytes(broken[start + length :])
