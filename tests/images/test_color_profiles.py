"""Profiles are converted to sRGB, against conversions computed here, or ignored with a note."""

import io
import struct

import numpy as np
import pytest
from color_images import COLORS, COLUMNS, ENCODERS, PROFILES, RAMP, encode, srgb_levels, stored
from encoded_images import array
from PIL import Image, ImageCms

from tlcli.images.color import DAMAGED_PROFILE, OTHER_PROFILE, find_conversion
from tlcli.images.decode import decode, dimensions
from tlcli.images.loader import ImageLoader
from tlcli.images.matrix_profile import SRGB, SRGB_CURVE, gamma, gray_profile, rgb_profile
from tlcli.images.worker import DecodeOptions


@pytest.mark.parametrize("form", ENCODERS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_converted_to_srgb(form, profile):
    data = encode(stored(PROFILES[profile]), form, icc_profile=PROFILES[profile])
    difference = np.abs(array(data) - COLORS)
    assert difference.mean() < (1.5 if form == "AVIF" else 1)
    assert form in {"JPEG", "AVIF"} or difference.max() <= 2


def test_a_profile_of_heic_is_converted():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(stored(PROFILES["Adobe RGB"])).save(
        file, quality=-1, chroma=444, icc_profile=PROFILES["Adobe RGB"]
    )
    assert np.abs(array(file.getvalue()) - COLORS).mean() < 1


def test_a_profile_keeps_transparency_and_palettes():
    profile = PROFILES["Adobe RGB"]
    alpha = Image.fromarray((COLUMNS * 10).astype(np.uint8))
    found, expected = stored(profile), Image.fromarray(COLORS)
    for image in (found, expected):
        image.putalpha(alpha)
    assert np.abs(array(encode(found, icc_profile=profile)) - array(encode(expected))).max() <= 2
    found = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    found.putpalette(stored(profile).tobytes()[:3])
    assert np.abs(array(encode(found, icc_profile=profile)) - COLORS[0, 0]).max() <= 2


def test_a_reduced_jpeg_is_converted():
    profile = PROFILES["Adobe RGB"]
    large = np.kron(COLORS, np.ones((32, 32, 1))).astype(np.uint8)
    image = decode(encode(stored(profile, large), "JPEG", icc_profile=profile), 3, lambda _: 8)
    assert image.size == (96, 64)
    assert np.abs(np.asarray(image, np.int16)[2::4, 2::4] - COLORS).mean() < 1


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_gray_profile_is_converted(exponent, form):
    profile = gray_profile(gamma(exponent))
    expected = srgb_levels((np.arange(256) / 255) ** exponent)
    for pixels in (RAMP, RAMP.astype(np.uint16) * 257):
        for channels in (1, 3):
            found = array(encode(pixels, form, icc_profile=profile), channels).reshape(256, -1)
            assert np.abs(found - expected[:, None]).max() <= 1
    assert (array(encode(RAMP.astype(np.uint16), form, icc_profile=profile))).max() <= 13
    raw = decode(encode(RAMP.astype(np.uint16) * 257, form, icc_profile=profile), 1, intensity=(0, 65535))
    np.testing.assert_array_equal(raw, RAMP)  # measured values are never converted


def cmyk_profile():
    """Return a CMYK profile with a table of two points per ink: Lab of red, green, and blue light that inks absorb."""
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = Image.fromarray((255 * (1 - inks[:, :3]) * (1 - inks[:, 3:])).astype(np.uint8)[None])
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB", 1)
    values = np.asarray(ImageCms.applyTransform(light, transform))[0].astype(np.uint8)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + values.tobytes()
    table += bytes(range(256)) * 3
    text = b"text\0\0\0\0a profile\0\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"a\0" + bytes(78), b"cprt": text, b"A2B0": table}
    start, entries, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x3I", start + len(body), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp", 63190, 65536, 54061
    )
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


def test_a_cmyk_profile_is_converted():
    profile, inks = cmyk_profile(), Image.new("CMYK", (16, 16), (128, 0, 0, 0))
    found = [array(encode(inks, form, icc_profile=profile))[8, 8] for form in ("JPEG", "TIFF")]
    source, target = io.BytesIO(profile), ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(inks, source, target, renderingIntent=1, outputMode="RGB").getpixel((8, 8))
    assert np.abs(np.array(expected) - [127, 255, 255]).max() > 20, "differs from the conversion without a profile"
    assert np.abs(np.array(found) - expected).max() <= 3


@pytest.mark.parametrize(
    ("image", "profile", "note"),
    [
        (COLORS, b"no profile" * 20, DAMAGED_PROFILE),
        (COLORS, PROFILES["Adobe RGB"][:300], DAMAGED_PROFILE),
        (RAMP, PROFILES["Adobe RGB"], OTHER_PROFILE),
        (COLORS, gray_profile(gamma(1)), OTHER_PROFILE),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_an_unusable_profile_is_ignored_with_a_note(image, profile, note, form):
    notes = []
    found = array(encode(image, form, icc_profile=profile), note=notes.append)
    np.testing.assert_array_equal(found, array(encode(image, form)))
    assert notes == [note]


def test_the_profile_of_a_gray_image_may_be_for_rgb_if_gray_is_that_of_srgb():
    notes = []
    found = array(encode(RAMP, icc_profile=PROFILES["Display P3"]), 1, note=notes.append)
    np.testing.assert_array_equal(found, RAMP)
    assert notes == []


@pytest.mark.parametrize("profile", [None, PROFILES["Adobe RGB"], b"damaged"])
def test_ignored_profiles_are_found_without_decoding(profile):
    note = {None: [], b"damaged": [DAMAGED_PROFILE]}.get(profile)
    for image, expected in ((COLORS, note or []), (RAMP, [OTHER_PROFILE] if note is None else note)):
        for found in (Image.fromarray(image), Image.fromarray(image).convert("P")):
            notes = []
            dimensions(io.BytesIO(encode(found, icc_profile=profile)), notes.append)
            assert notes == (expected if found.mode != "P" else note or [])


def test_a_profile_of_srgb_changes_nothing():
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), rgb_profile(SRGB, SRGB_CURVE)):
        assert find_conversion(profile, "RGB").transform is None
        np.testing.assert_array_equal(array(encode(COLORS, icc_profile=profile)), COLORS)
    assert find_conversion(gray_profile(SRGB_CURVE), "L").levels is None


def test_the_loader_reports_notes(tmp_path, small, report):
    details = []
    report.detail = details.append
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(encode(COLORS, icc_profile=b"" if name == "c.png" else b"damaged"))
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1, report=report) as loader:
        assert [image.note for image in loader.load(paths)] == [DAMAGED_PROFILE, DAMAGED_PROFILE, None]
    assert details == [f"  {DAMAGED_PROFILE}: {paths[0]} and 1 more"]
