"""How good a run is, drawn with characters: what was taken for what, and whether its confidence can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from tlcli.console.terminal import Terminal, printable

LONGEST_NAME = 24
"""Cells of a class's name in front of its row, at most."""
MOST_ROWS = 30
"""Classes shown, at most."""
RIGHT = ((222, 238, 250), (24, 100, 171))
WRONG = ((255, 236, 217), (217, 72, 15))
"""Backgrounds from few to all images of a row. Text on them is black or white, so it is read on any terminal."""
BINS = 15
"""Of confidence, as in `training.metrics`."""
BARS = "▁▂▃▄▅▆▇█"
FEW = 50
"""Images below which calibration can't be told."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Classes of a confusion matrix that are shown."""

    indices: tuple[int, ...]
    of: int
    """Classes that have images, or were said."""

    @property
    def whole(self) -> bool:
        return len(self.indices) == self.of


def confusion_table(terminal: Terminal, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """A row for each true class, a column for what was said; of too many classes the most confused.

    Columns have names where there is room for them, else the numbers of the rows.

    Args:
        terminal: Where to; its width decides how much is shown.
        confusion: [k][k] counts, rows are the truth.
        classes: Names, [k].
    """
    width, plain = terminal.console.width, terminal.console.options.ascii_only
    most = min(LONGEST_NAME, width // 4)
    names = [_short(printable(name), most, plain=plain) for name in classes]
    digits = max(len(str(count)) for row in confusion for count in row)
    part = _most_confused(confusion, names, width, digits)
    if len(part.indices) < 2:
        return
    chosen = part.indices
    label = max(cell_len(names[index]) for index in chosen)
    cells = [max(cell_len(names[index]), digits) + 2 for index in chosen]
    rest = 0 if part.whole else max(digits, len("others")) + 2
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
        shown = [
            _cell(row[said], total, size, right=said == truth, plain=plain)
            for said, size in zip(chosen, cells, strict=True)
        ]
        others = total - sum(row[said] for said in chosen)
        end = _cell(others, total, rest, right=False, plain=plain) if rest else ""
        table.add_row(Text(f"  {number}{names[truth]} "), *shown, end)
    what = "" if part.whole else f", the {len(chosen)} most confused of {part.of} classes"
    terminal.note(f"Confusion  rows: the truth, columns: what was said{what}")
    terminal.console.print(table)


def _heads(names: Sequence[str], chosen: Sequence[int], named: bool) -> list[str]:
    return [names[index] if named else str(place) for place, index in enumerate(chosen, 1)]


def _most_confused(confusion: Sequence[Sequence[int]], names: Sequence[str], width: int, digits: int) -> _Part:
    """The classes that fit, in their order: all that occur, or those that most mistakes are about."""
    mistakes = [
        sum(row) + sum(other[index] for other in confusion) - 2 * row[index] for index, row in enumerate(confusion)
    ]
    present = [index for index, row in enumerate(confusion) if sum(row) or mistakes[index]]
    # By numbers, which are never wider than names where all classes fit.
    label = max((cell_len(names[index]) for index in present), default=0) + 3
    room = _room(width - label - len(str(len(present))) - 1, len(present), digits, rest=0)
    if room < len(present):
        room = _room(width - label - 3, len(present), digits, rest=max(digits, len("others")) + 2)
        worst = sorted(present, key=lambda index: -mistakes[index])[:room]
        return _Part(indices=tuple(sorted(worst)), of=len(present))
    return _Part(indices=tuple(present), of=len(present))


def _room(width: int, count: int, digits: int, *, rest: int) -> int:
    """Columns of numbers that fit."""
    return max(0, min(MOST_ROWS, (width - rest) // (max(digits, len(str(min(count, MOST_ROWS)))) + 2)))


def _cell(count: int, total: int, size: int, *, right: bool, plain: bool) -> Text:
    """A count on a ground that grows with its share of the row."""
    if not count:
        return Text(("." if plain else "·").rjust(size - 1) + " ", style="dim")
    share = count / total
    low, high = RIGHT if right else WRONG
    # Mistakes are few: the root makes 4 % as visible as 20 %.
    depth = share if right else math.sqrt(share)
    red, green, blue = (round(start + (end - start) * depth) for start, end in zip(low, high, strict=True))
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
    ink = "rgb(0,0,0)" if ink == "black" else "rgb(255,255,255)"  # what is called so a terminal may draw otherwise
    return Text(f"{count} ".rjust(size), style=f"{ink} on rgb({red},{green},{blue})")


def _short(name: str, most: int, *, plain: bool) -> str:
    if cell_len(name) <= most:
        return name
    end = "..." if plain else "…"
    return set_cell_size(name, max(most - len(end), 0)) + end


def calibration(terminal: Terminal, metrics: dict[str, Any]) -> None:
    """Whether the confidences can be believed: how many are right at each, and how far off that is on average."""
    bins = metrics["reliability"]
    if not bins:
        return
    low, high = bins[0]["confidence"], bins[-1]["confidence"]
    at = f"at confidence {low:.2f} to {high:.2f}" if len(bins) > 1 else f"at confidence {low:.2f}"
    terminal.note(f"Calibrated  off by {100 * metrics['ece']:.1f} % on average (ECE), {_verdict(metrics)}")
    if not terminal.console.options.ascii_only:
        terminal.note(f"            right {_spark(bins)} {at}")


def _spark(bins: Sequence[dict[str, Any]]) -> str:
    """A bar for each bin of confidence from the first to the last with images: the share that is right."""
    heights = {math.ceil(row["confidence"] * BINS - 1e-9): row["accuracy"] for row in bins}
    places = range(min(heights), max(heights) + 1)
    return "".join(BARS[min(int(heights[at] * len(BARS)), len(BARS) - 1)] if at in heights else " " for at in places)


def _verdict(metrics: dict[str, Any]) -> str:
    """The same in words."""
    images = metrics["images"]
    if images < FEW:
        return f"but {images} {'image tells' if images == 1 else 'images tell'} little"
    if metrics["ece"] < 0.02:
        return "which is little"
    mean = sum(row["confidence"] * row["images"] for row in metrics["reliability"]) / images
    excess = mean - metrics["accuracy"]
    if abs(excess) < metrics["ece"] / 2:
        return "too sure here and too unsure there"
    return "mostly too sure" if excess > 0 else "mostly too modest"
