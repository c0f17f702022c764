"""`tlcli layers`: list the numbered layers of a backbone, or of the network of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlcli.backbones.layer_table import LayerTable, layer_table, layer_table_by_name
from tlcli.backbones.timm_config import rebuild_backbone
from tlcli.errors import UsageError
from tlcli.runs.directory import RUN_FILE, UNFINISHED
from tlcli.runs.run import describe_parents, load_run
from tlcli.storage.urls import is_url, parse_location


@dataclass(frozen=True, kw_only=True)
class LayersResult:
    """The layers of a network."""

    name: str
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    table: LayerTable
    frozen: int | None
    """Number of the last frozen layer; None without a run."""
    parents: tuple[dict[str, Any], ...] = ()
    """The runs that a run continues, the latest first, from its `run.json`."""
    ancestry: str | None = None
    """The same in words; None if there are none."""

    @property
    def trained_parameters(self) -> int:
        """Number of parameters that the run trained, including the head."""
        frozen = sum(layer.parameters for layer in self.table.layers if layer.number <= (self.frozen or 0))
        return self.table.parameters - frozen

    def to_json(self) -> dict[str, Any]:
        """Return the object for `--json`."""
        return {
            "backbone": self.name,
            "input_shape": list(self.input_shape),
            "layers": [
                {
                    "number": layer.number,
                    "name": layer.name,
                    "kind": layer.kind,
                    "output_shape": list(layer.output_shape),
                    "parameters": layer.parameters,
                    "kernel": layer.kernel,
                    "stride": layer.stride,
                    "padding": layer.padding,
                    "receptive_field": layer.receptive_field,
                }
                for layer in self.table.layers
            ],
            "head": {
                "name": self.table.head.name,
                "output_shape": list(self.table.head.output_shape),
                "parameters": self.table.head.parameters,
            },
            "parameters": self.table.parameters,
            "frozen": self.frozen,
            "parents": list(self.parents),
            "trained_parameters": None if self.frozen is None else self.trained_parameters,
        }


def layers(name: str, *, size: int | None = None) -> LayersResult:
    """List the layers of a backbone, or of the network of a run. Loads no weights.

    Args:
        name: Name of a backbone, or the directory or URL of a run.
        size: Side of the input in pixels, for a backbone only; None for its own.

    Raises:
        UsageError: There is no such backbone, it does not support this size, or a run was given with a size.
        ArtifactError: The run is damaged.
    """
    path = Path(name)
    if is_url(name) or (path / RUN_FILE).exists() or (path / UNFINISHED).exists():
        if size is not None:
            raise UsageError("--size has no effect on a run, which has its own size. Remove it.")
        run = load_run(parse_location(name))
        backbone = rebuild_backbone(run.config)
        table, frozen, info = layer_table(backbone), run.layer, run.info
    else:
        backbone, table = layer_table_by_name(name, size)
        frozen, info = None, {}
    spec = backbone.input
    return LayersResult(
        name=backbone.name,
        input_shape=(spec.channels, spec.height, spec.width),
        table=table,
        frozen=frozen,
        parents=tuple(info.get("parents", [])),
        ancestry=describe_parents(info),
    )
