"""tlcli finetune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.processes import launched
from tlcli.settings import FinetuneSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli finetune photos --balance --out runs/photos")
@takes(FinetuneSettings)
def finetune(settings: FinetuneSettings, terminal: Terminal) -> None:
    """Train a classifier: freeze a pretrained backbone, replace its head, and fit it to your images.

    Features of the frozen layers are computed once and cached, so the next run on the same images takes seconds. With
    few images, freeze all layers (the default); with more, try --freeze auto.
    """
    from tlcli.commands.finetune import finetune as run
    from tlcli.console.summaries import finetune_summary

    info = run(settings, terminal)
    if launched().rank:
        return
    if terminal.summarizes:
        finetune_summary(terminal, info)
    # A run that was already finished reported its failures then. torchrun restarts after any exit code but 0.
    reported = info.get("was_finished") or launched().size > 1
    finish(terminal, info, failed=0 if reported else info["images"]["failed"])
