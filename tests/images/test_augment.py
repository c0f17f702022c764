"""Views: parameters within their ranges, and the same result whenever and wherever a view is made."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlcli.images.augment import MAX_SHORT_SIDE, AugmentationParameters, draw_parameters, make_view
from tlcli.settings.augmentation import PRESETS, Augmentation

augmentations = st.builds(
    Augmentation,
    rotate=st.floats(0, 180),
    mirror=st.booleans(),
    flip_vertical=st.booleans(),
    crop=st.floats(0.01, 1),
    noise=st.floats(0, 255),
    color_shift=st.one_of(st.integers(0, 255), st.tuples(*[st.integers(-255, 255)] * 3)),
)
digests = st.binary(min_size=32, max_size=32)
DIGEST = hashlib.sha256(b"a picture").digest()


def noisy_image(width=90, height=60, seed=0):
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))


def pixels(image):
    return np.asarray(image).astype(int)


def a_view(image, augmentation, number=1, seed=0, digest=DIGEST):
    return make_view(image, augmentation, seed=seed, view=number, digest=digest)


def find_view(condition, augmentation):
    """Return the number of a view whose parameters fulfill a condition."""
    return next(n for n in range(1, 100) if condition(draw_parameters(augmentation, seed=0, view=n, digest=DIGEST)))


@given(augmentations, st.integers(), st.integers(1, 10**9), digests)
def test_parameters_stay_within_their_ranges(augmentation, seed, number, digest):
    parameters = draw_parameters(augmentation, seed=seed, view=number, digest=digest)
    assert abs(parameters.angle) <= augmentation.rotate
    assert augmentation.mirror or not parameters.mirrored
    assert augmentation.flip_vertical or not parameters.flipped
    assert parameters.noise == augmentation.noise
    if augmentation.crop == 1:
        assert parameters.crop is None
    else:
        left, top, right, bottom = parameters.crop
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) >= augmentation.crop - 1e-9
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9
    if isinstance(augmentation.color_shift, tuple):
        assert parameters.shift == augmentation.color_shift
    else:
        assert all(abs(level) <= augmentation.color_shift for level in parameters.shift)


def test_parameters_fill_their_ranges():
    drawn = [draw_parameters(PRESETS["strong"], seed=0, view=n, digest=DIGEST) for n in range(1, 2001)]
    angles, shifts = [parameters.angle for parameters in drawn], np.array([parameters.shift for parameters in drawn])
    assert min(angles) < -14.8
    assert max(angles) > 14.8
    assert (shifts.min(), shifts.max()) == (-30, 30)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.1, "channels are shifted independently"
    assert 0.45 < np.mean([parameters.mirrored for parameters in drawn]) < 0.55
    areas = [(a.crop[2] - a.crop[0]) * (a.crop[3] - a.crop[1]) for a in drawn]
    assert abs(np.mean(areas) - 0.65) < 0.02
    assert max(areas) > 0.99
    assert len({parameters.noise_seed for parameters in drawn}) == 2000


@given(augmentations, st.integers(), st.integers(1, 10**9), digests)
def test_parameters_depend_on_seed_view_and_digest(augmentation, seed, number, digest):
    augmentation = replace(augmentation, rotate=90)

    def angle(**changes):
        return draw_parameters(augmentation, **({"seed": seed, "view": number, "digest": digest} | changes)).angle

    assert angle() == angle()
    assert angle() != angle(seed=seed + 1)
    assert angle() != angle(view=number + 1)
    assert angle() != angle(digest=digest[1:] + bytes([digest[0] ^ 1]))


@given(augmentations, st.integers(1, 1000))
def test_disabling_one_augmentation_does_not_change_the_others(augmentation, number):
    def parameters(**changes):
        return draw_parameters(replace(augmentation, **changes), seed=0, view=number, digest=DIGEST)

    whole = parameters()
    assert parameters(rotate=0) == replace(whole, angle=0)
    assert parameters(mirror=False, flip_vertical=False) == replace(whole, mirrored=False, flipped=False)
    assert parameters(crop=1) == replace(whole, crop=None)
    assert parameters(noise=0) == replace(whole, noise=0, noise_seed=0)
    assert parameters(color_shift=0) == replace(whole, shift=(0, 0, 0))


def test_parameters_of_a_seed_never_change():
    """Feature caches and augmented datasets depend on these values; a change would make all of them stale."""
    parameters = draw_parameters(PRESETS["strong"], seed=7, view=3, digest=DIGEST)
    assert parameters.describe() == "rotated -4°, crop 0.84, noise 8, color +27 +19 +28"


@pytest.mark.parametrize("augmentation", [PRESETS["light"], PRESETS["strong"]])
def test_a_view_is_the_same_whenever_it_is_made(augmentation):
    image = noisy_image()
    before = image.tobytes()
    made = [a_view(image, augmentation, number).tobytes() for number in (1, 2, 3)]
    assert made == [a_view(image, augmentation, number).tobytes() for number in (3, 2, 1)][::-1]
    assert len(set(made)) == 3
    assert image.tobytes() == before, "the original is not modified"


def test_view_0_is_the_image_itself():
    large = noisy_image(2000, 1500)
    assert a_view(large, PRESETS["strong"], 0).tobytes() == large.tobytes()
    assert draw_parameters(PRESETS["strong"], seed=0, view=0, digest=DIGEST) == AugmentationParameters()


def test_global_random_generators_are_not_touched():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    a_view(noisy_image(), PRESETS["strong"])
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 2), (700, 650), (2000, 900)])
@pytest.mark.parametrize("crop", [0.001, 0.3, 1.0])
def test_images_of_any_size(size, crop):
    augmentation = replace(PRESETS["strong"], crop=crop, rotate=180)
    for number in range(1, 4):
        made = a_view(Image.new("RGB", size, (200, 10, 10)), augmentation, number)
        assert made.mode == "RGB"
        assert 1 <= min(made.size) <= MAX_SHORT_SIDE


def test_large_images_are_reduced_and_keep_their_aspect_ratio():
    made = a_view(Image.new("RGB", (3000, 2000)), Augmentation(color_shift=(1, 2, 3)))
    assert made.size == (960, 640)
    assert (pixels(made) == (1, 2, 3)).all()
    # Also if the random parameters leave the view otherwise unchanged.
    assert a_view(Image.new("RGB", (3000, 2000)), Augmentation(rotate=1e-9)).size == (960, 640)
    sizes = {a_view(Image.new("RGB", (3000, 2000)), Augmentation(mirror=True), number).size for number in range(1, 9)}
    assert sizes == {(960, 640)}


def test_mirror_and_flip():
    image = noisy_image()
    both = Augmentation(mirror=True, flip_vertical=True)
    mirrored = a_view(image, both, find_view(lambda parameters: parameters.mirrored and not parameters.flipped, both))
    flipped = a_view(image, both, find_view(lambda parameters: parameters.flipped and not parameters.mirrored, both))
    assert (pixels(mirrored) == pixels(image)[:, ::-1]).all()
    assert (pixels(flipped) == pixels(image)[::-1]).all()


def test_crop_is_a_part_of_the_image():
    image = Image.fromarray(np.mgrid[0:200, 0:240][[0, 1, 1]].transpose(1, 2, 0).astype(np.uint8))
    made = pixels(a_view(image, Augmentation(crop=0.3)))
    top, left = made[0, 0, :2]
    height, width, _ = made.shape
    assert (made == pixels(image)[top : top + height, left : left + width]).all()
    assert 0.29 < height * width / (200 * 240) < 1


def test_rotation_uses_its_angle_and_fills_corners_with_the_mean_color():
    image = Image.new("RGB", (200, 200), (90, 90, 90))
    image.paste((210, 90, 90), (100, 80, 200, 120))  # a bar to the right
    upwards = Augmentation(rotate=180)
    number = find_view(lambda parameters: 80 < parameters.angle < 100, upwards)
    made = pixels(a_view(image, upwards, number))
    assert made[30, 100, 0] == 210
    assert made[100, 170, 0] == 90
    number = find_view(lambda parameters: 40 < parameters.angle < 50, upwards)
    assert (made := pixels(a_view(image, upwards, number)))[0, 0].tolist() == [102, 90, 90]
    assert made.shape == (200, 200, 3)


def test_color_shift_adds_and_stays_in_range():
    image = noisy_image()
    made = a_view(image, Augmentation(color_shift=(30, -20, 0)))
    assert (pixels(made) == np.clip(pixels(image) + np.array([30, -20, 0]), 0, 255)).all()


@pytest.mark.parametrize("level", [0.6, 2, 20])
def test_noise_has_its_standard_deviation_and_no_bias(level):
    noise = pixels(a_view(Image.new("RGB", (300, 200), (128, 128, 128)), Augmentation(noise=level))) - 128
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - np.hypot(level, 12**-0.5)) < 0.03 * level, "with the error of rounding to levels"
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


def test_describe_and_to_json():
    assert AugmentationParameters().describe() == "plain"
    parameters = AugmentationParameters(angle=6.8, mirrored=True, crop=(0, 0, 0.8, 0.775), noise=8, shift=(12, -4, 20))
    assert parameters.describe() == "rotated 7°, mirrored, crop 0.62, noise 8, color +12 -4 +20"
    assert parameters.to_json()["crop"] == [0, 0, 0.8, 0.775]
    assert AugmentationParameters(flipped=True).describe() == "flipped"


def test_augmentation_modules_do_not_import_torch():
    code = (
        "import sys, tlcli.settings.augmentation, tlcli.images.augment, tlcli.images.worker; "
        "sys.exit(bool({'torch', 'torchvision', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
