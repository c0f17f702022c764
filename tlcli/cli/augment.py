"""tlcli augment."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import AugmentSettings, ComputeSettings
from tlcli.settings.augmentation import choose_augmentation
from tlcli.storage.urls import parse_location, parse_optional_location


@app.command(epilog="Example: tlcli augment photos --out photos-x4 --copies 3 --augment strong --preview look.png")
def augment(
    data: options.Data,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Folder of the new data set.", rich_help_panel="Output"),
    ] = None,
    copies: Annotated[
        int,
        typer.Option("--copies", metavar="K", help="Of each training image.", rich_help_panel="Augmentation"),
    ] = AugmentSettings.copies,
    preset: options.Augment = None,
    rotate: options.Rotate = None,
    mirror: options.Mirror = None,
    flip_vertical: options.FlipVertical = None,
    crop: options.Crop = None,
    noise: options.Noise = None,
    color_shift: options.ColorShift = None,
    intensity: Annotated[
        str | None,
        typer.Option(
            "--intensity",
            metavar="LO,HI",
            help="What becomes black and white in copies of gray images with more than 8 bits.  \\[default: 0,65535]",
            rich_help_panel="Augmentation",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of the distortions and of the split.", rich_help_panel="Augmentation"),
    ] = AugmentSettings.seed,
    workers: options.Workers = options.COMPUTE.workers,
    preview: Annotated[
        str | None,
        typer.Option(
            "--preview",
            metavar="FILE.png",
            help="Show some originals and their distortions on one sheet; enough without --out.",
            rich_help_panel="Output",
        ),
    ] = None,
    resume: options.Resume = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the preview's file.", rich_help_panel="Output")
    ] = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a larger data set: all originals, and distorted copies of the training images.

    Where nothing is said about the distortions, they are those of --augment light: mirror, crop 0.5, color shift 10.
    Only training images are copied; where DATA brings no validation images, a fifth is held out first.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    chosen = choose_augmentation(
        preset,
        rotate=rotate,
        mirror=mirror,
        flip_vertical=flip_vertical,
        crop=crop,
        noise=noise,
        color_shift=color_shift,
    )
    settings = AugmentSettings(
        data=parse_location(data),
        out=parse_optional_location(out),
        copies=copies,
        augmentation=AugmentSettings.augmentation if chosen is None else chosen,
        intensity=intensity,
        seed=seed,
        preview=parse_optional_location(preview),
        resume=resume,
        overwrite=overwrite,
        compute=ComputeSettings(workers=workers),
    )
    from tlcli.commands.augment import augment as run
    from tlcli.console.summaries import augment_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        augment_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
