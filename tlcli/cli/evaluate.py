"""tlcli evaluate."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import ComputeSettings, EvaluateSettings
from tlcli.storage.urls import parse_location


@app.command(epilog="Example: tlcli evaluate runs/photos photos --split test")
def evaluate(
    run: options.RunArgument,
    data: options.Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="train|validation|test|all",
            help="Which images.  \\[default: test where DATA has one; else what the run held out; else all]",
        ),
    ] = None,
    device: options.Device = options.COMPUTE.device,
    engine: options.Engine = options.COMPUTE.engine,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Judge a run on labeled images: accuracy with its interval, each class, mistakes, calibration."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = EvaluateSettings(
        run=parse_location(run),
        data=parse_location(data),
        split=split,
        compute=ComputeSettings(device=device, engine=engine, batch_size=batch_size, workers=workers),
    )
    from tlcli.commands.evaluate import evaluate as evaluate_
    from tlcli.console.summaries import evaluate_summary

    result = evaluate_(settings, terminal)
    if terminal.summarizes:
        evaluate_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
