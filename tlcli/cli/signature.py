"""Compose the Typer signature of a command from its settings class."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import typer

from tlcli.cli.app import open_terminal
from tlcli.settings.options import OUTPUT, DeclaredOption, Option, build_settings, options_of, parse_value

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal

SettingsT = TypeVar("SettingsT")

MARKUP = re.compile(r"\[(?=[a-z#/@])")
"""The start of what Rich would take for a tag."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options that every command has."""

    json_output: bool = field(
        default=False,
        metadata=Option(help="Print one JSON object to stdout instead of a summary.", flag="--json", panel=OUTPUT),
    )
    quiet: bool = field(default=False, metadata=Option(help="Print only warnings and errors.", panel=OUTPUT))
    verbose: bool = field(default=False, metadata=Option(help="Print more detail.", panel=OUTPUT))


def takes(settings: type[SettingsT]) -> Callable[[Callable[[SettingsT, Terminal], None]], Callable[..., None]]:
    """Turn a function of settings and a terminal into a function with one parameter per option, for Typer."""
    declared = {option.name: option for option in [*options_of(settings), *options_of(OutputOptions)]}

    def decorate(command: Callable[[SettingsT, Terminal], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**texts: object) -> None:
            output = build_settings(OutputOptions, texts)
            terminal = open_terminal(quiet=output.quiet, verbose=output.verbose, json_output=output.json_output)
            given = {name: parse_value(declared[name], text) for name, text in texts.items()}
            command(build_settings(settings, given), terminal)

        paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
        run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        parameters = [_parameter(option) for option in declared.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(declared: DeclaredOption) -> inspect.Parameter:
    option, default = declared.option, declared.default
    text_type: Any = declared.annotation
    if "parse" in option:
        text_type = str if default is MISSING else str | None
    elif get_origin(text_type) is tuple:
        text_type = list[str] if default is MISSING else list[str] | None
        default = MISSING if default is MISSING else None
    elif option.get("negated"):
        default = False
    shown: dict[str, Any] = {
        "help": _help(option),
        "metavar": option.get("metavar"),
        "rich_help_panel": option.get("panel"),
        "min": option.get("minimum"),
    }
    info = typer.Argument(**shown) if option.get("positional") else typer.Option(declared.flag, **shown)
    return inspect.Parameter(
        declared.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[text_type, info],
    )


def _help(option: Option) -> str:
    """Return the help of an option, with the meaning of None, its default; Typer adds defaults that are values."""
    text = option["help"] + (f"  [default: {option['unset']}]" if "unset" in option else "")
    return MARKUP.sub(r"\\[", text)
