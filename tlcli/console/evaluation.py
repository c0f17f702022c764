"""Text graphics of an evaluation: the confusion matrix and the calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from tlcli.console.terminal import Terminal, printable
from tlcli.datasets.class_names import reading_order

MAX_NAME_WIDTH = 24
"""Cells of a class name at the start of its row."""
MAX_CLASSES = 30
"""Classes shown."""
MAX_SLICES = 20
"""Slices shown."""
CORRECT_COLORS = ((222, 238, 250), (24, 100, 171))
ERROR_COLORS = ((255, 236, 217), (217, 72, 15))
"""Background colors from few to all images of a row. Text on them is black or white, legible on any terminal."""
RELIABILITY_BINS = 15
"""Bins of confidence, as in `inference.metrics`."""
BARS = "▁▂▃▄▅▆▇█"
MIN_CALIBRATION_IMAGES = 50
"""With fewer images, the calibration error is unreliable."""


@dataclass(frozen=True, kw_only=True)
class _ShownClasses:
    """The classes of a confusion matrix that are shown."""

    indices: tuple[int, ...]
    of: int
    """Classes that have images or were predicted."""

    @property
    def complete(self) -> bool:
        return len(self.indices) == self.of


def confusion_table(terminal: Terminal, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Print a row per true class and a column per predicted class; of too many classes, the most confused.

    Columns are labeled with class names if these fit, else with the numbers of the rows.

    Args:
        terminal: Its width determines how many classes are shown.
        confusion: Counts [k][k]; rows are true classes.
        classes: Names of the k classes.
    """
    width, plain = terminal.console.width, terminal.console.options.ascii_only
    most = min(MAX_NAME_WIDTH, width // 4)
    names = [_short(printable(name), most, plain=plain) for name in classes]
    digits = max(len(str(count)) for row in confusion for count in row)
    shown = _most_confused(confusion, names, reading_order(classes), width, digits)
    if len(shown.indices) < 2:
        return
    chosen = shown.indices
    label = max(cell_len(names[index]) for index in chosen)
    cells = [max(cell_len(names[index]), digits) + 2 for index in chosen]
    rest = 0 if shown.complete else max(digits, len("others")) + 2
    named = 2 + label + sum(cells) + rest <= width
    if not named:
        cells = [max(digits, len(str(len(chosen)))) + 2] * len(chosen)
    table = Table(box=None, padding=0, show_header=False, pad_edge=False)
    head = [
        Text(f" {name} ".rjust(size), style="bold")
        for name, size in zip(_heads(names, chosen, named), cells, strict=True)
    ]
    table.add_row("", *head, Text(" others ".rjust(rest), style="bold") if rest else "")
    for place, truth in enumerate(chosen, 1):
        row, total = confusion[truth], sum(confusion[truth])
        number = "" if named else f"{place:>{len(str(len(chosen)))}} "
        counts = [
            _cell(row[predicted], total, size, correct=predicted == truth, plain=plain)
            for predicted, size in zip(chosen, cells, strict=True)
        ]
        others = total - sum(row[predicted] for predicted in chosen)
        end = _cell(others, total, rest, correct=False, plain=plain) if rest else ""
        table.add_row(Text(f"  {number}{names[truth]} "), *counts, end)
    selection = "" if shown.complete else f", the {len(chosen)} most confused of {shown.of} classes"
    terminal.note(f"Confusion  rows: true class, columns: predicted class{selection}")
    terminal.console.print(table)


def _heads(names: Sequence[str], chosen: Sequence[int], named: bool) -> list[str]:
    return [names[index] if named else str(number) for number, index in enumerate(chosen, 1)]


def _most_confused(
    confusion: Sequence[Sequence[int]], names: Sequence[str], order: Sequence[int], width: int, digits: int
) -> _ShownClasses:
    """Return the classes that fit, in this order: all that occur, or those with the most errors."""
    errors = [
        sum(row) + sum(other[index] for other in confusion) - 2 * row[index] for index, row in enumerate(confusion)
    ]
    present = [index for index in order if sum(confusion[index]) or errors[index]]
    # Columns labeled with numbers are never wider than columns labeled with names.
    label = max((cell_len(names[index]) for index in present), default=0) + 3
    room = _room(width - label - len(str(len(present))) - 1, len(present), digits, rest=0)
    if room < len(present):
        room = _room(width - label - 3, len(present), digits, rest=max(digits, len("others")) + 2)
        worst = sorted(present, key=lambda index: -errors[index])[:room]
        return _ShownClasses(indices=tuple(index for index in present if index in worst), of=len(present))
    return _ShownClasses(indices=tuple(present), of=len(present))


def _room(width: int, count: int, digits: int, *, rest: int) -> int:
    """Return how many columns of counts fit."""
    return max(0, min(MAX_CLASSES, (width - rest) // (max(digits, len(str(min(count, MAX_CLASSES)))) + 2)))


def _cell(count: int, total: int, size: int, *, correct: bool, plain: bool) -> Text:
    """Format a count on a background that is darker for a larger share of the row."""
    if not count:
        return Text(("." if plain else "·").rjust(size - 1) + " ", style="dim")
    share = count / total
    low, high = CORRECT_COLORS if correct else ERROR_COLORS
    # Errors are few: the root makes 4 % as visible as 20 %.
    depth = share if correct else math.sqrt(share)
    red, green, blue = (round(start + (end - start) * depth) for start, end in zip(low, high, strict=True))
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
    ink = "rgb(0,0,0)" if ink == "black" else "rgb(255,255,255)"  # terminals may draw named colors differently
    return Text(f"{count} ".rjust(size), style=f"{ink} on rgb({red},{green},{blue})")


def _short(name: str, most: int, *, plain: bool) -> str:
    if cell_len(name) <= most:
        return name
    end = "..." if plain else "…"
    return set_cell_size(name, max(most - len(end), 0)) + end


def calibration(terminal: Terminal, metrics: dict[str, Any]) -> None:
    """Print the calibration error, and the accuracy at each confidence."""
    bins = metrics["reliability"]
    if not bins:
        return
    low, high = bins[0]["confidence"], bins[-1]["confidence"]
    at = f"at confidence {low:.2f} to {high:.2f}" if len(bins) > 1 else f"at confidence {low:.2f}"
    terminal.note(f"Calibration  error {100 * metrics['ece']:.1f} % (ECE), {_verdict(metrics)}")
    if not terminal.console.options.ascii_only:
        terminal.note(f"             accuracy {_spark(bins)} {at}")


def _spark(bins: Sequence[dict[str, Any]]) -> str:
    """Return a bar per bin of confidence, from the first to the last with images; its height is the accuracy."""
    heights = {math.ceil(row["confidence"] * RELIABILITY_BINS - 1e-9): row["accuracy"] for row in bins}
    bars = {number: BARS[min(int(height * len(BARS)), len(BARS) - 1)] for number, height in heights.items()}
    return "".join(bars.get(number, " ") for number in range(min(bars), max(bars) + 1))


def _verdict(metrics: dict[str, Any]) -> str:
    """Return the calibration error in words."""
    images = metrics["images"]
    if images < MIN_CALIBRATION_IMAGES:
        return f"unreliable with only {images} {'image' if images == 1 else 'images'}"
    if metrics["ece"] < 0.02:
        return "which is low"
    mean = sum(row["confidence"] * row["images"] for row in metrics["reliability"]) / images
    excess = mean - metrics["accuracy"]
    if abs(excess) < metrics["ece"] / 2:
        return "overconfident for some images and underconfident for others"
    return "mostly overconfident" if excess > 0 else "mostly underconfident"


def slices_table(terminal: Terminal, result: dict[str, Any]) -> None:
    """Print the accuracy of each slice; of many, those with the smallest p-values."""
    slices = result["slices"]
    if slices is None:
        return
    what = f" ({result['measure']})" if result["measure"] else ""
    terminal.note(f"Slices    by {printable(result['by'])}{what}")
    shown = slices
    if len(slices) > MAX_SLICES:
        shown = sorted(slices, key=lambda row: row["p_value"])[:MAX_SLICES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("  slice")
    for heading in ("images", "accuracy", "95 % interval", "p, corrected", ""):
        table.add_column(heading, justify="right")
    for row in shown:
        low, high = row["interval"]
        table.add_row(
            Text(f"  {printable(row['name'])}"),
            f"{row['images']:,}",
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{row['adjusted_p_value']:.2g}",
            Text("worse", style="bold red") if row["worse"] else "",
        )
    terminal.console.print(table)
    if len(slices) > len(shown):
        terminal.note(f"  ... and {len(slices) - len(shown):,} more slices, in --json")
