"""PNGs and BMPs of every layout, against the values written."""

import itertools
import struct

import numpy as np
import pytest
from encoded_images import png

from tlcli.images.decode import UndecodableError, decode

ROWS, COLUMNS = np.mgrid[:11, :13]
GRAY = (COLUMNS * 19 + ROWS * 7) % 256 / 255
COLORS = np.stack([COLUMNS * 19, ROWS * 23, 255 - COLUMNS * 9 - ROWS * 8], axis=-1) / 255
ALPHA = (COLUMNS * 11 + ROWS * 3) % 256 / 255


def packed(values, bits):
    """Return the bytes of each row of samples [H, ...]."""
    flat = values.reshape(len(values), -1)
    if bits >= 8:
        return [row.tobytes() for row in flat.astype(">u2" if bits == 16 else "u1")]
    ones = flat[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return [row.tobytes() for row in np.packbits(ones.reshape(len(flat), -1).astype(np.uint8), axis=1)]


def png_of(values, kind, bits, *, interlaced=False, **chunks):
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes] if interlaced else [values]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, bits))
    return png(values.shape[1], len(values), bits, kind, rows, interlaced=interlaced, **chunks)


def is_right(data, colors):
    return np.abs(np.asarray(decode(data, 3)) - 255 * colors).max() <= 2


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (6, 16)])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_png_of_any_depth(kind, bits, interlaced, transparent):
    top = 2**bits - 1
    planes = {0: [GRAY], 2: COLORS.transpose(2, 0, 1), 4: [GRAY, ALPHA], 6: [*COLORS.transpose(2, 0, 1), ALPHA]}[kind]
    values = np.round(np.stack(planes, axis=-1) * top).astype(int)
    alpha = values[..., -1:] / top if kind >= 4 else 1
    chunks = {}
    if transparent and kind < 4:
        chunks["tRNS"] = struct.pack(f">{len(planes)}H", *values[5, 7])
        alpha = (values != values[5, 7]).any(axis=-1, keepdims=True)
    data = png_of(values, kind, bits, interlaced=interlaced, **chunks)
    if chunks and (kind, bits) == (2, 16):
        with pytest.raises(UndecodableError, match="16-bit color with a transparent color"):
            decode(data, 3)
    else:
        colors = values[..., :3] if kind in {2, 6} else values[..., :1]
        assert is_right(data, colors / top * alpha + 1 - alpha)


def test_only_the_transparent_value_of_16_bits_becomes_white():
    values = np.array([[0x1234, 0x1235]])
    assert is_right(png_of(values, 0, 16, tRNS=b"\x12\x34"), np.array([1, 0x1235 / 65535])[:, None])


def bmp(values, bits, *, head=40, masks=None, palette=None, top_down=False, with_file_header=True):
    """Return a BMP; `head` is the size of its header, `palette` has colors [N, 3]."""
    rows = [row + bytes(-len(row) % 4) for row in packed(values, min(bits, 8))]
    body = b"".join(rows if top_down else rows[::-1])
    height, width = values.shape[:2]
    if head == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        sizes = (head, width, -height if top_down else height, 1, bits, 3 if masks else 0, len(body), 1, 1)
        info = struct.pack("<IiiHHIIiiII", *sizes, 0 if palette is None else len(palette), 0)
        info = (info + struct.pack("<4I", *masks or (0,) * 4))[: max(head, 52)].ljust(head, b"\0")
        info = info if masks and head == 40 else info[:head]
    colors = (
        b"" if palette is None else b"".join(bytes(c[::-1]) + b"\0" * (head > 12) for c in palette.astype(np.uint8))
    )
    start = 14 + len(info) + len(colors)
    file_header = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return file_header * with_file_header + info + colors + body


BGR = np.round(255 * COLORS[..., ::-1]).astype(int)


@pytest.mark.parametrize("head", [12, 40, 52, 56, 64, 108, 124])
def test_a_bmp_with_any_header(head):
    for top_down, with_file_header in itertools.product({False, head > 12}, (True, False)):
        layout = {"head": head, "top_down": top_down, "with_file_header": with_file_header}
        assert is_right(bmp(BGR, 24, **layout), COLORS)
        for alpha in (0, 99, 255):
            values = np.dstack([BGR, np.full(BGR.shape[:2], alpha)])
            assert head == 12 or is_right(bmp(values, 32, **layout), COLORS), "the fourth byte is padding"


@pytest.mark.parametrize("head", [56, 108, 124])
@pytest.mark.parametrize(("alpha", "shown"), [(np.zeros_like(ALPHA), np.ones_like(ALPHA)), (ALPHA, ALPHA)])
def test_an_empty_alpha_of_a_bmp_is_opaque(head, alpha, shown):
    values = np.dstack([BGR, np.round(255 * alpha).astype(int)])
    data = bmp(values, 32, head=head, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    assert is_right(data, COLORS * shown[..., None] + 1 - shown[..., None])


@pytest.mark.parametrize("head", [12, 40, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("palette", ["colors", "gray", "black and white", "white and black", "dark"])
def test_a_bmp_palette_is_right_or_rejected(head, bits, palette):
    for count in sorted({2**bits} if head == 12 else {2, min(3, 2**bits), 2**bits}):
        numbers = np.arange(count)[:, None].repeat(3, axis=1)
        colors = {
            "colors": np.random.default_rng(0).integers(0, 256, (count, 3)),
            "gray": numbers * 255 // (count - 1),
            "black and white": numbers % 2 * 255,
            "white and black": (1 - numbers % 2) * 255,
            "dark": numbers,
        }[palette]
        indices = (COLUMNS * 7 + ROWS * 3) % count
        try:
            right = is_right(bmp(indices, bits, head=head, palette=colors), colors[indices] / 255)
        except UndecodableError:
            assert bits == 4, "only half bytes with gray palettes are rejected"
        else:
            assert right
