"""Paired comparison of losses, on made-up numbers."""

import numpy as np
import pytest

from tlcli.training.paired_gain import paired_gain


def test_gain_is_the_mean_of_the_paired_differences():
    before, after = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 2.5, 2.0, 3.0])
    found = paired_gain(before, after)  # differences 0.5, -0.5, 1, 1
    assert found.mean == pytest.approx(0.5)
    assert found.error == pytest.approx(np.sqrt(1.5 / 3) / 2)  # squares around the mean: 0, 1, 0.25, 0.25
    assert found.significant
    back = paired_gain(after, before)
    assert back.mean == pytest.approx(-0.5)
    assert not back.significant


def test_a_gain_within_chance_is_not_clear():
    found = paired_gain(np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.0, 2.0, 0.5, 1.3]))
    assert found.mean > 0
    assert not found.significant


def test_no_difference_is_no_gain():
    same = np.array([0.3, 0.1, 2.0])
    assert not paired_gain(same, same).significant
    assert not paired_gain(same[:1], same[:1]).significant


def test_a_single_image_has_no_spread():
    assert paired_gain(np.array([1.0]), np.array([0.5])).error == 0


def test_images_of_one_group_count_as_one():
    generator = np.random.default_rng(0)
    before, after = generator.random(20), generator.random(20)
    single = paired_gain(before, after)
    assert paired_gain(before, after, [str(image) for image in range(20)]).error == pytest.approx(single.error)
    copies = [str(image) for image in range(20) for _ in range(4)]
    repeated = paired_gain(before.repeat(4), after.repeat(4), copies)
    assert (repeated.mean, repeated.error) == pytest.approx((single.mean, single.error))
    assert paired_gain(before.repeat(4), after.repeat(4)).error < 0.6 * single.error
