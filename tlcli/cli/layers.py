"""tlcli layers."""

from __future__ import annotations

from tlcli.cli import options
from tlcli.cli.app import app, finish, open_terminal


@app.command(epilog="Example: tlcli layers vgg16 --verbose")
def layers(
    network: options.RunOrBackbone,
    size: options.Size = options.NETWORK.size,
    json_output: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show the numbered layers of a network: shapes, kernels, receptive fields, parameters.

    --verbose adds the arithmetic of every convolution and pooling.
    """
    terminal = open_terminal(quiet=quiet, verbose=verbose, json_output=json_output)
    from tlcli.commands.layers import layers as run
    from tlcli.console.listings import layer_listing

    result = run(network, size=size)
    if not json_output:
        layer_listing(terminal, result)
    finish(terminal, result.to_json())
