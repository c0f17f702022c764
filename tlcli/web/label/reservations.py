"""Which browser tab was shown which images, so that two tabs or annotators do not get the same ones. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Iterable

SECONDS = 600.0
"""How long images that a tab was shown are not shown in others."""


class Reservations:
    """Images that tabs were shown and that have not been answered. Not thread-safe."""

    def __init__(self) -> None:
        self._until: dict[int, tuple[str, float]] = {}

    def reserve(self, tab: str, images: Iterable[int]) -> None:
        """Reserve images for a tab."""
        until = time.monotonic() + SECONDS
        self._until.update((image, (tab, until)) for image in images)

    def release(self, images: Iterable[int]) -> None:
        """Forget images that were answered."""
        for image in images:
            self._until.pop(image, None)

    def of_others(self, tab: str) -> set[int]:
        """Return the images that other tabs were shown."""
        now = time.monotonic()
        return {image for image, (owner, until) in self._until.items() if owner != tab and until > now}

    def of(self, tab: str) -> set[int]:
        """Return the images that a tab was shown."""
        return {image for image, (owner, _) in self._until.items() if owner == tab}
