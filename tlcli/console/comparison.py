"""Print the summary of `compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from tlcli.console.summaries import SHOWN_CLASSES, SHOWN_FAILURES, percent, quoted
from tlcli.console.terminal import Terminal, printable
from tlcli.datasets.class_names import in_reading_order
from tlcli.inference.paired_comparison import describe_result

if TYPE_CHECKING:
    from tlcli.commands.compare import CompareResult

SHOWN_FLIPS = 5
"""Images listed for each direction."""


def compare_summary(terminal: Terminal, result: CompareResult) -> None:
    """Print both accuracies, the difference, what it means, and the images that tell the runs apart."""
    metrics = result.metrics
    for failure in result.failures[:SHOWN_FAILURES]:
        terminal.note(f"  failed: {failure['path']}: {failure['error']}")
    if len(result.failures) > SHOWN_FAILURES:
        terminal.note(f"  ... and {len(result.failures) - SHOWN_FAILURES:,} more")
    what = "" if result.split == "all" else f"{result.split} "
    images = "image" if metrics["images"] == 1 else "images"
    terminal.note(f"Images    {metrics['images']:,} {what}{images}, predicted by both runs without training on them")
    for side, run in (("a", result.a), ("b", result.b)):
        low, high = metrics[f"interval_{side}"]
        line = Text(f"{side.upper():<9} ").append(percent(metrics[f"accuracy_{side}"]), style="bold green")
        line.append(f" ({100 * low:.1f} to {100 * high:.1f})   {printable(run.name)}: {printable(run.description)}")
        terminal.console.print(line)
    low, high = metrics["interval"]
    terminal.note(
        f"Change    {100 * metrics['difference']:+.1f} points from A to B ({100 * low:+.1f} to {100 * high:+.1f}); "
        f"exact McNemar test: p = {metrics['p_value']:.2g}"
    )
    terminal.console.print(Text("Result    ").append(describe_result(metrics), style="bold"))
    _per_class_table(terminal, metrics["per_class"])
    for side, other in (("b", "a"), ("a", "b")):
        _flips(terminal, metrics["flips"][f"only_{side}"], side, other)
    if result.out is None and metrics["only_a"] + metrics["only_b"]:
        terminal.note("          --out FILE.html shows these images, and --json lists them")
    page = "" if result.out is None else f"{quoted(result.out)}   "
    terminal.note(f"{'Page' if page else 'Time':<9} {page}{terminal.elapsed():.1f} s")


def _per_class_table(terminal: Terminal, per_class: dict[str, dict[str, Any]]) -> None:
    """Print the recall of both runs per class; of many classes, those that changed most."""
    rows = [(name, row) for name, row in in_reading_order(per_class).items() if row["images"]]
    left_out = max(0, len(rows) - SHOWN_CLASSES)
    if left_out:
        rows = sorted(rows, key=lambda pair: -abs(pair[1]["only_b"] - pair[1]["only_a"]))[:SHOWN_CLASSES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("  class")
    for heading in ("images", "recall A", "recall B", "only A correct", "only B correct"):
        table.add_column(heading, justify="right")
    for name, row in rows:
        table.add_row(
            Text(f"  {printable(name)}"),
            f"{row['images']:,}",
            percent(row["accuracy_a"]),
            percent(row["accuracy_b"]),
            f"{row['only_a']:,}",
            f"{row['only_b']:,}",
        )
    terminal.console.print(table)
    if left_out:
        terminal.note(f"  ... and {left_out} classes that changed less")


def _flips(terminal: Terminal, images: list[dict[str, Any]], side: str, other: str) -> None:
    """Print the first images that only one run predicts correctly."""
    terminal.note(f"Only {side.upper()} correct: {len(images):,} {'image' if len(images) == 1 else 'images'}")
    for image in images[:SHOWN_FLIPS]:
        terminal.note(f"  {image['path']}: {image['label']}, {other.upper()} predicts {image[f'predicted_{other}']}")
    if len(images) > SHOWN_FLIPS:
        terminal.note(f"  ... and {len(images) - SHOWN_FLIPS:,} more")
