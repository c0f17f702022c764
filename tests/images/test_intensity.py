"""Gray images with more than 8 bits, scaled by a range."""

import io

import numpy as np
import pytest
from encoded_images import encode
from PIL import Image

from tlcli.errors import UsageError
from tlcli.images.decode import UndecodableError, decode, measure_intensity
from tlcli.settings import NetworkSettings

RAMP = np.linspace(0, 4095, 256).reshape(16, 16)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_the_range_is_scaled_to_black_and_white_and_other_values_are_clipped(kind):
    found = np.asarray(decode(encode(RAMP.astype(kind), "TIFF"), 1, intensity=(1000, 3000)), np.float64)
    expected = np.clip((RAMP.astype(kind) - 1000.0) * 255 / 2000, 0, 255)
    assert np.abs(found - expected).max() <= 0.5


def test_floats_between_zero_and_one():
    found = np.asarray(decode(encode((RAMP / 4095).astype(np.float32), "TIFF"), 3, intensity=(0.0, 1.0)))
    assert found.shape == (16, 16, 3)
    assert found.reshape(-1, 3)[:, 0].tolist() == list(range(256))


def test_a_dark_image_stays_darker_than_a_bright_one():
    dark, bright = (
        np.asarray(decode(encode((RAMP * by).astype(np.uint16), "TIFF"), 1, intensity=(0, 4095))) for by in (0.1, 1)
    )
    assert dark.max() < 30 < bright.max()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_rejected(value):
    values = RAMP.astype(np.float32)
    values[3, 4] = value
    with pytest.raises(UndecodableError, match="NaN or infinite"):
        decode(encode(values, "TIFF"), 1, intensity=(0, 1))
    with pytest.raises(UndecodableError, match="NaN or infinite"):
        measure_intensity(encode(values, "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_8_bit_images_have_no_range_and_ignore_one(mode):
    image = Image.fromarray(RAMP.astype(np.uint8)).convert(mode)
    data = io.BytesIO()
    image.save(data, "PNG")
    assert measure_intensity(data.getvalue()) is None
    one, other = (decode(data.getvalue(), 3, intensity=given) for given in (None, (5, 6)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("text", ["1", "5,5", "9,1", "a,b", "nan,1", "0,inf", "1,2,3", ""])
def test_invalid_ranges(text):
    with pytest.raises(UsageError, match=r"--intensity is .*expected LO,HI"):
        NetworkSettings(intensity=text)
