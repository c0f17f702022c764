"""Images encoded in memory, some with metadata that Pillow does not write, and their decoded pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tlcli.images.decode import decode

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


def array(data, channels=3, note=None):
    return np.asarray(decode(data, channels, note=note), np.int16)


def exif(orientation, kind=3, order="<"):
    """Return an EXIF block with one tag, Orientation, of the given TIFF type (3: short)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    value = struct.pack(order + "H2x", orientation) if kind == 3 else struct.pack(order + "I", orientation)
    return b"Exif\0\0" + head + struct.pack(order + "HHI", 0x112, kind, 1) + value + bytes(4)


def png_chunks(**bodies):
    """Return chunks of a PNG, each with its length and checksum."""
    return b"".join(
        struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in bodies.items()
    )


def png(width, height, depth, kind, rows=b"", *, interlaced=False, **chunks):
    """Return a PNG with any header: `kind` is its color type, `rows` its data before compression."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + png_chunks(IHDR=header, **chunks, IDAT=zlib.compress(rows), IEND=b"")
