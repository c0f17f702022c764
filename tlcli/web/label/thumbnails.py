"""Images for the page: decoded and re-encoded by processes that can be killed, so no browser sees an original file."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

from tlcli.images.intensity import IntensityRange
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions

SIDES = (128, 256, 512, 1024, 2048)
"""Longer sides that are made, in pixels; requests get the next larger one."""
KEPT_BYTES = 2**26
"""Bytes of encoded images kept in memory."""
TIME_LIMIT = 20.0
"""Seconds to decode one image."""


class Thumbnails:
    """Makes JPEG files of images. Thread-safe. Use it as a context manager.

    Args:
        intensity: Levels that become black and white in gray images of more than 8 bits.
        workers: Number of decoder processes for each side.
    """

    def __init__(self, intensity: IntensityRange | None, workers: int) -> None:
        self._intensity = intensity
        self._workers = workers
        self._lock = threading.Lock()
        self._loaders: dict[int, ImageLoader] = {}
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._size = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def make(self, path: str, side: int) -> tuple[bytes | None, str]:
        """Return an image as a JPEG file whose longer side has about `side` pixels, and why there is none if so."""
        side = next((known for known in SIDES if known >= side), SIDES[-1])
        with self._lock:
            kept = self._kept.get((path, side))
            if kept is not None:
                self._kept.move_to_end((path, side))
                return kept, ""
            loader = self._loader(side)
        image = next(loader.load([path]))
        if image.pixels is None:
            return None, image.error or "cannot be read"
        self._keep((path, side), image.pixels)
        return image.pixels, ""

    def _loader(self, side: int) -> ImageLoader:
        if side not in self._loaders:
            options = DecodeOptions(thumbnail=side, intensity=self._intensity)
            workers = self._workers if side <= SIDES[1] else 1
            self._loaders[side] = self._stack.enter_context(
                ImageLoader(options, workers=workers, time_limit=TIME_LIMIT)
            )
        return self._loaders[side]

    def _keep(self, key: tuple[str, int], content: bytes) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._size += len(content)
            while self._size > KEPT_BYTES:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped)
