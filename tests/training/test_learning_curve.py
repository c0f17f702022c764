"""The learning curve, and what more images would bring."""

import numpy as np
import pytest

from tlcli.training.learning_curve import PartErrors, learning_curve

IMAGES = [300.0, 600.0, 1500.0, 3000.0]


def part_errors(rates, *, held_out=20_000, images=IMAGES):
    """Nested errors at these rates, on the first images."""
    wrong = np.arange(held_out) < np.array(rates)[:, None] * held_out
    return PartErrors(images=list(images), wrong=wrong)


def curve_of(errors, *, images=3000, classes=10, folds=False):
    return learning_curve(errors, errors.wrong[-1], images=images, classes=classes, folds=folds)


def falling(counts, floor=0.05, height=5.0):
    return floor + height / np.sqrt(counts)


def test_the_forecast_continues_a_curve_that_falls_to_a_floor():
    found = curve_of(part_errors(falling(IMAGES)))
    assert [point.images for point in found.points] == [300, 600, 1500, 3000]
    assert [point.accuracy for point in found.points] == pytest.approx(1 - falling(IMAGES), abs=1e-3)
    assert (found.forecast.more, found.forecast.images, found.reason) == (1000, 4000, None)
    assert found.forecast.accuracy == pytest.approx(1 - falling(4000), abs=1e-3)
    assert found.points[-1].accuracy < found.forecast.accuracy < found.forecast.high
    assert found.forecast.low < found.forecast.accuracy


def test_a_curve_that_falls_faster_than_assumed_is_within_the_interval():
    found = curve_of(part_errors(0.1 + 60 / np.array(IMAGES))).forecast
    assert found.low < 1 - (0.1 + 60 / 4000) < found.high


@pytest.mark.parametrize(
    ("errors", "classes", "reason"),
    [
        (part_errors([0.1] * 4), 10, "flat"),
        (part_errors([0.3, 0.25, 0.2, 0.01], held_out=500), 10, "only 5 errors on 500"),
        (part_errors(falling(IMAGES)), 200, "too few images"),
        (part_errors([0.2, 0.2, 0.2, 0.2], images=[3000.0] * 4), 10, "groups"),
    ],
)
def test_nothing_is_promised_that_the_curve_does_not_show(errors, classes, reason):
    found = curve_of(errors, classes=classes)
    assert found.forecast is None
    assert reason in found.reason
    assert len(found.points) == 4, "the measured points stay"


def test_noise_is_not_taken_for_a_gain():
    generator = np.random.default_rng(0)
    promised = 0
    for _ in range(200):
        errors = PartErrors(images=IMAGES, wrong=generator.random((4, 300)) < 0.15)
        promised += curve_of(errors).forecast is not None
    assert promised < 20


def test_fewer_held_out_images_widen_the_interval():
    def width(held_out, *, folds=False):
        found = curve_of(part_errors(falling(IMAGES), held_out=held_out), folds=folds).forecast
        return found.high - found.low

    assert width(20_000) < width(2000) < width(2000, folds=True)


def test_validation_images_that_change_from_right_to_wrong_widen_the_interval():
    errors = part_errors(falling(IMAGES), held_out=2000)
    changing = PartErrors(images=errors.images, wrong=errors.wrong.copy())
    changing.wrong[-2] = np.roll(changing.wrong[-2], 1000)
    steady, noisy = (curve_of(found).forecast for found in (errors, changing))
    assert noisy.high - noisy.low > 1.5 * (steady.high - steady.low)


@pytest.mark.parametrize(("images", "more"), [(250, 200), (800, 800), (3000, 1000), (9000, 1000), (64_000, 6000)])
def test_the_number_of_additional_images_suits_those_there_are(images, more):
    counts = [images / 10, images / 5, images / 2, images]
    errors = part_errors(0.05 + 0.5 * (np.array(counts) / images) ** -0.5 / 5, images=counts)
    assert curve_of(errors, images=images, classes=2).forecast.more == more
