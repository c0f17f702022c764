"""Convert images to sRGB, the color space of pretrained networks, by the color information in a file. Torch-free.

An embedded ICC profile is converted by LittleCMS, relative colorimetric with black point compensation. Colors that a
file describes by numbers (PNG's cICP, gAMA, and cHRM, and nclx in AVIF and HEIC) become a profile first. HDR is
rejected, because its appearance depends on the display. An image without any of these is sRGB.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageFile

from tlcli.images.matrix_profile import SRGB, SRGB_CURVE, Chromaticities, Curve, gamma, gray_profile, rgb_profile

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

Note = Callable[[str], object]
"""Receives a remark on a part of the file that was ignored."""

DAMAGED_PROFILE = "ICC profile ignored, because it is damaged or cannot be converted"
OTHER_PROFILE = "ICC profile ignored, because it is for another color mode than the image's"

PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}
"""Color space of the profile that applies to each mode."""

MAX_STEP = 4
"""Levels of 255 by which neighboring gray levels may differ after conversion, in an image of 16 bits per channel, of
which only 8 are decoded. Linear profiles have steps of up to 13."""

D65 = SRGB[:2]
PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    2: SRGB,  # unspecified
    5: (*D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""Chromaticities by their number in ITU-T H.273."""

CURVES: dict[int, Curve] = dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE) | {
    4: gamma(2.2),
    5: gamma(2.8),
    8: gamma(1.0),
}
"""Curves by their number in ITU-T H.273. Video curves (1, 6, 14, 15) are displayed like sRGB."""

HDR_CURVES = {16: "PQ", 18: "HLG"}

GAMMA_TOLERANCE = 0.05
"""Relative difference from 1 / 2.2 below which PNG's gAMA stands for sRGB, as in libpng."""

CHROMATICITY_TOLERANCE = 0.005
"""Difference from sRGB below which chromaticities are those of sRGB."""


class UnsupportedColorError(Exception):
    """The image's colors cannot be converted; the message is the reason."""


class ColorSpace(NamedTuple):
    """The color space of an image, found before it is decoded."""

    profile: bytes | None = None
    """ICC profile; None is sRGB."""
    deep: bool = False
    """Whether the file has 16 bits per channel, of which only the upper 8 are decoded."""


class Conversion(NamedTuple):
    """How to convert an image to sRGB; without any of the fields, it is unchanged."""

    problem: str | None = None
    """Why the profile is ignored."""
    levels: list[int] | None = None
    """New level of each level of a gray image."""
    transform: ImageCmsTransform | None = None
    """Converts RGB and CMYK images to RGB, RGBA images to RGBA."""
    step: int = 0
    """Largest difference between the new levels of neighboring gray levels."""
    change: int = 0
    """Largest difference between the new level of a gray level and itself."""


def color_space(image: Image.Image, data: bytes, note: Note | None = None) -> ColorSpace:
    """Return the color space of an image that is open, but not decoded.

    Args:
        image: The image.
        data: Content of its file.
        note: Called if the file contains an unreadable profile.

    Raises:
        UnsupportedColorError: The image is HDR, or in an unsupported color space.
    """
    tiles = str(image.tile[:1]) if isinstance(image, ImageFile.ImageFile) else ""
    deep = image.mode in {"RGB", "RGBA", "LA", "CMYK"} and ";16" in tiles
    codes = _color_codes(image, data)
    if codes is not None and (codes[1] in HDR_CURVES or image.format == "PNG" or not image.info.get("icc_profile")):
        return ColorSpace(_profile_of_codes(*codes, gray=image.mode[0] in "LI1"), deep)
    if "icc_profile" in image.info:
        profile: object = image.info["icc_profile"]
        if isinstance(profile, bytes) and profile:
            return ColorSpace(profile, deep)
        if note is not None:
            note(DAMAGED_PROFILE)
    elif image.format == "PNG" and "gamma" in image.info and "srgb" not in image.info:
        return ColorSpace(_profile_of_png(image), deep)
    return ColorSpace(None, deep)


def check_profile(image: Image.Image, note: Note) -> None:
    """Call `note` if the profile of an image that is open, but not decoded, will be ignored."""
    if "icc_profile" not in image.info or image.mode in {"1", "I", "F", "LAB"}:
        return
    profile: object = image.info["icc_profile"]  # None if it cannot be read
    mode = "L" if image.mode[0] in "LI" else image.mode if image.mode in PROFILE_SPACES else "RGB"
    problem = find_conversion(profile, mode).problem if isinstance(profile, bytes) and profile else DAMAGED_PROFILE
    if problem is not None:
        note(problem)


def to_srgb(image: Image.Image, space: ColorSpace, note: Note | None = None) -> Image.Image:
    """Convert an image of mode L, LA, RGB, RGBA, or CMYK to sRGB, in place where possible; ignore other modes.

    Args:
        image: The image.
        space: Its color space.
        note: Called if the profile is ignored.

    Raises:
        UnsupportedColorError: With 8 bits per channel, the result would have visible steps.
    """
    mode = {"LA": "L"}.get(image.mode, image.mode)
    if space.profile is None or mode == "1":
        return image
    conversion = find_conversion(space.profile, mode)
    if conversion.problem is not None:
        if note is not None:
            note(conversion.problem)
    elif space.deep and conversion.step > MAX_STEP:
        raise UnsupportedColorError("16-bit color in a linear color space is not supported; save it as sRGB")
    elif conversion.levels is not None:
        return image.point(conversion.levels + list(range(256)) * (len(image.getbands()) - 1))
    elif conversion.transform is not None and image.mode == "CMYK":
        return conversion.transform.apply(image)
    elif conversion.transform is not None:
        conversion.transform.apply_in_place(image)
    return image


