"""Resizing images of any size to the network's input."""

import json

import numpy as np
import pytest
from PIL import Image

from tlcli.images.preprocess import Preprocessing, fit_image, placement


def preprocessing(fit="crop", *, size=(224, 224), channels=3, **changes):
    """`size` is (width, height)."""
    settings = {
        "width": size[0],
        "height": size[1],
        "channels": channels,
        "fit": fit,
        "crop_fraction": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406)[:channels],
        "std": (0.229, 0.224, 0.225)[:channels],
    }
    return Preprocessing(**settings | changes)


def smooth(width, height):
    """Color waves without sharp edges."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(11 * x + 3 * y), np.cos(7 * y - 4 * x), np.sin(9 * x * y + 2)]
    return Image.fromarray((127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


def quarters(width, height):
    """Four colors: red and green above, blue and white below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    pixels[:h, :w], pixels[:h, w:], pixels[h:, :w], pixels[h:, w:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_fraction", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("size", [(640, 480), (301, 403), (500, 500), (130, 100), (224, 900), (256, 256)])
def test_crop_is_the_evaluation_transform_of_timm(size, crop_fraction, interpolation):
    from timm.data import create_transform

    transform = create_transform(
        (3, 224, 224), interpolation=interpolation, crop_pct=crop_fraction, mean=(0, 0, 0), std=(1, 1, 1)
    )
    image = smooth(*size)
    theirs = 255 * transform(image).permute(1, 2, 0).numpy()
    ours = fit_image(image, preprocessing(crop_fraction=crop_fraction, interpolation=interpolation))
    assert np.abs(np.asarray(ours) - theirs).mean() < 1.5


def test_crop_takes_the_center():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = (10, 200, 30)
    found = np.asarray(fit_image(Image.fromarray(pixels), preprocessing(size=(32, 32))))
    assert np.abs(found - np.array([10, 200, 30])).max() <= 1


def test_crop_can_keep_all_of_the_short_side():
    found = np.asarray(fit_image(quarters(64, 64), preprocessing(size=(64, 64), crop_fraction=1.0)))
    np.testing.assert_array_equal(found, np.asarray(quarters(64, 64)))


def corners(found):
    return [tuple(int(value) for value in found[y, x]) for y in (0, -1) for x in (0, -1)]


QUARTERS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (32, 32), (7, 5)])
def test_squash_keeps_the_whole_image(size):
    found = np.asarray(fit_image(quarters(*size), preprocessing("squash", size=(32, 32), interpolation="nearest")))
    assert corners(found) == QUARTERS


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((300, 100), (0, 10, 32, 21)),
        ((100, 300), (10, 0, 21, 32)),
        ((64, 64), (0, 0, 32, 32)),
        ((8, 4), (0, 8, 32, 24)),
    ],
)
def test_pad_keeps_the_whole_image_on_the_mean_color(size, box):
    settings = preprocessing("pad", size=(32, 32), interpolation="nearest")
    found = np.asarray(fit_image(quarters(*size), settings))
    left, top, right, bottom = box
    assert corners(found[top:bottom, left:right]) == QUARTERS
    ground = np.ones((32, 32), bool)
    ground[top:bottom, left:right] = False
    np.testing.assert_array_equal(found[ground], np.tile([124, 116, 104], (ground.sum(), 1)))


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (33, 31)])
def test_any_size_fits_and_one_color_stays_one_color(size, interpolation, fit):
    image = Image.new("RGB", size, (12, 200, 77))
    settings = preprocessing(fit, size=(48, 32), interpolation=interpolation, mean=(12 / 255, 200 / 255, 77 / 255))
    fitted = fit_image(image, settings)
    assert fitted.size == (48, 32)
    assert np.abs(np.asarray(fitted, int) - [12, 200, 77]).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_gray(fit):
    settings = preprocessing(fit, size=(32, 32), channels=1, mean=(0.25,), std=(0.5,))
    fitted = fit_image(Image.new("L", (60, 20), 200), settings)
    assert fitted.mode == "L"
    assert sorted(set(np.asarray(fitted).ravel().tolist())) == ([64, 200] if fit == "pad" else [200])


@pytest.mark.parametrize("channels", [1, 3])
def test_json_round_trip(channels):
    settings = preprocessing("pad", channels=channels)
    assert Preprocessing.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (200, 333), (97, 97)])
def test_placement_maps_input_boxes_to_the_image(fit, size):
    """A white block drawn at the image box that the placement computes for an input box appears in that input box."""
    settings = preprocessing(fit, size=(64, 64))
    box = (24, 16, 40, 44)
    x0, y0, x1, y1 = (round(edge) for edge in placement(size, settings).box(box))
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    seen = np.asarray(fit_image(Image.fromarray(pixels), settings))[:, :, 0]
    rows, columns = (np.flatnonzero((seen == 255).sum(axis) > 4) for axis in (1, 0))
    assert (rows[0], columns[0]) == pytest.approx((16, 24), abs=1.5)
    assert (rows[-1] + 1, columns[-1] + 1) == pytest.approx((44, 40), abs=1.5)


def test_placement_by_hand():
    crop = placement((400, 200), preprocessing("crop", size=(100, 100), crop_fraction=0.5))
    assert crop.box((0, 0, 100, 100)) == (150, 50, 250, 150)
    pad = placement((400, 200), preprocessing("pad", size=(100, 100)))
    assert pad.box((0, 25, 100, 75)) == (0, 0, 400, 200)
    assert pad.box((0, 0, 10, 35)) == (0, 0, 40, 40)  # the padding above is not part of the image
    squash = placement((400, 200), preprocessing("squash", size=(100, 100)))
    assert squash.box((10, 10, 20, 20)) == (40, 20, 80, 40)
    assert squash.box((-5, 90, 20, 120)) == (0, 180, 80, 200)
