"""tlcli layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings.common_options import NETWORK_ARGUMENT
from tlcli.settings.network import SIZE_OPTION

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class LayersOptions:
    """Options of `layers`."""

    network: str = field(metadata=NETWORK_ARGUMENT)
    size: int | None = field(default=None, metadata=SIZE_OPTION)


@app.command(epilog="Example: tlcli layers vgg16 --verbose")
@takes(LayersOptions)
def layers(options: LayersOptions, terminal: Terminal) -> None:
    """List the numbered layers of a network: shapes, kernels, receptive fields, parameters.

    --verbose adds the arithmetic of every convolution and pooling layer.
    """
    from tlcli.commands.layers import layers as run
    from tlcli.console.listings import layer_listing

    result = run(options.network, size=options.size)
    if not terminal.json_output:
        layer_listing(terminal, result)
    finish(terminal, result.to_json())
