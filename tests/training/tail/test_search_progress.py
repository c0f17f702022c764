"""A depth is kept only if it is better beyond chance: ties go to the smaller change."""

import numpy as np
import pytest

from tlcli.training.tail.search_progress import SearchProgress
from tlcli.training.tail.validation import ValidationResult

HEAD = {"freeze": "all", "epochs": 0}
TAIL = {"freeze": "5", "epochs": 4}


def result(gain, *, spread=0.5, errors=10, images=100):
    """Losses that are lower than 1 by `gain` on average, with a standard error of `spread / sqrt(images - 1)`."""
    deviations = spread * np.where(np.arange(images) % 2, 1.0, -1.0)
    return ValidationResult(
        logits=np.zeros((images, 2), np.float32),
        temperature=1.0,
        losses=1 - gain + deviations,
        correct=np.arange(images) >= errors,
    )


def kept(*candidates):
    """Return the index of the depth that is kept of some rows and results."""
    progress = SearchProgress()
    for row, found in candidates:
        progress.add(row, found)
    return progress.best


BASE = result(0.0, spread=0.0)


@pytest.mark.parametrize(
    ("gain", "errors", "best"),
    [
        (-0.1, 5, 0),
        (0.04, 5, 0),  # less than one standard error, 0.05
        (0.06, 5, 1),
        (0.06, 10, 0),  # a lower loss, but not a higher accuracy
        (0.06, 12, 0),
        (0.06, 9, 0),  # one image more: within chance
        (0.06, 8, 1),
    ],
)
def test_a_tail_must_have_a_lower_loss_and_a_higher_accuracy_than_the_head(gain, errors, best):
    assert kept((HEAD, BASE), (TAIL, result(gain, errors=errors))) == best


def test_a_deeper_tail_must_be_better_than_a_short_one_by_one_standard_error():
    first = result(0.5, spread=0.0, errors=5)
    assert kept((HEAD, BASE), (TAIL, first), (TAIL, result(0.54))) == 1
    assert kept((HEAD, BASE), (TAIL, first), (TAIL, result(0.56))) == 2


def test_a_tail_that_is_not_kept_can_still_lead_to_one_that_is():
    assert kept((HEAD, BASE), (TAIL, result(0.08)), (TAIL, result(0.2, errors=5))) == 2


def test_the_difference_is_paired():
    """Losses that vary a lot between images, but hardly between two networks."""
    hard = np.linspace(0, 3, 50)
    before, after = (
        ValidationResult(
            logits=np.zeros((50, 2), np.float32), temperature=1.0, losses=losses, correct=np.arange(50) >= errors
        )
        for losses, errors in ((hard, 9), (hard - 0.02 * np.ones(50) + 0.01 * np.sin(np.arange(50)), 5))
    )
    assert kept((HEAD, before), (TAIL, after)) == 1


def test_progress_survives_json():
    import json
    from dataclasses import asdict

    progress = SearchProgress()
    progress.add(HEAD, BASE)
    again = SearchProgress(**json.loads(json.dumps(asdict(progress))))
    assert again.add(TAIL, result(0.12, errors=5)) == progress.add(TAIL, result(0.12, errors=5)) is True
    assert again == progress


def test_gains_in_accuracy_are_paired_with_the_first_depth():
    progress = SearchProgress()
    for row, found in [(HEAD, BASE), (TAIL, result(0.5, errors=5)), (TAIL, result(0.6, errors=12))]:
        progress.add(row, found)
    gains = [(row["accuracy_gain"], row["accuracy_gain_error"]) for row in progress.tried]
    assert gains[0] == (None, None)
    assert gains[1] == pytest.approx((0.05, np.sqrt(0.05 * 0.95 / 99))), "five images of a hundred differ"
    assert gains[2][0] == pytest.approx(-0.02)
