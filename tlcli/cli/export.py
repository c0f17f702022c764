"""tlcli export."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import ExportSettings
from tlcli.storage.urls import parse_location, parse_optional_location

_NETWORK = "Network"
_COMPARISON = "Comparison"


@app.command(epilog="Example: tlcli export runs/photos --format onnx --with-preprocessing --out photos.onnx")
def export(
    run: options.RunArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="onnx|torch|timm",
            help="An ONNX file, a .pt2 file of torch.export, or a folder for timm and model hubs.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="The file or folder to write.  \\[default: RUN.onnx, RUN.pt2 or RUN-timm, in the working directory]",
            rich_help_panel="Output",
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take pixels, uint8 \\[B, H, W, 3] of the network's size, and normalize them within.",
            rich_help_panel=_NETWORK,
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="ONNX in 8 bits, calibrated on the run's training images: a quarter of the size, less exact.",
            rich_help_panel=_NETWORK,
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Labeled images to compare on.  \\[default: those the run was trained with]",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures",
            metavar="N",
            help="How many of them, held out ones first.  \\[default: 64; 400 with --int8]",
            rich_help_panel=_COMPARISON,
        ),
    ] = None,
    workers: options.Workers = options.COMPUTE.workers,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a run for use without tlcli, once it has said the same as the run on real images."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = ExportSettings(
        run=parse_location(run),
        form=form,
        out=parse_optional_location(out),
        overwrite=overwrite,
        data=parse_optional_location(data),
        pictures=pictures,
        with_preprocessing=with_preprocessing,
        int8=int8,
        workers=workers,
    )
    from tlcli.commands.export import export as export_
    from tlcli.console.summaries import export_summary

    result = export_(settings, terminal).to_json()
    if terminal.summarizes:
        export_summary(terminal, result)
    finish(terminal, result)
