"""Write TIFFs of any layout, with the pixels that they represent."""

import functools
import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

SHAPE = HEIGHT, WIDTH = 21, 19
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
GRAY = (COLUMNS * 5 + ROWS * 3) % 128 / 127
COLORS = np.stack([COLUMNS * 5 + ROWS, ROWS * 6 + COLUMNS, 255 - COLUMNS * 3 - ROWS], axis=-1) / 255
ALPHA = (COLUMNS * 3 + ROWS * 5) % 128 / 127
KINDS = {
    "gray": (1, 1, ()),
    "negative": (0, 1, ()),
    "gray, associated alpha": (1, 2, (1,)),
    "gray, alpha": (1, 2, (2,)),
    "gray, more": (1, 2, (0,)),
    "two grays": (1, 2, ()),
    "three grays": (1, 3, ()),
    "negative, alpha": (0, 2, (2,)),
    "RGB": (2, 3, ()),
    "RGB, associated alpha": (2, 4, (1,)),
    "RGB, alpha": (2, 4, (2,)),
    "RGB, more": (2, 4, (0,)),
    "RGB, unknown": (2, 4, ()),
    "RGB, alpha, more": (2, 5, (2, 0)),
    "palette": (3, 1, ()),
    "palette, alpha": (3, 2, (2,)),
    "palette, more": (3, 2, (0,)),
    "CMYK": (5, 4, ()),
    "CMYK, more": (5, 5, (0,)),
    "CMYK, alpha": (5, 5, (2,)),
    "YCbCr": (6, 3, ()),
    "Lab": (8, 3, ()),
    "ICC Lab": (9, 3, ()),
}
"""Photometric interpretation, samples per pixel, and extra samples."""

DEPTHS = ("u1", "u2", "u4", "u8", "u12", "u16", "u32", "u64", "i8", "i16", "i32", "f16", "f32", "f64")
"""Unsigned, signed, and float samples, and their bits."""

