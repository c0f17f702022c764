"""Color: profiles, PNG's and HEIC's numbers, and what is ignored, against conversions computed here."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tlcli.images.color import DAMAGED_PROFILE, OTHER_PROFILE, find_conversion
from tlcli.images.decode import UndecodableError, decode, dimensions
from tlcli.images.loader import ImageLoader
from tlcli.images.matrix_profile import SRGB, SRGB_CURVE, gamma, gray_profile, rgb_profile
from tlcli.images.worker import DecodeOptions

D65 = SRGB[:2]
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
P3 = (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT2020 = (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
PROFILES = {
    "Display P3": rgb_profile(P3, SRGB_CURVE),
    "Adobe RGB": rgb_profile(ADOBE, gamma(563 / 256)),
    "ProPhoto": rgb_profile(PROPHOTO, gamma(1.8)),
    "linear": rgb_profile(SRGB, gamma(1)),
}
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
ROWS, COLUMNS = np.mgrid[:16, :24]
COLORS = np.stack([60 + COLUMNS * 6, 60 + ROWS * 8, 200 - (ROWS + COLUMNS) * 3], axis=-1).astype(np.uint8)
"""Colors inside of every gamut."""

ENCODERS = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def srgb_levels(light):
    """Return levels of 255 from light in [0, 1]."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def encode(image, form="PNG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, form, **ENCODERS[form] | options)
    return file.getvalue()


def stored(profile, image=COLORS):
    """Return the image in the color space of a profile, from sRGB."""
    source, target = ImageCms.createProfile("sRGB"), io.BytesIO(profile)
    found = ImageCms.profileToProfile(Image.fromarray(image), source, target, renderingIntent=1, outputMode="RGB")
    found.info.clear()  # otherwise it is saved with the profile
    return found


def array(data, channels=3, note=None):
    return np.asarray(decode(data, channels, note=note), np.int16)


def png(image, **chunks):
    """Return a PNG with more chunks before its pixels."""
    data = encode(image)
    more = (
        struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in chunks.items()
    )
    return data[:33] + b"".join(more) + data[33:]


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


# Colors described by numbers


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
        np.testing.assert_array_equal(array(png(image, **chunks)), array(encode(image)))


@pytest.mark.parametrize("chunks", [LINEAR, {"cICP": bytes([1, 8, 0, 1])}, {**LINEAR, "cHRM": bytes(32)}])
def test_a_linear_png_is_converted(chunks):
    expected = srgb_levels(np.arange(256) / 255)[:, None]
    for image in (RAMP, np.stack([RAMP] * 3, axis=-1)):
        assert np.abs(array(png(image, **chunks)).reshape(256, 3) - expected).max() <= 1


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
    assert np.abs(array(png(stored(rgb_profile(*profile)), **chunks)) - COLORS).max() <= 3


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
        array(png(COLORS, cICP=bytes(codes)))


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
    header = struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0)
    for chunks, accepted in (({}, True), (NEARLY_SRGB, True), (LINEAR, False)):
        parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
            for name, body in parts.items()
        )
        if accepted:
            np.testing.assert_array_equal(array(data), COLORS)
        else:
            with pytest.raises(UndecodableError, match="16-bit color in a linear color space"):
                array(data)
