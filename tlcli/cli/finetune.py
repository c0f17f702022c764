"""tlcli finetune."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.processes import launched
from tlcli.settings import CacheSettings, ComputeSettings, FinetuneSettings, NetworkSettings, TrainingSettings
from tlcli.settings.augmentation import choose_augmentation, default_augmentation
from tlcli.storage.urls import parse_location, parse_optional_location

_TRAINING = "Training"
_LAYERS = "Training of layers (unless --freeze all)"


@app.command(epilog="Example: tlcli finetune photos --balance --out runs/photos")
def finetune(
    data: options.Data,
    out: Annotated[
        str | None,
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
            help="Images whose paths give the same capture (a patient, a burst) stay on one side of a split.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="Times that each image is seen; with --freeze auto the budget, in epochs of the whole network.  "
            "\\[default: 8, with under 1,200 images up to 40, from random weights 40; budget 6 to 30]",
            rich_help_panel=_LAYERS,
        ),
    ] = options.TRAINING.epochs,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="LR",
            help="Of the head, at its peak; earlier layers learn slower.  "
            "\\[default: 0.001, from random weights 0.002]",
            rich_help_panel=_LAYERS,
        ),
    ] = options.TRAINING.learning_rate,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            "--weight-decay",
            metavar="WD",
            help="Of weights; biases and norms have none.  \\[default: 0.05]",
            rich_help_panel=_LAYERS,
        ),
    ] = options.TRAINING.weight_decay,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            help="Stop after this many epochs without a better validation loss.  \\[default: train all epochs]",
            rich_help_panel=_LAYERS,
        ),
    ] = options.TRAINING.patience,
    augment: options.Augment = None,
    rotate: options.Rotate = None,
    mirror: options.Mirror = None,
    flip_vertical: options.FlipVertical = None,
    crop: options.Crop = None,
    noise: options.Noise = None,
    color_shift: options.ColorShift = None,
    views: options.Views = options.TRAINING.views,
    backbone: options.Backbone = options.NETWORK.backbone,
    weights: options.Weights = options.NETWORK.weights,
    freeze: options.Freeze = options.NETWORK.freeze,
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
        bool,
        typer.Option(
            "--no-cache",
            help="Keep nothing on disk; below the head, features are computed anew in every epoch.",
            rich_help_panel="Cache",
        ),
    ] = False,
    verify: options.Verify = options.CACHE.verify,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="tensorboard|mlflow|wandb",
            help="Report to this tracker, too, through its own client; may be given several times.",
            rich_help_panel="Output",
        ),
    ] = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a classifier on labeled images: a pretrained backbone, frozen as far as you say, and a new softmax head.

    What the frozen part gives is computed once and cached, so the next run on the same images takes seconds. With
    few images freeze all (the default), with more try --freeze auto.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = FinetuneSettings(
        data=parse_location(data),
        out=parse_optional_location(out),
        group_by=group_by,
        validation_fraction=validation_fraction,
        balance=balance,
        overwrite=overwrite,
        resume=resume,
        track=tuple(track or ()),
        augmentation=choose_augmentation(
            augment,
            rotate=rotate,
            mirror=mirror,
            flip_vertical=flip_vertical,
            crop=crop,
            noise=noise,
            color_shift=color_shift,
            default=default_augmentation(freeze, weights),
        ),
        training=TrainingSettings(
            epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay, patience=patience, views=views
        ),
        network=NetworkSettings(
            backbone=backbone, weights=weights, freeze=freeze, size=size, fit=fit, intensity=intensity, seed=seed
        ),
        compute=ComputeSettings(
            device=device, precision=precision, engine=engine, batch_size=batch_size, workers=workers
        ),
        cache=CacheSettings(directory=cache, enabled=not no_cache, verify=verify),
    )
    from tlcli.commands.finetune import finetune as run
    from tlcli.console.summaries import finetune_summary

    info = run(settings, terminal)
    if launched().rank:
        return
    if terminal.summarizes:
        finetune_summary(terminal, info)
    # A run that was finished before had its failures reported then; torchrun would begin again after any code but 0.
    reported = info.get("was_finished") or launched().size > 1
    finish(terminal, info, failed=0 if reported else info["images"]["failed"])
