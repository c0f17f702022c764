"""Thumbnail comparison: copies match; other images, and images with an added object, do not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from tlcli.images.preprocess import fit_image
from tlcli.images.thumbnail_match import THUMBNAIL, crop_patterns, pattern_similarity, whole_pattern


def scene(seed):
    """Return an image of blobs in many colors."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 180), tuple(generator.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(25):
        left, top, width, height = generator.integers(0, (200, 140, 90, 90)).tolist()
        pen.ellipse((left, top, left + width, top + height), fill=tuple(generator.integers(0, 256, 3).tolist()))
    return image


def thumbnail(image):
    return np.asarray(fit_image(image, THUMBNAIL))


def alike(one, other):
    """Compare as `near_duplicates` does: either image may be a crop of the other."""
    one, other = thumbnail(one), thumbnail(other)
    return max(
        pattern_similarity(crop_patterns(one), whole_pattern(other)[None])[0],
        pattern_similarity(crop_patterns(other), whole_pattern(one)[None])[0],
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((100, 75)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.7),
        ImageOps.mirror,
        lambda image: image.crop((12, 9, 228, 171)),
        lambda image: image.crop((0, 0, 222, 180)),
        lambda image: ImageOps.mirror(image.crop((0, 10, 240, 175))),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_matches(change, seed):
    assert alike(scene(seed), change(scene(seed))) > 0.95


def test_other_images_do_not_match():
    assert max(alike(scene(seed), scene(seed + 1)) for seed in range(10)) < 0.6


def test_a_small_object_in_one_image_counts():
    """Two images of a fixed camera: the same street with and without a person."""
    street = scene(0).convert("L").convert("RGB")
    visited = street.copy()
    ImageDraw.Draw(visited).rectangle((100, 60, 124, 110), fill=(255, 255, 255))
    assert alike(street, visited) < 0.9


def test_blank_images_match_nothing():
    blank = Image.new("RGB", (60, 60), (200, 200, 200))
    assert alike(blank, blank) == 0
    assert alike(blank, scene(1)) <= 0


def test_each_of_several_images_has_its_own_score():
    others = np.stack([whole_pattern(thumbnail(scene(seed))) for seed in range(4)])
    scores = pattern_similarity(crop_patterns(thumbnail(scene(2))), others)
    assert scores.shape == (4,)
    assert scores.argmax() == 2
    assert scores[2] == pytest.approx(1, abs=1e-5)
