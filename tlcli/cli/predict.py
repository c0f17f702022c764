"""tlcli predict."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.errors import UsageError
from tlcli.settings import EXPLAINED, ComputeSettings, PredictSettings, choose_cluster, parse_shard
from tlcli.storage.urls import parse_location, parse_optional_location

_ROWS = "Rows"
_WHY = "Why"


@app.command(epilog="Example: tlcli predict runs/photos inbox --min-confidence 0.9 --out labels.csv")
def predict(
    run: options.RunArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, folders, tars, @list.txt, or - for a list on standard input."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE.csv|.jsonl|.parquet|-",
            help="Where the rows go.  \\[default: CSV on standard output; with --json, in its object]",
            rich_help_panel="Output",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="K", help="The K likeliest labels in each row.", rich_help_panel=_ROWS)
    ] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="A column p:CLASS for each class.", rich_help_panel=_ROWS)
    ] = False,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            "--min-confidence", metavar="P", help="Below it, a row's status is review.", rich_help_panel=_ROWS
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="DIR",
            help="Also a folder of images that show what speaks for the label (Grad-CAM).",
            rich_help_panel=_WHY,
        ),
    ] = None,
    explain_limit: Annotated[
        int | None,
        typer.Option(
            "--explain-limit",
            metavar="N",
            help=f"Explain the first N images that can be read.  \\[default: {EXPLAINED}]",
            rich_help_panel=_WHY,
        ),
    ] = None,
    device: options.Device = options.COMPUTE.device,
    engine: options.Engine = options.COMPUTE.engine,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    shard: options.Shard = None,
    cluster: options.Cluster = None,
    part_size: options.PartSize = None,
    cores: options.Cores = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Label images with a run: one row for each, in order, unreadable ones included."""
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    if out == "-" and json_output:
        raise UsageError("--out - and --json would both write to standard output. Choose one, or give --out FILE.")
    settings = PredictSettings(
        run=parse_location(run),
        inputs=tuple(inputs),
        out=out or (None if json_output else "-"),
        top=top,
        probabilities=probabilities,
        min_confidence=min_confidence,
        overwrite=overwrite,
        resume=resume,
        shard=parse_shard(shard),
        cluster=choose_cluster(cluster, part_size=part_size, cores=cores),
        explain=parse_optional_location(explain),
        explain_limit=explain_limit,
        compute=ComputeSettings(device=device, engine=engine, batch_size=batch_size, workers=workers),
    )
    from tlcli.commands.predict import predict as predict_
    from tlcli.console.summaries import predict_summary

    result = predict_(settings, terminal, stdout=terminal.rows())
    if terminal.summarizes:
        predict_summary(terminal, result.to_json(), result.failures)
    finish(terminal, result.to_json(), failed=0 if result.was_finished else result.failed + len(result.unlisted))
