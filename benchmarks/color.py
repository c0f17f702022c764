"""Measure what the conversion to sRGB costs while JPEGs are decoded and resized to 224 pixels.

usage: python benchmarks/color.py DATA [IMAGES]      (default: 300)
Uses one core. The same files are decoded without a profile, with one of sRGB, and with one of Display P3; each with
profiles converted, and with profiles ignored.
"""

import functools
import io
import statistics
import sys
import time
from itertools import islice
from pathlib import Path
from unittest import mock

from measure import NETWORK, machine, table
from PIL import Image, ImageCms

from tlcli.images import decode as decoding
from tlcli.images.color import ColorSpace
from tlcli.images.matrix_profile import SRGB_CURVE, rgb_profile
from tlcli.images.preprocess import fit_image, oversampling

P3 = rgb_profile((0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06), SRGB_CURVE)
PROFILES = {"none": b"", "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), "Display P3": P3}
ROUNDS = 9


def tagged(data, profile):
    """Return a JPEG with a profile and the same coefficients."""
    with Image.open(io.BytesIO(data)) as image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality="keep", icc_profile=profile)
    return file.getvalue()


def no_color_space(*_):
    """Ignore profiles. A Mock would take longer than what is measured."""
    return ColorSpace()


def seconds(files):
    """Return the core time per image."""
    needed = functools.partial(oversampling, preprocessing=NETWORK)
    started = time.process_time()
    for data in files:
        fit_image(decoding.decode(data, 3, needed), NETWORK)
    return (time.process_time() - started) / len(files)


data, count = sys.argv[1], int((sys.argv[2:] or ["300"])[0])
paths = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
originals = [path.read_bytes() for path in islice(paths, 0, None, max(1, len(paths) // count))]
rows = []
for name, profile in PROFILES.items():
    files = [tagged(data, profile) for data in originals]
    ratios, taken = [], []
    for _ in range(ROUNDS):
        taken.append(seconds(files))
        with mock.patch.object(decoding, "color_space", no_color_space):
            ratios.append(taken[-1] / seconds(files))
    rows.append([name, f"{1000 * statistics.median(taken):.2f} ms", f"{100 * statistics.median(ratios) - 100:+.1f} %"])
print(machine(), end="\n\n")
print(table(["profile", "core time per image", "compared with ignoring it"], rows))
