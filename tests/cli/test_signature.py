"""Commands composed from settings classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer

from tlcli.cli.signature import takes
from tlcli.settings.options import Option, OptionGroup


@dataclass(frozen=True, kw_only=True)
class Oven:
    degrees: int = field(default=180, metadata=Option(help="Temperature.", metavar="C"))
    light: bool = field(default=True, metadata=Option(help="No light.", flag="--dark", negated=True))
    fan: bool = field(default=False, metadata=Option(help="Fan."))


def choose_topping(given: Mapping[str, Any]) -> Topping | None:
    return None if given["cheese"] is None else Topping(cheese=given["cheese"])


@dataclass(frozen=True, kw_only=True)
class Topping:
    cheese: float = field(default=1.0, metadata=Option(help="Amount of cheese."))


@dataclass(frozen=True, kw_only=True)
class Pizza:
    name: str = field(metadata=Option(help="Name.", positional=True))
    sizes: tuple[str, ...] = field(default=(), metadata=Option(help="Size.", flag="--size", unset="any"))
    slices: int | None = field(default=None, metadata=Option(help="Slices.", parse=len, after="cheese"))
    oven: Oven = field(default_factory=Oven, metadata=OptionGroup(settings=Oven, without=("fan",)))
    topping: Topping | None = field(default=None, metadata=OptionGroup(settings=Topping, build=choose_topping))


@pytest.fixture
def received():
    return []


@pytest.fixture
def app(received):
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes(Pizza)
    def bake(settings, terminal):
        """Bake
        a pizza.
        """
        received.append((settings, terminal.quiet))

    return app


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["margherita"], Pizza(name="margherita")),
        (["x", "--size", "s", "--size", "m"], Pizza(name="x", sizes=("s", "m"))),
        (["x", "--slices", "||||"], Pizza(name="x", slices=4)),
        (["x", "--degrees", "200", "--dark"], Pizza(name="x", oven=Oven(degrees=200, light=False))),
        (["x", "--cheese", "2"], Pizza(name="x", topping=Topping(cheese=2.0))),
    ],
)
def test_options_become_settings(app, received, arguments, expected):
    app([*arguments, "--quiet"], standalone_mode=False)
    assert received == [(expected, True)]


def test_options_are_listed_in_the_order_of_the_fields(app):
    command = typer.main.get_command(app)
    names = [parameter.opts[0] for parameter in command.params]
    assert names == ["name", "--size", "--degrees", "--dark", "--cheese", "--slices", "--json", "--quiet", "--verbose"]


def test_help_shows_the_meaning_of_none_and_has_no_line_breaks(app):
    command = typer.main.get_command(app)
    assert command.help == "Bake a pizza."
    (size,) = [parameter for parameter in command.params if parameter.opts == ["--size"]]
    assert size.help == r"Size.  \[default: any]"


def test_excluded_options_do_not_exist(app):
    with pytest.raises(Exception, match="No such option"):
        app(["x", "--fan"], standalone_mode=False)
