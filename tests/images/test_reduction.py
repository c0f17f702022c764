"""Large JPEGs are reduced while they are decoded."""

from dataclasses import replace

import numpy as np
import pytest
from encoded_images import STORED_AS, encode, exif
from PIL import Image

from tlcli.images.decode import UndecodableError, decode
from tlcli.images.preprocess import fit_image, oversampling
from tlcli.images.worker import DecodeOptions, read_image


def photograph(width, height):
    """Return soft shapes with fine grain, like a photograph."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / width * 9 + rows / height * turn) for turn in (2, 5, 11)]
    grain = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return np.clip(127 + 90 * np.stack(waves, axis=-1) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_reduced_while_decoding_and_gives_nearly_the_same_pixels(fit, orientation, small):
    upright = photograph(1600, 1200)
    stored = np.ascontiguousarray(STORED_AS[orientation](upright))
    data = encode(stored, "JPEG", quality=92, exif=exif(orientation))
    preprocessing = replace(small, height=32, width=64, fit=fit)
    sizes = []

    def needed(size):
        sizes.append(size)
        return oversampling(size, preprocessing)

    drafted, whole = decode(data, 3, needed), decode(data, 3)
    assert sizes == [(1600, 1200)], "the size of the upright image"
    assert whole.size == (1600, 1200)
    assert drafted.size in {(400, 300), (200, 150)}
    found, expected = (np.asarray(fit_image(p, preprocessing), np.float64) for p in (drafted, whole))
    assert np.abs(found - expected).mean() <= 1


@pytest.mark.parametrize(
    ("size", "form", "factor", "decoded"),
    [
        ((640, 480), "JPEG", 7.9, (160, 120)),
        ((640, 480), "JPEG", 1.9, (640, 480)),
        ((644, 484), "JPEG", 99, (161, 121)),  # not divisible by 8
        ((641, 480), "JPEG", 99, (641, 480)),
        ((640, 480), "PNG", 99, (640, 480)),
        ((640, 480), "MPO", 99, (80, 60)),
    ],
)
def test_reduction_while_decoding(size, form, factor, decoded):
    options = {"save_all": True, "append_images": [Image.new("RGB", size)]} if form == "MPO" else {}
    data = encode(photograph(*size), form, **options)
    assert decode(data, 3, lambda _: factor).size == decoded


def test_a_truncated_jpeg_is_rejected_at_every_size():
    data = encode(photograph(640, 480), "JPEG")
    with pytest.raises(UndecodableError, match="truncated"):
        decode(data[: len(data) // 2], 3, lambda _: 8)


def test_read_image_equals_decode_and_fit_image(tmp_path, small):
    path = tmp_path / "large.jpg"
    path.write_bytes(encode(photograph(960, 640), "JPEG"))
    image = decode(path.read_bytes(), 3, lambda size: oversampling(size, small))
    assert image.size != (960, 640)
    assert read_image(str(path), DecodeOptions(preprocessing=small)).pixels == fit_image(image, small).tobytes()
