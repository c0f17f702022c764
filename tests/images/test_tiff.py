"""TIFFs of which Pillow would silently ignore a part: they are decoded correctly or rejected with a reason."""

import io
import random
import struct

import numpy as np
import pytest
from tiff_layouts import DEPTHS, KINDS, Layout, layouts, samples
from tiff_layouts import tiff as layout_tiff

from tlcli.images.decode import UndecodableError, decode, dimensions, measure_intensity

COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 6)).astype(np.uint8)


def tiff(pixels, photometric, *, extra=(), form=()):
    """Return a TIFF of [H, W, C] pixels; `extra` is the tag ExtraSamples, `form` the tag SampleFormat (2: signed)."""
    height, width, channels = pixels.shape
    tags = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 259: [1], 262: [photometric]}
    tags |= {273: [8], 277: [channels], 279: [pixels.nbytes], 338: extra, 339: form}
    tags = {tag: values for tag, values in tags.items() if values}
    directory = 8 + pixels.nbytes
    entries, rest = b"", b""
    for tag, values in tags.items():
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            place = struct.pack("<I", directory + 2 + 12 * len(tags) + 4 + len(rest))
            rest += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, 3, len(values)) + place
    head = b"II*\0" + struct.pack("<I", directory)
    return head + pixels.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4) + rest


@pytest.mark.parametrize(("channels", "photometric"), [(2, 1), (4, 2), (5, 2), (6, 2)])
def test_channels_of_unspecified_meaning_are_rejected(channels, photometric):
    extra = [0] * (channels - (1 if photometric == 1 else 3))
    data = tiff(COLORS[..., :channels].copy(), photometric, extra=extra)
    for read in (lambda: decode(data, 3), lambda: dimensions(io.BytesIO(data))):
        with pytest.raises(UndecodableError, match=rf"a TIFF with {channels} channels of 8 bits"):
            read()


@pytest.mark.parametrize("alpha", [1, 2])
def test_alpha_channels_are_accepted(alpha):
    colors = COLORS[..., :3].copy()
    opaque = np.concatenate([colors, np.full_like(colors[..., :1], 255)], axis=-1)
    np.testing.assert_array_equal(decode(tiff(opaque, 2, extra=[alpha]), 3), colors)
    np.testing.assert_array_equal(decode(tiff(colors, 2), 3), colors)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_zero_is_inverted(kind):
    values = np.linspace(0, np.iinfo(kind).max, 256).astype(kind).reshape(16, 16, 1)
    negative, positive = tiff(np.invert(values), 0), tiff(values, 1)
    for intensity in (None, (1000, 3000)):
        np.testing.assert_array_equal(*(decode(data, 1, intensity=intensity) for data in (negative, positive)))
    assert measure_intensity(tiff(values[:4].copy(), 0)) == (None if kind is np.uint8 else (49344, 65535))


def test_signed_8_bit_values_are_rejected():
    values = np.arange(-128, 128).astype(np.int8).reshape(16, 16, 1)
    with pytest.raises(UndecodableError, match="a TIFF with signed 8-bit values"):
        decode(tiff(values, 1, form=[2]), 3)
    assert measure_intensity(tiff(values.astype(np.int16), 1, form=[2])) == (-128, 127)


def test_a_truncated_file_is_reported_as_truncated():
    data = tiff(COLORS[..., :3].copy(), 2)
    directory = struct.unpack("<I", data[4:8])[0]
    for length in (6, 50, directory, directory + 1, directory + 2, directory + 14):  # before and after the width
        with pytest.raises(UndecodableError, match="a truncated or damaged TIFF"):
            decode(data[:length], 3)


# Every combination of samples and layout, against the values written

RIGHT = {
    "gray": {"u1", "u2", "u4", "u8", "u12", "u16", "u32", "i16", "i32", "f32"},
    "negative": {"u1", "u2", "u4", "u8", "u16"},
    "RGB": {"u8", "u16"},
    "RGB, alpha": {"u8", "u16"},
    "RGB, associated alpha": {"u8", "u16"},
    "gray, alpha": {"u8"},
    "gray, associated alpha": {"u8"},
    "palette": {"u1", "u2", "u4", "u8"},
    "palette, alpha": {"u8"},
    "CMYK": {"u8", "u16"},
    "YCbCr": {"u8"},
    "Lab": {"u8"},
}
"""Depths of each kind that are decoded; the others are rejected."""

LITTLE_ENDIAN_ONLY = {("gray", "u12"), ("gray", "u32"), ("negative", "u16")}
INTERLEAVED_ONLY = {"gray, alpha", "gray, associated alpha", "palette, alpha", "Lab"}
PALETTES = {"u1", "u2", "u4", "u8", "u12"}
CASES = {kind: [depth for depth in DEPTHS if depth in PALETTES or not kind.startswith("palette")] for kind in KINDS}


def is_decoded(kind, depth, layout):
    return (
        depth in RIGHT.get(kind, ())
        and (layout.order == "<" or (kind, depth) not in LITTLE_ENDIAN_ONLY)
        and (layout.planar == 1 or kind not in INTERLEAVED_ONLY)
    )


def check(kind, depth, chosen):
    values, colors = samples(kind, depth)
    top = {"u": 2.0 ** int(depth[1:]) - 1, "i": 2.0 ** (int(depth[1:]) - 1) - 1, "f": 1.0}[depth[0]]
    intensity = (0, top) if depth in {"u32", "i16", "i32", "f32"} else None
    for layout in chosen:
        data = layout_tiff(values, kind, depth, layout)
        if not is_decoded(kind, depth, layout):
            with pytest.raises(UndecodableError, match="TIFF"):
                decode(data, 3, intensity=intensity)
            continue
        difference = np.abs(np.asarray(decode(data, 3, intensity=intensity)) - 255 * colors)
        assert difference.max() <= (2 if "associated" not in kind and kind not in {"YCbCr", "Lab"} else 4), layout


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_is_right_or_rejected(kind):
    for depth in CASES[kind]:
        check(kind, depth, random.Random(kind + depth).sample(list(layouts(depth)), 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_right_or_rejected(kind):
    for depth in CASES[kind]:
        check(kind, depth, layouts(depth))


@pytest.mark.parametrize("depth", ["u8", "u16"])
@pytest.mark.parametrize("layout", [Layout(planar=2), Layout(planar=2, tile=16, order=">"), Layout(planar=2, rows=8)])
def test_uncompressed_planes_are_decoded(depth, layout):
    for kind in ("RGB", "CMYK", "RGB, alpha", "negative"):
        check(kind, depth, [layout] if is_decoded(kind, depth, layout) else [])


@pytest.mark.parametrize(
    ("kind", "tags", "reason"),
    [
        ("CMYK", {332: (3, [2])}, "other inks than CMYK"),
        ("CMYK", {336: (3, [255, 0])}, "its own ink range"),
        ("RGB", {532: (5, [16, 1, 235, 1] * 3)}, "its own black and white"),
        ("RGB", {258: (3, [8, 8, 16])}, "3 channels of 8/16 bits"),
    ],
)
def test_tags_that_change_the_meaning_of_values_are_rejected(kind, tags, reason):
    with pytest.raises(UndecodableError, match=reason):
        decode(layout_tiff(samples(kind, "u8")[0], kind, "u8", more=tags.items()), 3)
