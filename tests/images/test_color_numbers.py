"""Color spaces that PNG, AVIF, and HEIC describe by numbers are converted to sRGB or rejected."""

import io
import struct

import numpy as np
import pytest
from color_images import ADOBE, BT2020, COLORS, P3, PROFILES, PROPHOTO, RAMP, encode, srgb_levels, stored, tagged_png
from encoded_images import array, png

from tlcli.images.decode import UndecodableError
from tlcli.images.matrix_profile import SRGB, SRGB_CURVE, gamma, rgb_profile


def chromaticities(values):
    return struct.pack(">8I", *(round(100_000 * value) for value in values))


LINEAR = {"gAMA": struct.pack(">I", 100_000)}
NEARLY_SRGB = {"gAMA": struct.pack(">I", 45_455), "cHRM": chromaticities(SRGB)}


@pytest.mark.parametrize(
    "chunks",
    [
        NEARLY_SRGB,
        {"gAMA": NEARLY_SRGB["gAMA"]},
        {"gAMA": bytes(4)},
        {"cHRM": chromaticities(P3)},  # as in browsers, of no use without gAMA
        {"sRGB": b"\0", **LINEAR},
        {"cICP": bytes([1, 13, 0, 1]), **LINEAR},
        {"cICP": bytes([2, 2, 0, 1])},
    ],
)
def test_png_chunks_that_mean_srgb(chunks):
    for image in (COLORS, RAMP):
        np.testing.assert_array_equal(array(tagged_png(image, **chunks)), array(encode(image)))


@pytest.mark.parametrize("chunks", [LINEAR, {"cICP": bytes([1, 8, 0, 1])}, {**LINEAR, "cHRM": bytes(32)}])
def test_a_linear_png_is_converted(chunks):
    expected = srgb_levels(np.arange(256) / 255)[:, None]
    for image in (RAMP, np.stack([RAMP] * 3, axis=-1)):
        assert np.abs(array(tagged_png(image, **chunks)).reshape(256, 3) - expected).max() <= 1


@pytest.mark.parametrize(
    ("profile", "chunks"),
    [
        ((P3, SRGB_CURVE), {"cICP": bytes([12, 13, 0, 1])}),
        ((BT2020, SRGB_CURVE), {"cICP": bytes([9, 1, 0, 1])}),
        ((ADOBE, SRGB_CURVE), {**NEARLY_SRGB, "cHRM": chromaticities(ADOBE)}),
        ((PROPHOTO, gamma(1.8)), {"gAMA": struct.pack(">I", 55_556), "cHRM": chromaticities(PROPHOTO)}),
    ],
)
def test_the_primaries_of_a_png_are_converted(profile, chunks):
    assert np.abs(array(tagged_png(stored(rgb_profile(*profile)), **chunks)) - COLORS).max() <= 3


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((9, 16, 0, 1), r"HDR image \(PQ\)"),
        ((9, 18, 0, 1), "HLG"),
        ((1, 13, 0, 0), "narrow range"),
        ((3, 13, 0, 1), "primaries 3"),
    ],
)
def test_hdr_and_unknown_color_spaces_are_rejected(codes, reason):
    with pytest.raises(UndecodableError, match=f"{reason}.*save it as sRGB"):
        array(tagged_png(COLORS, cICP=bytes(codes)))


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_the_numbers_of_avif_and_heic(form):
    if form == "AVIF":
        data = encode(stored(PROFILES["Display P3"]), "AVIF")
    else:
        file = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(stored(PROFILES["Display P3"])).save(
            file, quality=-1, chroma=444, save_nclx_profile=True, color_primaries=1, transfer_characteristics=13
        )
        data = file.getvalue()
    at = data.index(b"colrnclx") + 8
    tagged = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert np.abs(array(tagged) - COLORS).mean() < 2 < np.abs(array(data) - COLORS).mean()
    with pytest.raises(UndecodableError, match="HDR"):
        array(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :])


def test_16_bits_in_a_linear_space_are_rejected():
    rows = b"".join(b"\0" + row.tobytes() for row in (COLORS.astype(">u2") * 257))
    for chunks, accepted in (({}, True), (NEARLY_SRGB, True), (LINEAR, False)):
        data = png(24, 16, 16, 2, rows, **chunks)
        if accepted:
            np.testing.assert_array_equal(array(data), COLORS)
        else:
            with pytest.raises(UndecodableError, match="16-bit color in a linear color space"):
                array(data)
