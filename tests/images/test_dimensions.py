"""The size of the upright image, read from its header."""

import io

import pytest
from PIL import Image

from tlcli.images.decode import decode, upright_dimensions


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_upright_dimensions_are_those_of_the_decoded_image(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, form, exif=exif)
    file.seek(0)
    expected = (20, 30) if orientation >= 5 else (30, 20)
    assert upright_dimensions(file) == expected == decode(file.getvalue(), 3).size
