"""On a card, the heat map is aligned with the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tlcli.images.preprocess import Preprocessing, placement
from tlcli.insight.explanations.card import DIMMED, draw_card, interpolate_heat, overlay, panel_size


def preprocessing(fit, side=64, crop_fraction=0.875):
    return Preprocessing(
        height=side,
        width=side,
        channels=3,
        fit=fit,
        crop_fraction=crop_fraction,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def one_hot(row, column, side=8):
    heat = np.zeros((side, side), np.float32)
    heat[row, column] = 3.0
    return heat


def center(shares):
    rows, columns = np.indices(shares.shape)
    return (columns * shares).sum() / shares.sum() + 0.5, (rows * shares).sum() / shares.sum() + 0.5


@pytest.mark.parametrize("size", [(300, 300), (900, 120), (120, 900), (33, 47)])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_heat_is_aligned_with_the_input(size, fit):
    """Check the position in row 3, column 4 of 8 for each fit."""
    where = placement(size, preprocessing(fit))
    panel = panel_size(size)
    shares, seen = interpolate_heat(one_hot(3, 4), where, panel)
    expected = (where.start[0] + where.step[0] * 4.5 * 8, where.start[1] + where.step[1] * 3.5 * 8)
    scale = panel[0] / size[0]
    cell = where.step[1] * 8 * scale
    if fit != "pad" or min(size) / max(size) > 0.5:  # otherwise, the cell is wider than the visible strip
        assert center(shares) == pytest.approx([value * scale for value in expected], abs=max(2.0, cell / 8))
    assert shares.max() <= 1
    assert seen.all() == (fit != "crop")
    assert not shares[~seen].any()


def test_parts_not_seen_by_the_network_are_dark_and_without_heat():
    panel = Image.new("RGB", (400, 100), (100, 150, 200))
    where = placement((800, 200), preprocessing("crop", crop_fraction=1.0))
    pixels = np.asarray(overlay(panel, where, np.ones((4, 4), np.float32)))
    assert where.seen == (300, 0, 500, 200)
    assert where.leaves_out
    dark = np.array([100, 150, 200]) * DIMMED
    assert np.abs(pixels[:, :149] - dark).max() <= 1
    assert np.abs(pixels[:, 251:] - dark).max() <= 1
    assert (pixels[10:90, 160:240].mean((0, 1)) - [100, 150, 200])[0] > 30, "warm where the evidence is"
    assert not placement((800, 200), preprocessing("squash")).leaves_out


def test_without_heat_the_image_is_unchanged():
    panel = Image.effect_noise((80, 80), 50).convert("RGB")
    shown = overlay(panel, placement((80, 80), preprocessing("squash")), np.zeros((4, 4), np.float32))
    assert np.array_equal(np.asarray(shown), np.asarray(panel))


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000), (400, 711)])
def test_cards_of_extreme_sizes_and_hostile_names(size):
    ranking = [("<script>" * 50, 0.7), ("two\nlines \x1b[31m", 0.2), ("\u65e5\u672c \udcff", 0.0)]
    image = Image.new("RGB", (16, 16), (10, 20, 30))
    made = draw_card("n" * 3000, image, placement(size, preprocessing("crop")), one_hot(0, 0), ranking)
    assert made.width < 1800
    assert made.height < 1000
    assert set(map(tuple, np.asarray(made)[:, :10].reshape(-1, 3))) == {(255, 255, 255)}, "nothing in the margin"
    assert set(map(tuple, np.asarray(made)[:, -10:].reshape(-1, 3))) == {(255, 255, 255)}
