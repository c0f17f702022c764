"""Options are declared with the fields of settings."""

from __future__ import annotations

import dataclasses

import pytest

from tlcli import settings
from tlcli.settings.options import as_group, as_option, build_settings, options_of

SETTINGS = [value for name, value in vars(settings).items() if name.endswith("Settings")]


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_field_declares_an_option(kind):
    assert all(as_option(field) or as_group(field) for field in dataclasses.fields(kind))


@pytest.mark.parametrize("kind", SETTINGS)
def test_names_and_flags_are_unique_within_a_command(kind):
    options = options_of(kind)
    assert len({option.name for option in options}) == len(options)
    assert len({option.flag for option in options}) == len(options)


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_help_repeats_a_default(kind):
    """`--help` shows either the default value or the meaning of None."""
    for declared in options_of(kind):
        assert (
            declared.default in {None, dataclasses.MISSING, ()}
            or "unset" not in declared.option
            or (declared.option["unset"] == str(declared.default))
        )


def test_values_are_nested_and_excluded_ones_keep_their_defaults():
    built = build_settings(settings.CheckSettings, {"data": "photos", "backbone": "vgg16", "seed": 7, "freeze": "none"})
    assert built == settings.CheckSettings(data="photos", network=settings.NetworkSettings(backbone="vgg16", seed=7))


def test_an_option_can_follow_one_of_another_class():
    names = [option.name for option in options_of(settings.FinetuneSettings)]
    assert names[names.index("color_shift") + 1] == "views"
