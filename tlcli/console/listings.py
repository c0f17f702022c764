"""Tables that are the result of a command and are printed to stdout, and summaries of `inspect` and `similar`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from tlcli.console.terminal import Terminal
from tlcli.storage.files import megabytes

PIPE_WIDTH = 1000
"""Width of tables in a pipe, in characters: wide enough that nothing is cut off."""

if TYPE_CHECKING:
    from tlcli.backbones.layer_table import Layer
    from tlcli.commands.inspect import InspectResult
    from tlcli.commands.layers import LayersResult
    from tlcli.commands.similar import SimilarResult

SHOWN_FAILURES = 5


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table


def _print(table: Table) -> None:
    """Print to stdout, at the width of the terminal; in a pipe, at the width of the table."""
    piped = not sys.stdout.isatty()
    Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH if piped else None).print(table)


def layer_listing(terminal: Terminal, result: LayersResult) -> None:
    """Print one row per layer, the head below them, and the total."""
    channels, height, width = result.input_shape
    terminal.note(f"{result.name}, input {channels} x {height} x {width}")
    right = ("layer", "kernel", "stride", "padding", "output", "receptive field", "parameters")
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
    if result.ancestry:
        terminal.note(result.ancestry)


def _frozen(layers: Sequence[Layer], last: int, parameters: int, trained: int) -> str:
    """Describe up to which layer the network of a run was frozen, and the number of frozen parameters."""
    if not last:
        return f"Nothing frozen: {trained:,} parameters trained"
    depth = "the head" if last == len(layers) else f"layer {last} ({layers[last - 1].name})"
    return f"Frozen up to {depth}: {parameters - trained:,} parameters frozen, {trained:,} trained"


def _sizes(values: tuple[int, ...] | None) -> str:
    """Format `3 x 3` as 3, other pairs such as `3 x 5`, and the four sides of an asymmetric padding as a tuple."""
    if values is None:
        return ""
    return (
        str(values[0]) if len(set(values)) == 1 else " x ".join(map(str, values)) if len(values) == 2 else str(values)
    )


def backbone_listing(terminal: Terminal, listings: list[dict[str, Any]]) -> None:
    """Print one row per backbone."""
    table = _table("backbone", "parameters", "input", "weights", right=("parameters", "input"))
    for row in listings:
        parameters = "" if row["parameters"] is None else f"{row['parameters'] / 1e6:,.1f} M"
        if row["parameters"] is not None and row["parameters"] < 1e6:
            parameters = f"{row['parameters']:,}"
        table.add_row(row["name"], parameters, f"{row['input_size']} px", "on this machine" if row["local"] else "")
    _print(table)
    terminal.note(f"{len(listings):,} {'backbone' if len(listings) == 1 else 'backbones'}")
    if any(row["parameters"] is None for row in listings):
        terminal.note("Parameters are counted only for short lists: tlcli backbones PATTERN")


def cache_listing(terminal: Terminal, caches: list[dict[str, Any]]) -> None:
    """Print one row per cache."""
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
    """Print what was drawn for each layer, and the path of the page."""
    for layer in result.layers:
        dead = layer.of - layer.alive
        of = f", {dead:,} of {layer.of:,} dead" if dead else f" of {layer.of:,}"
        terminal.note(f"Layer {layer.number:>3} {layer.name}: {len(layer.units)} units{of}   {layer.file}")
    copies = f", {result.copies:,} duplicates counted once" if result.copies else ""
    terminal.note(f"{result.images:,} images{copies}   {result.seconds:.1f} s")
    terminal.note(f"Page      {result.out / 'inspect.html'}")


def similar_summary(terminal: Terminal, result: SimilarResult) -> None:
    """Print how many queries were answered, which of them failed, and the path of the output."""
    queries = "1 query" if result.queries == 1 else f"{result.queries:,} queries"
    failed = f"   failed {len(result.failed):,}" if result.failed else ""
    terminal.note(f"{queries}, {result.images:,} images searched{failed}   {terminal.elapsed():.1f} s")
    for path, reason in result.failed[:SHOWN_FAILURES]:
        terminal.note(f"  failed: {path}: {reason}")
    if len(result.failed) > SHOWN_FAILURES:
        terminal.note(f"  ... and {len(result.failed) - SHOWN_FAILURES:,} more")
    if result.out not in {None, "-"}:
        terminal.note(f"Written   {shlex.quote(str(result.out))}")
