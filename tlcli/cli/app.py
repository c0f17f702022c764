"""The Typer application, and what all commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlcli.errors import UsageError
from tlcli.processes import launched

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal

EXIT_SOME_FAILED = 3

app = typer.Typer(
    name="tlcli",
    help="Train image classifiers from the command line, by transfer learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: tlcli finetune IMAGES, where IMAGES has one folder per class.",
)


def _version(requested: bool) -> None:
    if requested:
        from tlcli import __version__

        typer.echo(f"tlcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train image classifiers from the command line, by transfer learning."""
    if context.invoked_subcommand != "finetune" and launched().size > 1:
        raise UsageError(
            f"torchrun started {launched().size} processes of {context.invoked_subcommand}, but only finetune supports "
            "torchrun. Run the command without torchrun."
        )


def open_terminal(*, quiet: bool, verbose: bool, json_output: bool) -> Terminal:
    """Return the terminal for a command with these options."""
    from tlcli.console.terminal import Terminal

    return Terminal(quiet=quiet, verbose=verbose, json_output=json_output)


def finish(terminal: Terminal, result: dict[str, Any], *, failed: int = 0) -> None:
    """Print the object of `--json`, and exit with code 3 if some inputs failed."""
    if terminal.json_output:
        terminal.result(result)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
