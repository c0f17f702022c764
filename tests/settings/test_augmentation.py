"""What the user's words about augmentation mean, and what training does without any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tlcli.errors import UsageError
from tlcli.settings.augmentation import FROM_SCRATCH, PRESETS, Augmentation, choose_augmentation, default_augmentation


def test_nothing_said_is_nothing_chosen():
    assert choose_augmentation(None) is None


def test_none_is_a_choice():
    chosen = choose_augmentation("none", default=PRESETS["light"])
    assert chosen == Augmentation()
    assert not chosen.enabled


def test_single_amounts_change_the_preset_or_else_the_default():
    assert choose_augmentation("strong", noise=0.0) == replace(PRESETS["strong"], noise=0.0)
    assert choose_augmentation(None, mirror=False, default=PRESETS["light"]) == replace(PRESETS["light"], mirror=False)
    assert choose_augmentation(None, rotate=10.0) == Augmentation(rotate=10.0)


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("heavy", {}, "'heavy'; expected one of none, light, strong"),
        (None, {"rotate": 0.0}, "distort nothing"),
        (None, {"rotate": 181.0}, "--rotate is 181"),
        (None, {"crop": 0.0}, "--crop is 0"),
        (None, {"noise": -1.0}, "--noise is -1"),
        (None, {"color_shift": "a,b"}, "--color-shift is 'a,b'"),
        (None, {"color_shift": "300"}, "--color-shift is 300"),
    ],
)
def test_what_makes_no_sense_is_refused(preset, changes, message):
    with pytest.raises(UsageError, match=message):
        choose_augmentation(preset, **changes)


@pytest.mark.parametrize(
    ("freeze", "weights", "expected"),
    [
        ("all", "pretrained", PRESETS["none"]),
        ("none", "pretrained", PRESETS["none"]),
        ("auto", "pretrained", PRESETS["light"]),
        ("3", "none", PRESETS["none"]),  # cached behind random layers
        ("none", "none", FROM_SCRATCH),
        ("auto", "none", FROM_SCRATCH),
    ],
)
def test_what_training_does_where_nothing_was_said(freeze, weights, expected):
    assert default_augmentation(freeze, weights) == expected


def test_no_default_turns_letters_into_others():
    assert not FROM_SCRATCH.mirror
    assert not FROM_SCRATCH.flip_vertical
