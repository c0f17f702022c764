"""The default number of epochs."""

import math

import pytest

from tlcli.training.tail.recipe import BATCH_SIZE, EPOCHS, MAX_STRETCH, MIN_STEPS, epoch_stretch


@pytest.mark.parametrize("images", [1, 31, 100, 300, 1000, 1199, 1200, 3068, 100_000])
def test_few_images_are_seen_more_often_until_the_steps_suffice(images):
    times = epoch_stretch(images, None)
    steps = EPOCHS * math.ceil(images / BATCH_SIZE)
    assert 1 <= times <= MAX_STRETCH
    assert times == 1 or steps * times <= MIN_STEPS + 1e-6, "no more than needed"
    assert times == MAX_STRETCH or steps * times >= MIN_STEPS - 1e-6, "and no less"


def test_smaller_batches_make_more_steps():
    assert epoch_stretch(300, 8) < epoch_stretch(300, 32) < epoch_stretch(300, 64)
