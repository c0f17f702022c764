"""Declare the command-line option of a setting next to the setting. Typer is not imported here.

A field's `metadata` is an `Option`, or an `OptionGroup` if the field holds settings that several commands share::

    epochs: int | None = field(default=None, metadata=Option(help="Training epochs.", metavar="N", panel=LAYERS))

`cli` composes the signatures of the commands from these declarations, `command_line` writes settings as a command, and
`docs/conf.py` documents the fields with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Required, TypedDict, TypeVar, cast, get_type_hints

# Panels of --help. Options without a panel are listed first, under "Options".
OUTPUT = "Output"
TRAINING = "Training"
LAYERS = "Training of layers (unless --freeze all)"
TABLES = "Columns of a table"
AUGMENTATION = "Augmentation"
NETWORK = "Network"
HARDWARE = "Hardware"
MACHINES = "More machines"
CACHE = "Cache"

SettingsT = TypeVar("SettingsT")


class Option(TypedDict, total=False):
    """How a field appears on the command line."""

    help: Required[str]
    """What it does, for `--help`, docs/cli.md and docs/reference.md."""
    metavar: str
    """Placeholder for the value, such as `PIXELS` or `crop|pad|squash`."""
    panel: str
    """Panel of `--help`."""
    flag: str
    """Only if it differs from the field's name: `--layer`, `--mirror/--no-mirror`."""
    unset: str
    """What the default, None, stands for; `--help` shows it as `[default: ...]`."""
    parse: Callable[[str], Any]
    """Convert the text of the command line to the field's type. Raises UsageError."""
    minimum: float
    """The lowest number that is allowed."""
    positional: bool
    """An argument, not an option."""
    negated: bool
    """The flag sets the field to False."""
    after: str
    """List it after the option of this field, instead of in the order of declaration."""


class OptionGroup(TypedDict, total=False):
    """A field that holds other settings, whose options appear in its place."""

    settings: Required[type]
    without: Collection[str]
    """Fields for which this command has no option."""
    instead: Mapping[str, Option]
    """Options that this command declares differently."""
    extra: Mapping[str, Option]
    """Options for `build` that are not fields; strings, None by default."""
    build: Callable[[Mapping[str, Any]], object | None]
    """Build the settings from all values of the command line, by name; None keeps the field's default. Every option of
    the group is then None by default."""


@dataclass(frozen=True)
class DeclaredOption:
    """An option or argument of a command."""

    name: str
    """Name of the field."""
    option: Option
    annotation: Any
    """The field's type."""
    default: Any
    """`dataclasses.MISSING` if it is required."""

    @property
    def flag(self) -> str:
        """Such as `--batch-size`, or `--mirror/--no-mirror`."""
        return self.option.get("flag", "--" + self.name.replace("_", "-"))


def options_of(settings: type) -> list[DeclaredOption]:
    """List the options and arguments of a settings class in the order of `--help`."""
    found = list(_declared(settings))
    places = {declared.name: place for place, declared in enumerate(found)}

    def place(declared: DeclaredOption) -> tuple[int, bool]:
        after = places.get(declared.option.get("after", ""))
        return (places[declared.name], False) if after is None else (after, True)

    return sorted(found, key=place)


def own_options(settings: type) -> list[DeclaredOption]:
    """List the options and arguments that a settings class declares itself, without those of its groups."""
    types = get_type_hints(settings)
    return [
        DeclaredOption(field.name, option, types[field.name], field.default)
        for field in dataclasses.fields(settings)
        if (option := as_option(field))
    ]


def _declared(settings: type) -> Iterator[DeclaredOption]:
    own = {declared.name: declared for declared in own_options(settings)}
    for field in dataclasses.fields(settings):
        if group := as_group(field):
            yield from _of_group(group)
        elif field.name in own:
            yield own[field.name]


def _of_group(group: OptionGroup) -> Iterator[DeclaredOption]:
    for name, option in group.get("extra", {}).items():
        yield DeclaredOption(name, option, str | None, None)
    for declared in _declared(group["settings"]):
        if declared.name not in group.get("without", ()):
            option = group.get("instead", {}).get(declared.name, declared.option)
            changes: dict[str, Any] = {"option": option}
            if "build" in group:
                changes |= {"annotation": declared.annotation | None, "default": None}
            yield dataclasses.replace(declared, **changes)


def as_option(field: dataclasses.Field[Any]) -> Option | None:
    """Return the option that a field declares, if any."""
    return cast(Option, field.metadata) if "help" in field.metadata else None


def as_group(field: dataclasses.Field[Any]) -> OptionGroup | None:
    """Return the group of options that a field declares, if any."""
    return cast(OptionGroup, field.metadata) if "settings" in field.metadata else None


def build_settings(settings: type[SettingsT], given: Mapping[str, Any]) -> SettingsT:
    """Build settings from the values of a command line.

    Args:
        settings: A dataclass whose fields declare their options.
        given: Each option's value, of the field's type, by the field's name. What is missing keeps its default.

    Raises:
        UsageError: a value is invalid, or has no effect in this combination.
    """
    values = {}
    for field in dataclasses.fields(cast(Any, settings)):
        if group := as_group(field):
            known = {name: value for name, value in given.items() if name not in group.get("without", ())}
            value = group["build"](given) if "build" in group else build_settings(group["settings"], known)
            if value is not None:
                values[field.name] = value
        elif field.name in given:
            values[field.name] = given[field.name]
    return settings(**values)


def parse_value(declared: DeclaredOption, text: object) -> object:
    """Convert what the command-line parser returns for an option to a value of its field.

    Raises:
        UsageError: the text is invalid.
    """
    if text is None:
        return None if declared.default is MISSING else declared.default
    if "parse" in declared.option and isinstance(text, str):
        return declared.option["parse"](text)
    if declared.option.get("negated"):
        return not text
    return tuple(text) if isinstance(text, list) else text
