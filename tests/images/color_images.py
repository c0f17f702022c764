"""An image in other color spaces, described by profiles or by numbers."""

import io

import encoded_images
import numpy as np
from encoded_images import png_chunks
from PIL import Image, ImageCms

from tlcli.images.matrix_profile import SRGB, SRGB_CURVE, gamma, rgb_profile

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
    return encoded_images.encode(image, form, **ENCODERS[form] | options)


def stored(profile, image=COLORS):
    """Return the image in the color space of a profile, from sRGB."""
    source, target = ImageCms.createProfile("sRGB"), io.BytesIO(profile)
    found = ImageCms.profileToProfile(Image.fromarray(image), source, target, renderingIntent=1, outputMode="RGB")
    found.info.clear()  # otherwise it is saved with the profile
    return found


def tagged_png(image, **chunks):
    """Return a PNG with more chunks before its pixels."""
    data = encode(image)
    return data[:33] + png_chunks(**chunks) + data[33:]