def gray_levels(space: ColorSpace, note: Note | None = None) -> list[int] | None:
    """Return the sRGB level of each gray level; None if they are unchanged.

    Args:
        space: The color space of a gray image.
        note: Called if the profile is ignored.
    """
    conversion = Conversion() if space.profile is None else find_conversion(space.profile, "L")
    if conversion.problem is not None and note is not None:
        note(conversion.problem)
    return conversion.levels


@functools.lru_cache(maxsize=8)
def find_conversion(profile: bytes, mode: str) -> Conversion:
    """Return how to convert an image of this mode; cached, because most images have the same few profiles."""
    from PIL import ImageCms

    # By default, LittleCMS approximates gray curves coarsely: a linear one is off by up to 9 levels.
    precision = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.HIGHRESPRECALC
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if mode == "L" and space == "RGB" and find_conversion(profile, "RGB").change <= 1:
            return Conversion()  # its gray is that of sRGB, as in Display P3
        if space != PROFILE_SPACES.get(mode):
            return Conversion(problem=OTHER_PROFILE)
        transform = ImageCms.ImageCmsTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGBA" if mode == "RGBA" else "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | precision,
        )
    except (OSError, ValueError, ImageCms.PyCMSError):
        return Conversion(problem=DAMAGED_PROFILE)
    if mode == "CMYK":
        return Conversion(transform=transform)
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    levels = list(transform.apply(ramp.convert(mode)).convert("L").tobytes())
    step = max(abs(high - low) for low, high in itertools.pairwise(levels))
    change = max(abs(new - old) for old, new in enumerate(levels))
    if mode == "L":
        return Conversion(levels=levels if change > 1 else None, step=step, change=change)
    probe = _probe().convert(mode)
    changed = max(abs(new - old) for old, new in zip(probe.tobytes(), transform.apply(probe).tobytes(), strict=True))
    return Conversion(transform=transform if changed > 1 else None, step=step, change=change)


def _probe() -> Image.Image:
    """Return an RGB image of 9 levels of each channel in all combinations."""
    levels = [round(255 * i / 8) for i in range(9)]
    return Image.frombytes("RGB", (81, 9), bytes(v for r in levels for g in levels for b in levels for v in (r, g, b)))


def _profile_of_codes(primaries: int, curve: int, full_range: bool, *, gray: bool) -> bytes | None:
    """Return the profile of a color space by its numbers in ITU-T H.273; None is sRGB."""
    if curve in HDR_CURVES:
        raise UnsupportedColorError(f"an HDR image ({HDR_CURVES[curve]}), which is not supported; save it as sRGB")
    if primaries not in PRIMARIES or curve not in CURVES or not full_range:
        raise UnsupportedColorError(
            f"its color space (primaries {primaries}, transfer {curve}{'' if full_range else ', narrow range'} of "
            "ITU-T H.273) is not supported; save it as sRGB"
        )
    return _profile(PRIMARIES[primaries], CURVES[curve], gray=gray)


def _profile_of_png(image: Image.Image) -> bytes | None:
    """Return the profile that a PNG's gAMA and cHRM describe; None is sRGB."""
    exponent: float = image.info["gamma"]
    if not 0.01 <= exponent <= 100:  # like libpng, ignore invalid values
        return None
    curve = SRGB_CURVE if abs(exponent * 2.2 - 1) < GAMMA_TOLERANCE else gamma(1 / exponent)
    try:
        return _profile(image.info.get("chromaticity", SRGB), curve, gray=image.mode[0] in "LI1")
    except ValueError:
        return _profile(SRGB, curve, gray=image.mode[0] in "LI1")


def _profile(chromaticities: Chromaticities, curve: Curve, *, gray: bool) -> bytes | None:
    is_srgb = all(abs(a - b) < CHROMATICITY_TOLERANCE for a, b in zip(chromaticities, SRGB, strict=True))
    if curve == SRGB_CURVE and (gray or is_srgb):
        return None
    return gray_profile(curve) if gray else rgb_profile(chromaticities, curve)


def _color_codes(image: Image.Image, data: bytes) -> tuple[int, int, bool] | None:
    """Return primaries, curve, and whether the range is full, as numbers of ITU-T H.273; None if the file has none."""
    if image.format == "PNG":
        for name, start in _png_chunks(data):
            if name == b"cICP" and len(data) >= start + 4:
                return data[start], data[start + 1], data[start + 3] != 0
    elif image.format in {"AVIF", "HEIF"}:
        # In the box `meta`; the range is left out, because decoders convert it.
        meta = data.find(b"meta")
        if meta < 4:
            return None
        found = data.find(b"colrnclx", meta, meta + int.from_bytes(data[meta - 4 : meta]))
        if found >= 0 and len(data) >= found + 12:
            return *struct.unpack_from(">HH", data, found + 8), True
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and start of the chunks before the pixels."""
    place = 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"IDAT":
            return
        yield name, place + 8
        place += length + 12
