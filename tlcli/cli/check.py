"""tlcli check."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import CacheSettings, CheckSettings, ComputeSettings, NetworkSettings
from tlcli.storage.urls import parse_location, parse_optional_location


@app.command(epilog="Example: tlcli check photos --out findings.csv")
def check(
    data: options.Data,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE.csv",
            help="Also write every finding to this file, one a row.",
            rich_help_panel="Output",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="REGEX",
            help="Images whose paths give the same capture (a patient, a burst) don't vouch for each other's labels.",
        ),
    ] = None,
    backbone: options.Backbone = options.NETWORK.backbone,
    weights: options.Weights = options.NETWORK.weights,
    size: options.Size = options.NETWORK.size,
    fit: options.Fit = options.NETWORK.fit,
    intensity: options.Intensity = options.NETWORK.intensity,
    seed: options.Seed = options.NETWORK.seed,
    device: options.Device = options.COMPUTE.device,
    precision: options.Precision = options.COMPUTE.precision,
    engine: options.Engine = options.COMPUTE.engine,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    cache: options.CacheDirectory = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep no features on disk.", rich_help_panel="Cache")
    ] = False,
    verify: options.Verify = options.CACHE.verify,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Look for what spoils training: unreadable images, copies, leaks between splits, wrong labels. Changes nothing.

    Labels are judged by heads that had not seen the image (five folds). Exit code 3 says that something was found.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = CheckSettings(
        data=parse_location(data),
        out=parse_optional_location(out),
        overwrite=overwrite,
        group_by=group_by,
        network=NetworkSettings(backbone=backbone, weights=weights, size=size, fit=fit, intensity=intensity, seed=seed),
        compute=ComputeSettings(
            device=device, precision=precision, engine=engine, batch_size=batch_size, workers=workers
        ),
        cache=CacheSettings(directory=cache, enabled=not no_cache, verify=verify),
    )
    from tlcli.commands.check import check as run
    from tlcli.console.check import check_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        check_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.findings))