MOST = 2.0**63  # 64-bit samples are rejected, so their values do not matter
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples are stored."""

    compression: int = NONE
    planar: int = 1
    predictor: int = 1
    order: str = "<"
    tile: int | None = None
    rows: int = HEIGHT


def layouts(depth):
    """Yield every layout of samples of a depth."""
    form, bits = depth[0], int(depth[1:])
    blocks = ((None, HEIGHT), (None, 8), (16, HEIGHT), (32, HEIGHT))
    for compression, planar, predictor, order, (tile, rows) in itertools.product(
        (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS), (1, 2), (1, 2, 3), "<>", blocks
    ):
        predicted = {1: True, 2: form != "f" and bits in {8, 16, 32, 64}, 3: form == "f"}[predictor]
        if predicted and (predictor == 1 or compression not in {NONE, PACKBITS}):
            yield Layout(compression=compression, planar=planar, predictor=predictor, order=order, tile=tile, rows=rows)


def samples(kind, depth):
    """Return the samples [H, W, S] of a kind, and the colors [H, W, 3] in [0, 1] that they represent."""
    photometric, count, extra = KINDS[kind]
    top = {"u": 2 ** int(depth[1:]) - 1, "i": 2 ** (int(depth[1:]) - 1) - 1, "f": 1}[depth[0]]

    def stored(values):
        return (
            values.astype(np.float64) if depth[0] == "f" else np.minimum(np.round(values * top), MOST).astype(np.uint64)
        )

    alpha = stored(ALPHA)
    match photometric:
        case 0 | 1:
            planes = [stored(GRAY)] * max(1, count - len(extra))
            colors = np.stack([planes[0] / top] * 3, axis=-1)
            planes = planes if photometric else [stored(1 - GRAY)]
        case 2:
            planes = [stored(COLORS[..., i]) for i in range(3)]
            colors = np.stack(planes, axis=-1) / top
        case 3:
            planes = [((COLUMNS * 7 + ROWS * 3) % min(top + 1, 256)).astype(np.uint64)]
            colors = palette(min(top + 1, 2**16))[:, planes[0]].transpose(1, 2, 0) / 65535
        case 5:
            planes = [stored(1 - COLORS[..., i]) for i in range(3)] + [stored(GRAY / 2)]
            colors = np.stack([(1 - planes[i] / top) * (1 - planes[3] / top) for i in range(3)], axis=-1)
        case 6:
            matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
            planes = [stored(plane) for plane in (COLORS @ matrix.T + [0, 128 / 255, 128 / 255]).clip(0, 1).T]
            planes = [plane.T for plane in planes]
            colors = (np.stack(planes, axis=-1) / top - [0, 128 / 255, 128 / 255]) @ np.linalg.inv(matrix).T
        case _:
            planes, colors = _lab(offset=photometric == 9, shift=max(0, int(depth[1:]) - 8))
    if extra and extra[0] == 1:
        planes = [stored(plane / top * alpha / top) for plane in planes]
        colors = np.stack([plane / top for plane in planes] * (3 // len(planes)), axis=-1) + 1 - alpha[..., None] / top
    elif extra and extra[0] == 2:
        colors = colors * (alpha[..., None] / top) + 1 - alpha[..., None] / top
    planes += [alpha] * (count - len(planes))
    return np.stack(planes, axis=-1), colors.clip(0, 1)


@functools.cache
def palette(size):
    """Return a color map [3, size] of 16 bits."""
    return np.random.default_rng(0).integers(0, 256, (3, size)) * 257


def _lab(*, offset, shift):
    image = Image.fromarray((COLORS * 255).round().astype(np.uint8))
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", 1)
    lab = ImageCms.applyTransform(image, transform)
    values = np.frombuffer(lab.tobytes(), np.uint8).reshape(HEIGHT, WIDTH, 3).astype(np.uint64)  # a and b are signed
    values[..., 1:] ^= 128 * offset
    return [values[..., i] << np.uint64(shift) for i in range(3)], np.asarray(lab.convert("RGB")) / 255


def tiff(values, kind, depth, layout=Layout(), more=()):
    """Return a TIFF of samples [H, W, S]; `more` has tags with their type and values."""
    photometric, count, extra = KINDS[kind]
    form, bits = depth[0], int(depth[1:])
    planes = np.split(values, count, axis=-1) if layout.planar == 2 else [values]
    blocks = [block for plane in planes for block in _blocks(plane, layout)]
    data = [_compressed(_rows(block, form, bits, layout), layout.compression) for block in blocks]
    tags = {256: (4, [WIDTH]), 257: (4, [HEIGHT]), 258: (3, [bits] * count), 259: (3, [layout.compression])}
    tags |= {262: (3, [photometric]), 277: (3, [count]), 284: (3, [layout.planar]), 317: (3, [layout.predictor])}
    tags |= {320: (3, palette(2**bits).reshape(-1).tolist())} if photometric == 3 and bits <= 16 else {}
    tags |= {338: (3, extra)} if extra else {}
    tags |= {339: (3, [{"i": 2, "f": 3}[form]] * count)} if form != "u" else {}
    tags |= {530: (3, [1, 1])} if photometric == 6 else {}
    sizes = [len(part) for part in data]
    if layout.tile:
        tags |= {322: (3, [layout.tile]), 323: (3, [layout.tile]), 324: (4, sizes), 325: (4, sizes)}
    else:
        tags |= {273: (4, sizes), 278: (4, [layout.rows]), 279: (4, sizes)}
    return _assembled(tags | dict(more), data, layout.order)


def _blocks(plane, layout):
    if layout.tile is None:
        return [plane[top : top + layout.rows] for top in range(0, HEIGHT, layout.rows)]
    side = layout.tile
    padded = np.pad(plane, ((0, -HEIGHT % side), (0, -WIDTH % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side] for top in range(0, HEIGHT, side) for left in range(0, WIDTH, side)
    ]


def _rows(block, form, bits, layout):
    """Return the bytes of each row."""
    height, _, count = block.shape
    if layout.predictor == 2:
        block = np.concatenate([block[:, :1], np.diff(block, axis=1)], axis=1) & np.uint64(2**bits - 1)
    flat = block.reshape(height, -1)
    if layout.predictor == 3:
        planes = np.frombuffer(flat.astype(f">f{bits // 8}").tobytes(), np.uint8).reshape(height, -1, bits // 8)
        flat = planes.transpose(0, 2, 1).reshape(height, -1).copy()
        flat[:, count:] -= flat[:, :-count].copy()
        return [row.tobytes() for row in flat]
    if bits % 8 == 0:
        return [row.tobytes() for row in flat.astype(f"{layout.order}{'f' if form == 'f' else 'u'}{bits // 8}")]
    places = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    ones = (flat[..., None] >> places & np.uint64(1)).astype(np.uint8).reshape(height, -1)
    return [row.tobytes() for row in np.packbits(ones, axis=1)]


def _compressed(rows, compression):
    match compression:
        case 1:
            return b"".join(rows)
        case 5:
            return _lzw(b"".join(rows))
        case 32773:
            parts = [row[start : start + 128] for row in rows for start in range(0, len(row), 128)]
            return b"".join(bytes([len(part) - 1]) + part for part in parts)
        case _:
            return zlib.compress(b"".join(rows), 1)


def _lzw(data):
    """Return valid LZW without any compression: literals of 9 bits, and a clear code before they grow."""
    codes = [code for start in range(0, len(data), 200) for code in (256, *data[start : start + 200])] + [257]
    ones = (np.array(codes)[:, None] >> np.arange(8, -1, -1) & 1).astype(np.uint8)
    return np.packbits(ones.reshape(-1)).tobytes()


def _assembled(tags, data, order):
    formats = {1: "B", 3: "H", 4: "I", 5: "I"}
    sizes = {tag: len(values) * struct.calcsize(formats[kind]) for tag, (kind, values) in tags.items()}
    rest_at = 8 + 2 + 12 * len(tags) + 4
    start = rest_at + sum(size for size in sizes.values() if size > 4)
    places = list(itertools.accumulate([len(part) for part in data[:-1]], initial=start))
    entries = rest = b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        values = places if tag in {273, 324} else values
        packed = struct.pack(f"{order}{len(values)}{formats[kind]}", *values)
        entries += struct.pack(order + "HHI", tag, kind, len(values) // (2 if kind == 5 else 1))
        if len(packed) > 4:
            entries += struct.pack(order + "I", rest_at + len(rest))
            rest += packed
        else:
            entries += packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + rest + b"".join(data)
