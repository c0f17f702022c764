"""tlcli augment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlcli.cli.app import app, finish
from tlcli.cli.signature import takes
from tlcli.settings import AugmentSettings

if TYPE_CHECKING:
    from tlcli.console.terminal import Terminal


@app.command(epilog="Example: tlcli augment photos --out photos-x4 --copies 3 --augment strong --preview look.png")
@takes(AugmentSettings)
def augment(settings: AugmentSettings, terminal: Terminal) -> None:
    """Write a larger dataset: all original images, and augmented copies of the training images.

    Without augmentation options, --augment light applies: mirror, crop 0.5, color shift 10. Only training images are
    copied; if DATA has no validation split, a fifth of the images is held out first, and similar images stay together.
    """
    from tlcli.commands.augment import augment as run
    from tlcli.console.summaries import augment_summary

    result = run(settings, terminal)
    if terminal.summarizes:
        augment_summary(terminal, result)
    finish(terminal, result, failed=result["failed"])
