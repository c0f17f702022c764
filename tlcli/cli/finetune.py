"""tlcli finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings

_TRAINING = "Training"


@app.command(epilog="Example: tlcli finetune photos --balance --out runs/photos")
def finetune(
    data: options.Data,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="Directory for the run.  \\[default: runs/NAME-OF-DATA]",
            rich_help_panel="Output",
        ),
    ] = None,
    balance: Annotated[
        bool,
        typer.Option("--balance", help="Weigh each class by its inverse frequency.", rich_help_panel=_TRAINING),
    ] = False,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            "--validation-fraction",
            metavar="F",
            help="Hold this share out for validation.  \\[default: five folds, unless DATA brings validation]",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="REGEX",
            help="Pictures whose paths give the same capture (a patient, a burst) stay on one side of a split.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    backbone: options.Backbone = options.NETWORK.backbone,
    weights: options.Weights = options.NETWORK.weights,
    freeze: options.Freeze = options.NETWORK.freeze,
    size: options.Size = options.NETWORK.size,
    fit: options.Fit = options.NETWORK.fit,
    seed: options.Seed = options.NETWORK.seed,
    device: options.Device = options.COMPUTE.device,
    precision: options.Precision = options.COMPUTE.precision,
    engine: options.Engine = options.COMPUTE.engine,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    cache: options.CacheDirectory = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep features in memory, and forget them.", rich_help_panel="Cache")
    ] = False,
    verify: options.Verify = options.CACHE.verify,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a classifier on labelled pictures: frozen pretrained backbone, new softmax head.

    Features are computed once and cached, so the next run on the same pictures takes seconds.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = FinetuneSettings(
        data=data,
        out=out,
        group_by=group_by,
        validation_fraction=validation_fraction,
        balance=balance,
        overwrite=overwrite,
        resume=resume,
        network=NetworkSettings(backbone=backbone, weights=weights, freeze=freeze, size=size, fit=fit, seed=seed),
        compute=ComputeSettings(
            device=device, precision=precision, engine=engine, batch_size=batch_size, workers=workers
        ),
        cache=CacheSettings(directory=cache, enabled=not no_cache, verify=verify),
    )
    from tlcli.commands.finetune import finetune as run
    from tlcli.console.summaries import finetune_summary

    info = run(settings, terminal)
    if terminal.summarises:
        finetune_summary(terminal, info)
    # A run that was finished before had its failures reported then.
    finish(terminal, info, failed=0 if info.get("was_finished") else info["images"]["failed"])
