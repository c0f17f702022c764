"""The policy of `--freeze auto`, on made-up numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.training.tail.depths import AUGMENTED_FROM, CandidateDepth, augmentation_at, depths
from tlcli.training.tail.epochs import epochs_within_budget


def tail_share(costs, layer):
    return sum(costs[layer:]) / sum(costs)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([10] * 10, [7, 5, 0]),  # 30 %, 50 %, all
        ([1] * 100, [75, 50, 0]),
        ([5, 5, 90], [2, 0]),  # the last layer alone is more than half: one depth for both shares
        ([90, 5, 5], [0]),  # no tail has a quarter without the first layer, which only `none` trains
        ([97, 1, 1, 1], [0]),
        ([7], [0]),
        ([25, 25, 25, 25], [3, 2, 0]),
        ([20, 40, 0, 40, 0], [3, 1, 0]),  # layers without cost are not depths of their own
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
        for share in (0.25, 0.5):
            serve = [layer for layer in range(1, len(costs)) if tail_share(costs, layer) >= share]
            assert not serve or max(serve) in found


@pytest.mark.parametrize(
    ("share", "spent", "expected"),
    [(0.1, 0, 8), (0.25, 0, 6), (0.5, 2, 3), (1.0, 4, 1), (1.0, 5.5, 0), (0.5, 5.0, 2), (1.0, 0, 1)],
)
def test_every_depth_costs_the_same_and_stays_within_the_budget(share, spent, expected):
    """A budget of 6 for four depths is 1.5 epochs of the whole network each."""
    assert epochs_within_budget(share, candidates=4, budget=6, spent=spent, most=8) == expected


def test_a_single_candidate_may_spend_it_all():
    assert epochs_within_budget(1.0, candidates=1, budget=6, spent=0, most=8) == 6


@pytest.mark.parametrize(
    ("freeze", "share", "asked", "views", "expected"),
    [
        ("auto", 0.9 * AUGMENTED_FROM, None, None, None),
        ("auto", AUGMENTED_FROM, None, None, PRESETS["light"]),
        ("auto", 0.9 * AUGMENTED_FROM, None, 4, PRESETS["light"]),
        ("auto", 0.9 * AUGMENTED_FROM, PRESETS["strong"], None, PRESETS["strong"]),
        ("auto", 1.0, Augmentation(), None, Augmentation()),
        ("13", 0.1, None, None, PRESETS["light"]),
    ],
)
def test_auto_augments_only_long_tails_by_default(freeze, share, asked, views, expected):
    options = SimpleNamespace(freeze=freeze, augmentation=asked, default_augmentation=PRESETS["light"], views=views)
    assert augmentation_at(CandidateDepth(freeze="13", share=share), options) == expected


def test_no_augmentation_is_none():
    options = SimpleNamespace(freeze="13", augmentation=None, default_augmentation=Augmentation(), views=None)
    assert augmentation_at(CandidateDepth(freeze="13", share=1.0), options) is None
