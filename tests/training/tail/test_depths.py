"""The policy of `--freeze auto`, on made-up numbers."""

import numpy as np
import pytest

from tlcli.training.tail.depths import depths, epochs_within_budget, paired_gain


def tail_share(costs, layer):
    return sum(costs[layer:]) / sum(costs)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([10] * 10, [9, 7, 5, 0]),  # 10 %, 30 %, 50 %, all
        ([1] * 100, [90, 75, 50, 0]),
        ([5, 5, 90], [2, 0]),  # the last layer alone is more than half: one depth for three shares
        ([90, 5, 5], [1, 0]),  # no tail has a quarter without the first layer, which only `none` trains
        ([97, 1, 1, 1], [0]),
        ([7], [0]),
        ([25, 25, 25, 25], [3, 2, 0]),
        ([40, 40, 0, 20, 0], [3, 1, 0]),  # layers without cost are not depths of their own
    ],
)
def test_depths_are_where_the_tail_first_reaches_each_share(costs, expected):
    assert depths(costs) == expected


def test_depths_go_from_deep_to_shallow_and_each_is_the_deepest_that_serves():
    generator = np.random.default_rng(0)
    for _ in range(50):
        costs = generator.integers(1, 1000, generator.integers(1, 30)).tolist()
        found = depths(costs)
        assert found[-1] == 0
        assert found == sorted(set(found), reverse=True)
        for share in (0.1, 0.25, 0.5):
            serve = [layer for layer in range(1, len(costs)) if tail_share(costs, layer) >= share]
            assert not serve or max(serve) in found


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


@pytest.mark.parametrize(
    ("share", "spent", "expected"),
    [(0.1, 0, 8), (0.25, 0, 6), (0.5, 2, 3), (1.0, 4, 1), (1.0, 5.5, 0), (0.5, 5.0, 2), (1.0, 0, 1)],
)
def test_every_depth_costs_the_same_and_stays_within_the_budget(share, spent, expected):
    """A budget of 6 for four depths is 1.5 epochs of the whole network each."""
    assert epochs_within_budget(share, candidates=4, budget=6, spent=spent, most=8) == expected


def test_a_single_candidate_may_spend_it_all():
    assert epochs_within_budget(1.0, candidates=1, budget=6, spent=0, most=8) == 6
