"""tlcli inspect."""

from __future__ import annotations

from typing import Annotated

import typer

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal
from tlcli.settings import ComputeSettings, InspectSettings
from tlcli.storage.urls import parse_location, parse_optional_location

Layer = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Number or name of a layer (see tlcli layers); may be given again.  \\[default: five, from first to last]",
    ),
]
Units = Annotated[
    int, typer.Option("--units", metavar="N", help="Units of each layer to show, the most selective ones.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where to write.  \\[default: inspect/NAME, after the run or backbone]",
        rich_help_panel="Output",
    ),
]
# None is "not given", since a run has its own.
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="pretrained|none|FILE",
        help="Of a backbone: none is random; FILE is .safetensors or .pth.  \\[default: pretrained]",
        rich_help_panel="Network",
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        metavar="crop|pad|squash",
        help="How an image becomes square, with a backbone.  \\[default: crop]",
        rich_help_panel="Network",
    ),
]


@app.command(epilog="Example: tlcli inspect tf_efficientnet_lite0 photos --layer 5 --layer conv_head --units 16")
def inspect(
    network: options.RunOrBackbone,
    data: options.Data,
    layer: Layer = None,
    units: Units = InspectSettings.units,
    out: Out = None,
    weights: Weights = InspectSettings.weights,
    size: options.Size = InspectSettings.size,
    fit: Fit = InspectSettings.fit,
    intensity: options.Intensity = InspectSettings.intensity,
    device: options.Device = options.COMPUTE.device,
    batch_size: options.BatchSize = options.COMPUTE.batch_size,
    workers: options.Workers = options.COMPUTE.workers,
    overwrite: options.Overwrite = False,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show what a network looks for: the training images that excite its units most, and what in them does.

    Of a run that trained layers, the same units before and after.

    Writes inspect.html, a PNG for each layer, and units.jsonl with a line for each patch.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    settings = InspectSettings(
        network=network,
        data=parse_location(data),
        layers=tuple(layer or ()),
        units=units,
        out=parse_optional_location(out),
        overwrite=overwrite,
        weights=weights,
        size=size,
        fit=fit,
        intensity=intensity,
        compute=ComputeSettings(device=device, batch_size=batch_size, workers=workers),
    )
    from tlcli.commands.inspect import inspect as run
    from tlcli.console.listings import inspect_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        inspect_summary(terminal, result)
    finish(terminal, result.to_json(), failed=len(result.failures))
