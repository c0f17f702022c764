"""The augmentation that command-line options choose, and the default of training."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tlcli.errors import UsageError
from tlcli.settings.augmentation import (
    FROM_SCRATCH_AUGMENTATION,
    PRESETS,
    Augmentation,
    choose_augmentation,
    choose_augmentation_or_auto,
    default_augmentation,
    parse_shift,
)


def given(**values):
    """Values of a command line; options that are not given are None."""
    names = ["preset", *(field.name for field in fields(Augmentation))]
    return dict.fromkeys(names) | values


def test_no_option_chooses_nothing():
    assert choose_augmentation(given()) is None


def test_none_is_a_choice():
    chosen = choose_augmentation(given(preset="none", freeze="auto"))
    assert chosen == Augmentation()
    assert not chosen.enabled


def test_single_amounts_change_the_preset_or_the_default():
    assert choose_augmentation(given(preset="strong", noise=0.0)) == replace(PRESETS["strong"], noise=0.0)
    assert choose_augmentation(given(mirror=False, freeze="auto")) == replace(PRESETS["light"], mirror=False)
    assert choose_augmentation(given(rotate=10.0)) == Augmentation(rotate=10.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "heavy"}, "'heavy'; expected one of none, light, strong"),
        ({"rotate": 0.0}, "leave images unchanged"),
        ({"rotate": 181.0}, "--rotate is 181"),
        ({"crop": 0.0}, "--crop is 0"),
        ({"noise": -1.0}, "--noise is -1"),
        ({"color_shift": 300}, "--color-shift is 300"),
    ],
)
def test_invalid_values_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        choose_augmentation(given(**values))


@pytest.mark.parametrize(("text", "shift"), [("20", 20), ("20,-20,0", (20, -20, 0))])
def test_color_shift_is_a_maximum_or_an_exact_shift(text, shift):
    assert parse_shift(text) == shift


@pytest.mark.parametrize("text", ["a,b", "1,2", ""])
def test_invalid_color_shift_is_refused(text):
    with pytest.raises(UsageError, match=f"--color-shift is '{text}'"):
        parse_shift(text)


@pytest.mark.parametrize(
    ("freeze", "weights", "expected"),
    [
        ("all", "pretrained", PRESETS["none"]),
        ("none", "pretrained", PRESETS["none"]),
        ("auto", "pretrained", PRESETS["light"]),
        ("3", "none", PRESETS["none"]),  # features of random layers are cached
        ("none", "none", FROM_SCRATCH_AUGMENTATION),
        ("auto", "none", FROM_SCRATCH_AUGMENTATION),
    ],
)
def test_default_of_training(freeze, weights, expected):
    assert default_augmentation(freeze, weights) == expected


def test_no_default_mirrors_letters():
    assert not FROM_SCRATCH_AUGMENTATION.mirror
    assert not FROM_SCRATCH_AUGMENTATION.flip_vertical


def test_auto_is_left_to_finetune():
    assert choose_augmentation_or_auto(given(preset="auto")) == "auto"
    assert choose_augmentation_or_auto(given(preset="strong")) == PRESETS["strong"]
    with pytest.raises(UsageError, match="--rotate cannot be combined with --augment auto"):
        choose_augmentation_or_auto(given(preset="auto", rotate=5.0))
    with pytest.raises(UsageError, match="--augment auto is an option of finetune"):
        choose_augmentation(given(preset="auto"))
