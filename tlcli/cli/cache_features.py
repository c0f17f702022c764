"""tlcli cache-features."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    ComputeSettings,
    NetworkSettings,
    choose_cluster,
    parse_shard,
)
from tlcli.settings.augmentation import choose_augmentation
from tlcli.storage.urls import parse_location, parse_optional_location


@app.command("cache-features", epilog="Example: tlcli cache-features photos --export features.parquet")
def cache_features(
    data: options.Data,
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            metavar="FILE.parquet",
            help="Also write path, label, split, digest and feature to this file.",
            rich_help_panel="Output",
        ),
    ] = None,
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
    freeze: options.FreezeCached = options.NETWORK.freeze,
    size: options.Size = options.NETWORK.size,
    fit: options.Fit = options.NETWORK.fit,
    intensity: options.Intensity = options.NETWORK.intensity,
    seed: options.Seed = options.NETWORK.seed,
    device: options.Device = options.COMPUTE.device,
    precision: options.Precision = options.COMPUTE.precision,
    engine: options.Engine = options.COMPUTE.engine,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    shard: options.Shard = None,
    cluster: options.Cluster = None,
    part_size: options.PartSize = None,
    cores: options.Cores = None,
    cache: options.CacheDirectory = None,
    verify: options.Verify = options.CACHE.verify,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Compute what the frozen network gives for each image, once, and keep it on disk.

    Interrupted, it goes on where it stopped; new and edited images are all that a second run computes.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = CacheFeaturesSettings(
        data=parse_location(data),
        export=parse_optional_location(export),
        overwrite=overwrite,
        augmentation=choose_augmentation(
            augment,
            rotate=rotate,
            mirror=mirror,
            flip_vertical=flip_vertical,
            crop=crop,
            noise=noise,
            color_shift=color_shift,
        ),
        views=views,
        shard=parse_shard(shard),
        cluster=choose_cluster(cluster, part_size=part_size, cores=cores),
        network=NetworkSettings(
            backbone=backbone, weights=weights, freeze=freeze, size=size, fit=fit, intensity=intensity, seed=seed
        ),
        compute=ComputeSettings(
            device=device, precision=precision, engine=engine, batch_size=batch_size, workers=workers
        ),
        cache=CacheSettings(directory=cache, verify=verify),
    )
    from tlcli.commands.cache_features import cache_features as run
    from tlcli.console.summaries import cache_features_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        cache_features_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
