"""What `check` says at its end: each kind of finding with its number, the first few, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tlcli.checking.copies import IDENTICAL
from tlcli.checking.finding import (
    CONFLICT,
    DUPLICATE,
    IMBALANCE,
    KINDS,
    LEAK,
    NEAR_DUPLICATE,
    SMALL_CLASS,
    SUSPECT,
    TINY,
    UNREADABLE,
    Finding,
)
from tlcli.checking.image_checks import TINY_FACTOR
from tlcli.console.summaries import percent, quoted
from tlcli.console.terminal import Terminal

if TYPE_CHECKING:
    from tlcli.commands.check import CheckResult

SHOWN = 5
"""Findings of each kind that are named."""

HEADINGS = {
    UNREADABLE: ("Unreadable", "training leaves them out. Save them anew, or remove them"),
    LEAK: ("Leaks", "the same image in two splits flatters every result. Keep one side"),
    CONFLICT: ("Two classes", "one image with two labels. Keep the right one"),
    SUSPECT: ("Wrong labels?", "another class fits better. Look at each, and move those that are wrong"),
    DUPLICATE: ("Duplicates", "the same bytes. Keep one of each"),
    NEAR_DUPLICATE: ("Near duplicates", "one image saved anew, resized, cropped or mirrored. Keep one of each"),
    TINY: ("Tiny", "mostly made up by enlarging. Find larger ones, remove them, or use a smaller --size"),
    SMALL_CLASS: ("Small classes", "too few to learn from. Add images, or merge the class into another"),
    IMBALANCE: ("Imbalance", "the largest class drowns the smallest. Train with --balance, or add images"),
}


def check_summary(terminal: Terminal, result: CheckResult) -> None:
    """What was found, the first few of each kind, and what to do."""
    data = quoted(str(result.dataset.root))
    for kind in KINDS:
        if found := result.of_kind(kind):
            terminal.note("")
            _heading(terminal, kind, len(found))
            for finding in found[:SHOWN]:
                terminal.note(f"  {_line(finding)}")
            if len(found) > SHOWN:
                terminal.note(f"  ... and {len(found) - SHOWN:,} more")
    terminal.note("")
    _information(terminal, result)
    count = len(result.findings)
    if not count:
        terminal.note(f"Nothing found in {len(result.dataset.samples):,} images   {result.seconds:.1f} s")
        terminal.note(f"Next      tlcli finetune {data}")
        return
    findings = "1 finding" if count == 1 else f"{count:,} findings"
    where = f"all: {quoted(result.out)}" if result.out else f"all: tlcli check {data} --out findings.csv"
    terminal.note(f"{findings} in {len(result.dataset.samples):,} images   {where}   {result.seconds:.1f} s")
    terminal.note(f"Next      nothing was changed: mend {data}, then tlcli check it again")


def _heading(terminal: Terminal, kind: str, count: int) -> None:
    name, advice = HEADINGS[kind]
    line = Text()
    line.append(f"{name} {count:,}", style="bold yellow")
    line.append(f"   {advice}")
    terminal.console.print(line)


def _line(finding: Finding) -> str:
    """One finding, for people; `note` escapes what is in names."""
    match finding.kind:
        case "suspect":
            return f"{finding.path}: not {finding.label} but {finding.other_label}? {finding.detail}"
        case "leak" | "conflict" | "duplicate" | "near-duplicate":
            sign = "=" if IDENTICAL in finding.detail else "~"
            return f"{finding.path} {sign} {finding.other_path}"
        case "small-class" | "imbalance":
            return f"{finding.label}: {finding.detail}"
        case _:
            return f"{finding.path}: {finding.detail}"


def _information(terminal: Terminal, result: CheckResult) -> None:
    """What is no finding, but good to know."""
    counts = result.counts
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        terminal.note(f"Balance   {counts[most]:,} images in each of {len(counts):,} classes")
    else:
        ratio = f", {counts[most] / counts[least]:.1f} times as many" if counts[least] else ""
        terminal.note(f"Balance   {least} {counts[least]:,} to {most} {counts[most]:,}{ratio}")
    shorter = sorted(min(size) for size in result.sizes)
    if shorter:
        middle = shorter[len(shorter) // 2]
        small = f"; the network enlarges most of them, to {result.side}" if TINY_FACTOR * middle < result.side else ""
        terminal.note(f"Sizes     shorter side from {shorter[0]:,} to {shorter[-1]:,} pixels, median {middle:,}{small}")
    labels = result.labels
    if labels.accuracy is None:
        terminal.note("Labels    not judged: too few images of each class")
    else:
        left = len(result.sizes) - labels.checked
        unjudged = f"; {left:,} not judged, of classes with too few" if left else ""
        terminal.note(
            f"Labels    {labels.checked:,} judged by a head that had not seen them, which agrees with "
            f"{percent(labels.accuracy)}{unjudged}"
        )
