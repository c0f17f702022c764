"""What a run's network computes. Torch-free. Shapes: B images in a batch, k classes, D features."""

from __future__ import annotations

from typing import NamedTuple

from tlcli.images.batch import Floats


class Outputs(NamedTuple):
    """What a network computes for a batch."""

    logits: Floats
    """[B, k]."""
    features: Floats | None
    """[B, D], before the head; None if the run does not need them."""
