"""The rule by which a candidate is chosen, on made-up losses."""

import numpy as np
import pytest

from tlcli.datasets.dataset import Sample
from tlcli.training.choices.comparison import CLEAR, Comparison, Measured
from tlcli.training.choices.subset import Subset

COUNT = 100
NOISE = np.random.default_rng(0).normal(size=COUNT)
NOISE -= NOISE.mean()
ERROR = NOISE.std(ddof=1) / np.sqrt(COUNT)


def compared(*, groups=COUNT):
    digests = [number.to_bytes(32, "big") for number in range(COUNT)]
    subset = Subset(
        samples=tuple(Sample(path=f"{number}.png", label=number % 2) for number in range(COUNT)),
        digests=tuple(digests),
        keys=tuple(str(number % groups) for number in range(COUNT)),
        classes=2,
        seed=0,
    )
    return Comparison(name="Fit", subset=subset)


def lower_by(errors):
    """Losses that are lower than those of `lower_by(0)` by so many standard errors."""
    return Measured(losses=3 + (NOISE if errors else 0) - errors * ERROR, accuracy=0.5)


@pytest.mark.parametrize(("errors", "better"), [(-5, False), (1, False), (CLEAR - 0.01, False), (CLEAR + 0.01, True)])
def test_only_a_clearly_lower_loss_replaces_the_first_candidate(errors, better):
    comparison = compared()
    assert comparison.challenge("crop", lower_by(0), 1.0)
    assert comparison.challenge("pad", lower_by(errors), 1.0) == better
    assert comparison.chosen == ("pad" if better else "crop")
    assert [row.chosen for row in comparison.tried] == [not better, better]


def test_later_candidates_are_compared_with_the_one_chosen():
    comparison = compared()
    comparison.challenge("crop", lower_by(0), 1.0)
    comparison.challenge("pad", lower_by(10), 1.0)
    comparison.challenge("squash", lower_by(10), 1.0)
    assert comparison.chosen == "pad"
    assert [row.than for row in comparison.tried] == [None, "crop", "pad"]
    table = comparison.to_json()
    assert table["tried"][1]["gain"] == pytest.approx(10 * ERROR)
    assert table["tried"][2]["gain"] == 0


def test_images_that_belong_together_are_not_independent_evidence():
    comparison = compared(groups=2)
    comparison.challenge("crop", lower_by(0), 1.0)
    half = np.where(np.arange(COUNT) % 2, 1.0, 0.0)  # all of the gain is in one group
    assert not comparison.challenge("pad", Measured(losses=3 - half, accuracy=0.5), 1.0)


def test_the_table_names_the_choice_and_what_was_tried(report):
    comparison = compared()
    comparison.challenge("crop", lower_by(0), 1.0)
    comparison.challenge("squash", lower_by(10), 2.0)
    comparison.skipped["pad"] = "left out"
    comparison.describe(report)
    title, crop, squash, pad = report.notes
    assert title.startswith("Fit       squash, by the loss on 100 training images")
    assert "chosen" not in crop
    assert "lower by" in squash
    assert "than crop" in squash
    assert squash.endswith("chosen")
    assert pad.endswith("pad: left out")
