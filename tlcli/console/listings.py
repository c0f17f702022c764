"""Listings: tables that are a command's result, and so go to stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tlcli.console.terminal import Terminal
from tlcli.storage.files import megabytes

UNBOUNDED = 1000
"""Columns of a pipe: nothing is cut off there."""

if TYPE_CHECKING:
    from tlcli.backbones.layer_table import Layer
    from tlcli.commands.inspect import InspectResult
    from tlcli.commands.layers import LayersResult


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table


def _print(table: Table) -> None:
    """Print to stdout: as wide as the terminal, or as wide as it needs to be in a pipe."""
    piped = not sys.stdout.isatty()
    Console(highlight=False, markup=False, emoji=False, width=UNBOUNDED if piped else None).print(table)


def layer_listing(terminal: Terminal, result: LayersResult) -> None:
    """One line a layer, the head below them, and the total."""
    channels, height, width = result.input_shape
    terminal.note(f"{result.name}, input {channels} x {height} x {width}")
    right = ("layer", "kernel", "stride", "padding", "output", "sees", "parameters")
    table = _table(
        "layer", "name", "kind", *right[1:], *(["trained"] if result.frozen is not None else []), right=right
    )
    for layer in result.table.layers:
        trained = [] if result.frozen is None else ["frozen" if layer.number <= result.frozen else "trained"]
        table.add_row(
            str(layer.number),
            layer.name,
            layer.kind,
            _sizes(layer.kernel),
            _sizes(layer.stride),
            _sizes(layer.padding),
            " x ".join(map(str, layer.output_shape)),
            "-" if layer.receptive_field is None else f"{layer.receptive_field} px",
            f"{layer.parameters:,}",
            *trained,
            style="dim" if trained == ["frozen"] else "",
        )
        if terminal.verbose:
            for line in layer.arithmetic:
                table.add_row("", f"  {line}", style="dim")
    head = result.table.head
    shape = " x ".join(map(str, head.output_shape))
    trained = [] if result.frozen is None else ["trained"]
    table.add_row("", head.name, "head", "", "", "", shape, "", f"{head.parameters:,}", *trained)
    table.add_row("", "total", "", "", "", "", "", "", f"{result.table.parameters:,}", style="bold")
    _print(table)
    if result.frozen is not None:
        terminal.note(_frozen(result.table.layers, result.frozen, result.table.parameters, result.trained_parameters))


def _frozen(layers: Sequence[Layer], last: int, parameters: int, trained: int) -> str:
    """How far a run's network was frozen, and how much of it that is."""
    if not last:
        return f"Nothing frozen: {trained:,} parameters trained"
    where = "the head" if last == len(layers) else f"layer {last} ({layers[last - 1].name})"
    return f"Frozen up to {where}: {parameters - trained:,} parameters frozen, {trained:,} trained"


def _sizes(values: tuple[int, ...] | None) -> str:
    """`3 x 3` as 3, `3 x 5` as such, and the four sides of an asymmetric padding as such."""
    if values is None:
        return ""
    return (
        str(values[0]) if len(set(values)) == 1 else " x ".join(map(str, values)) if len(values) == 2 else str(values)
    )


def backbone_listing(terminal: Terminal, listings: list[dict[str, Any]]) -> None:
    """One line a backbone."""
    table = _table("backbone", "parameters", "input", "weights", right=("parameters", "input"))
    for row in listings:
        parameters = "" if row["parameters"] is None else f"{row['parameters'] / 1e6:,.1f} M"
        if row["parameters"] is not None and row["parameters"] < 1e6:
            parameters = f"{row['parameters']:,}"
        table.add_row(row["name"], parameters, f"{row['input_size']} px", "on this machine" if row["local"] else "")
    _print(table)
    terminal.note(f"{len(listings):,} backbones")
    if any(row["parameters"] is None for row in listings):
        terminal.note("Parameters are counted where the pattern leaves few: tlcli backbones PATTERN")


def cache_listing(terminal: Terminal, caches: list[dict[str, Any]]) -> None:
    """One line a cache."""
    right = ("images", "size", "last used (UTC)")
    table = _table("cache", "backbone", "cut", "input", "numerics", *right, right=right)
    for cache in caches:
        content = cache["ingredients"]
        preprocessing = content["preprocessing"]
        table.add_row(
            cache["fingerprint"][:8],
            content["backbone"],
            content["cut"]["name"],
            f"{preprocessing['width']} px {preprocessing['fit']}",
            content["numerics"],
            f"{cache['images']:,}",
            megabytes(cache["bytes"]),
            cache["used"][:16].replace("T", " "),
        )
    _print(table)
    total = sum(cache["bytes"] for cache in caches)
    terminal.note(f"{len(caches)} {'cache' if len(caches) == 1 else 'caches'}, {megabytes(total)}")


def inspect_summary(terminal: Terminal, result: InspectResult) -> None:
    """What was drawn of each layer, and where it lies."""
    for layer in result.layers:
        dead = layer.of - layer.alive
        silent = f", {dead:,} of {layer.of:,} dead" if dead else f" of {layer.of:,}"
        terminal.note(f"Layer {layer.number:>3} {layer.name}: {len(layer.units)} units{silent}   {layer.file}")
    copies = f", {result.copies:,} copies counted once" if result.copies else ""
    terminal.note(f"{result.images:,} images{copies}   {result.seconds:.1f} s")
    terminal.note(f"Page      {result.out / 'inspect.html'}")
