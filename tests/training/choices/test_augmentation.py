"""The greedy search for augmentations, with planted effects."""

from dataclasses import fields

import numpy as np
import pytest

from tlcli.settings.augmentation import Augmentation
from tlcli.training.choices import augmentation
from tlcli.training.choices.augmentation import SINGLES, compare_augmentations
from tlcli.training.choices.comparison import Comparison, Measured
from tlcli.training.choices.subset import Subset

COUNT = 200
NONE = Augmentation()


@pytest.fixture
def search(monkeypatch, report):
    """Search with losses that add up from the effects of single amounts; return the best and the table."""

    def run(effects):
        noise = {name: np.random.default_rng(number).normal(size=COUNT) for number, name in enumerate(effects)}

        def loss(own):
            losses = np.full(COUNT, 3.0)
            for field in fields(own):
                if (value := getattr(own, field.name)) != getattr(NONE, field.name):
                    change = effects.get((field.name, value), 1.0)
                    losses += change + 0.05 * noise.get((field.name, value), 0)
            return Measured(losses=losses, accuracy=0.5)

        class Extractor:
            def __init__(self, own=NONE):
                self.own = own

            def with_views_in_memory(self, own):
                return Extractor(own)

        monkeypatch.setattr(augmentation, "measure", lambda extractor, *_, **__: loss(extractor.own))
        keys = tuple(map(str, range(COUNT)))
        subset = Subset(samples=(None,) * COUNT, digests=(b"",) * COUNT, keys=keys, classes=2, seed=0)
        found, best = compare_augmentations(Extractor(), subset, None, report)
        assert isinstance(found, Comparison)
        return best, [row.value for row in found.tried], found.chosen

    return run


def test_nothing_is_chosen_if_nothing_helps(search):
    best, tried, chosen = search({("rotate", 5.0): -0.0001})  # within chance
    assert best == NONE
    assert chosen == "none"
    assert len(tried) == 1 + len(SINGLES)


def test_what_helps_is_combined_and_what_hurts_is_not(search):
    effects = {("rotate", 5.0): -0.1, ("rotate", 15.0): -0.3, ("crop", 0.5): -0.2, ("mirror", True): 0.4}
    best, tried, chosen = search(effects)
    assert best == Augmentation(rotate=15.0, crop=0.5)
    assert chosen == "rotate 15, crop 0.5"
    assert len(tried) == 2 + len(SINGLES)  # only what helped alone is tried with others


def test_each_candidate_of_the_first_round_is_compared_with_none(search, report):
    search({("mirror", True): -0.3, ("noise", 4.0): -0.1})
    assert not [line for line in report.notes if "than mirror" in line]


def test_the_candidates_are_amounts_of_every_augmentation():
    assert {name for name, _ in SINGLES} == {field.name for field in fields(Augmentation)}
