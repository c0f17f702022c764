"""Write ICC profiles of color spaces that a file describes by numbers: primaries and a curve. Torch-free."""

from __future__ import annotations

import functools
import struct

Chromaticities = tuple[float, ...]
"""x and y of white, red, green, and blue, in this order: eight numbers of the CIE 1931 diagram."""

Curve = tuple[float, float, float, float, float]
"""Curve from a stored value x in [0, 1] to light: (a x + b) ** g from x = d on, and c x below, as (g, a, b, c, d)."""

SRGB: Chromaticities = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

D50 = (0.9642, 1.0, 0.8249)
"""The white of all ICC profiles, as X, Y, and Z."""

BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
"""Adapts colors to another white; the matrix of the ICC specification."""


def gamma(exponent: float) -> Curve:
    """Return the curve x ** exponent."""
    return exponent, 1.0, 0.0, 0.0, 0.0


@functools.lru_cache(maxsize=16)
def rgb_profile(chromaticities: Chromaticities, curve: Curve) -> bytes:
    """Return an ICC profile of RGB images.

    Raises:
        ValueError: The chromaticities describe no color space.
    """
    import numpy as np

    xy = np.array(chromaticities).reshape(4, 2)
    if not (np.isfinite(xy).all() and (xy[:, 1] > 0).all()):
        raise ValueError("the chromaticities do not define a color space")
    white, *primaries = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]], axis=1)
    try:
        matrix = np.stack(primaries, axis=1)
        matrix = matrix * np.linalg.solve(matrix, white)
        bradford = np.array(BRADFORD)
        gain = np.diag((bradford @ np.array(D50)) / (bradford @ white))
        red, green, blue = (np.linalg.inv(bradford) @ gain @ bradford @ matrix).T
    except np.linalg.LinAlgError as error:
        raise ValueError("the chromaticities do not define a color space") from error
    columns = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    tags = {name: b"XYZ \0\0\0\0" + _fixed(*map(float, column)) for name, column in columns.items()}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve)))


@functools.lru_cache(maxsize=16)
def gray_profile(curve: Curve) -> bytes:
    """Return an ICC profile of gray images."""
    return _profile(b"GRAY", {b"kTRC": _curve(curve)})


def _fixed(*values: float) -> bytes:
    """Return signed numbers with 16 bits before and 16 bits after the point."""
    try:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
    except (struct.error, OverflowError) as error:
        raise ValueError("the chromaticities do not define a color space") from error


def _curve(curve: Curve) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(*curve)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of ICC version 4.3."""
    name = "tlcli".encode("utf-16-be")
    text = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(name), 28) + name
    tags = {b"desc": text, b"cprt": text, b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50)} | tags
    start = 132 + 12 * len(tags)
    table, body = b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s28x", 2026, 1, 1, 0, 0, 0, b"acsp") + _fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
