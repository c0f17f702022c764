"""Print the summary of `check`: the number of findings of each kind, the first few of them, and what to do."""

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
    MASK,
    MIXED_LEVELS,
    NEAR_DUPLICATE,
    PROFILE,
    SIMILAR_NAMES,
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
"""Findings listed per kind, at most."""

HEADINGS = {
    UNREADABLE: ("Unreadable", "skipped in training. Repair or remove them"),
    LEAK: ("Leaks", "an image in two splits makes results too optimistic. Keep only one copy"),
    CONFLICT: ("Conflicting labels", "the same image in two classes. Keep the correct one"),
    MASK: ("Masks?", "masks would be trained on as images. Leave them out with the --exclude shown"),
    SUSPECT: ("Wrong labels?", "another class was predicted. Review each one, and move those that are wrong"),
    DUPLICATE: ("Duplicates", "identical files. Keep one of each"),
    NEAR_DUPLICATE: ("Near duplicates", "re-encoded, resized, cropped or mirrored copies. Keep one of each"),
    TINY: ("Tiny", "enlarged to more than twice their size. Replace or remove them, or use a smaller --size"),
    MIXED_LEVELS: (
        "Two levels",
        "images in subfolders count for the class. Exclude those that do not belong to it",
    ),
    SIMILAR_NAMES: ("Similar names", "the same class spelled twice? Rename one of them, or move its images"),
    PROFILE: ("Color profiles", "colors may be wrong. Save these images as sRGB"),
    SMALL_CLASS: ("Small classes", "too few training images. Add images, or merge the class into another one"),
    IMBALANCE: (
        "Imbalance",
        "the smallest class has too few images compared to the largest. Train with --balance, or add images",
    ),
}


def check_summary(terminal: Terminal, result: CheckResult) -> None:
    """Print the findings, statistics, and the next step."""
    data = quoted(str(result.dataset.root))
    options = result.dataset.options()
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
        terminal.note(f"No findings in {len(result.dataset.samples):,} images   {result.seconds:.1f} s")
        terminal.note(f"Next      tlcli finetune {data}{options}")
        return
    findings = "1 finding" if count == 1 else f"{count:,} findings"
    where = f"all: {quoted(result.out)}" if result.out else f"all: tlcli check {data}{options} --out findings.csv"
    terminal.note(f"{findings} in {len(result.dataset.samples):,} images   {where}   {result.seconds:.1f} s")
    terminal.note(f"Next      fix {data} (check changes nothing), then run tlcli check again")


def _heading(terminal: Terminal, kind: str, count: int) -> None:
    name, advice = HEADINGS[kind]
    line = Text()
    line.append(f"{name} {count:,}", style="bold yellow")
    line.append(f"   {advice}")
    terminal.console.print(line)


def _line(finding: Finding) -> str:
    """Format a finding; `note` escapes names."""
    match finding.kind:
        case "suspect":
            return f"{finding.path}: {finding.label}, predicted {finding.other_label} ({finding.detail})"
        case "leak" | "conflict" | "duplicate" | "near-duplicate":
            sign = "=" if IDENTICAL in finding.detail else "~"
            return f"{finding.path} {sign} {finding.other_path}"
        case "mask":
            return f"{finding.path} of {finding.other_path} ({finding.detail})"
        case "similar-names":
            return f"{finding.label}, {finding.other_label} ({finding.detail})"
        case "small-class" | "imbalance" | "mixed-levels":
            return f"{finding.label}: {finding.detail}"
        case _:
            return f"{finding.path}: {finding.detail}"


def _information(terminal: Terminal, result: CheckResult) -> None:
    """Print statistics that are not findings."""
    counts = result.counts
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        terminal.note(f"Balance   {counts[most]:,} images in each of {len(counts):,} classes")
    else:
        ratio = f", {counts[most] / counts[least]:.1f} times as many" if counts[least] else ""
        terminal.note(f"Balance   {least} {counts[least]:,} to {most} {counts[most]:,}{ratio}")
    if result.group_by:
        data, pattern = quoted(str(result.dataset.root)), quoted(result.group_by)
        remedy = f"tlcli finetune {data}{result.dataset.options()} --group-by {pattern}"
        if result.dataset.has_split("validation"):  # finetune keeps the splits of DATA
            remedy = f"merge the splits of {data}, and train with --group-by {pattern}"
        terminal.note(f"Groups    near duplicates have names in common. To keep each group in one split: {remedy}")
    shorter = sorted(min(size) for size in result.sizes)
    if shorter:
        middle = shorter[len(shorter) // 2]
        small = (
            f"; most are enlarged to the network input of {result.side}" if TINY_FACTOR * middle < result.side else ""
        )
        terminal.note(f"Sizes     shorter side from {shorter[0]:,} to {shorter[-1]:,} pixels, median {middle:,}{small}")
    labels = result.labels
    if labels.accuracy is None:
        terminal.note("Labels    not checked: too few images per class")
    else:
        left = len(result.sizes) - labels.checked
        unchecked = f"; {left:,} not checked: too few images of their class" if left else ""
        terminal.note(
            f"Labels    {labels.checked:,} checked by cross-validation; {percent(labels.accuracy)} agree with the "
            f"prediction{unchecked}"
        )
