import io
import math

import numpy as np
import pytest
from PIL import Image

from tlcli.reports.sprite_sheet import AREA, LARGE, SMALL, draw_sprite_sheet, encode_webp, sprite_layout


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 500, 1000, 3000, 4000])
def test_every_thumbnail_fits_and_few_images_get_large_ones(count):
    side, columns = sprite_layout(count)
    assert SMALL <= side <= LARGE
    assert math.ceil(count / columns) <= columns
    assert side == LARGE or side**2 * count <= AREA


def test_images_are_in_order_and_unreadable_ones_are_gray(tmp_path):
    colors = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    for number, color in enumerate(colors):
        Image.new("RGB", (90, 45), color).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    progress = []
    paths = [str(tmp_path / name) for name in ("0.png", "broken.jpg", "1.png", "2.png", "gone.png")]
    sheet = draw_sprite_sheet(paths, intensity=None, workers=1, advance=progress.append)
    assert (sheet.side, sheet.columns, len(progress)) == (LARGE, 3, 5)
    with Image.open(io.BytesIO(sheet.content)) as image:
        assert (image.format, image.size) == ("WEBP", (3 * LARGE, 2 * LARGE))
        pixels = np.asarray(image.convert("RGB")).astype(int)
    middles = [pixels[row * LARGE + LARGE // 2, column * LARGE + LARGE // 2] for row in range(2) for column in range(3)]
    for found, expected in zip(middles, [colors[0], (128,) * 3, *colors[1:], (128,) * 3], strict=False):
        assert np.abs(found - expected).max() < 40, (found, expected)
    corner = pixels[4, LARGE // 2]  # a wide image is padded above and below
    assert np.abs(corner - 128).max() < 12


def test_poorly_compressible_images_are_saved_with_lower_quality():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    whole = encode_webp(noise)
    assert len(encode_webp(noise, len(whole))) == len(whole)
    assert len(encode_webp(noise, len(whole) // 2)) <= len(whole) // 2
    assert len(encode_webp(noise, 10)) > 10
