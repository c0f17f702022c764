"""What the terminal shows of a session: one bar for all features, and at the end what to do next. Torch-free."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tlcli.progress import Advance, Reporter


class ChunkReporter:
    """Reports the features of all chunks as one task; notes about a chunk become details.

    Args:
        report: Receives everything else.
    """

    def __init__(self, report: Reporter) -> None:
        self.note = report.detail
        self.warn = report.warn
        self.detail = report.detail
        self.advance: Advance = lambda _: None
        """Advances the task of all chunks; set when it starts."""
        self.counted = 0

    def count(self, images: int) -> None:
        """Count images as done."""
        self.counted += images
        self.advance(images)

    def task(self, name: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Count the images of a chunk."""
        del name, total, unit
        return nullcontext(self.count)


def describe_session(state: dict[str, Any]) -> str:
    """Describe what was done, from `GET /api/state`, and what to do next."""
    out, done, estimate = state["out"], state["labelled"], state["estimate"]
    if not done:
        return "No image is labeled yet: repeat the command to go on."
    saved = f"{done:,} label{' is' if done == 1 else 's are'} saved in {out}: repeat the command to go on."
    if state["mode"] == "review":
        data = state["data"] if state["data"] == "DATA" else shlex.quote(state["data"])
        return f"{saved} Next: tlcli finetune {data} --corrections {shlex.quote(out)}"
    more, expected = "", ""
    if state["images"] >= 2 * done and state["source"] != "-":  # the head learns from the others as well
        more = f" --unlabeled {shlex.quote(state['source'])}"
    if estimate is not None:
        low, high = (100 * bound for bound in estimate["interval"])
        expected = f" with an accuracy of about {100 * estimate['accuracy']:.0f} % ({low:.0f} to {high:.0f})"
    return f"{saved} Next: tlcli finetune {shlex.quote(out)}{more}{expected}"
