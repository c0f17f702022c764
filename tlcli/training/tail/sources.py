"""Where the batches of a tail come from: the cache, or images through the frozen prefix. Both give the same numbers.

Shapes: B images of a batch, H x W pixels, C channels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tlcli.engines.choice import pick_batch_size
from tlcli.engines.runner import map_padded
from tlcli.features.extract import CHANGED
from tlcli.features.frozen import Frozen
from tlcli.features.rounding import round_as_stored
from tlcli.features.store import FeatureStore
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage
from tlcli.progress import Reporter

AHEAD = 2
"""Batches under way beside the one that is trained on."""

ViewOf = Callable[[int], int]
"""The view that an epoch, from 0, shows."""


class CachedSource:
    """Features from a store, mapped from disk: memory holds a few batches.

    Args:
        store: Has every view that will be asked for.
        digests: Of the images, by row.
        view_of: Which view an epoch shows.
    """

    def __init__(self, store: FeatureStore, digests: Sequence[bytes], view_of: ViewOf) -> None:
        self.waited = 0.0
        self._store = store
        self._digests = digests
        self._view_of = view_of

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows int64 [B] and features float32 [B, ...] of each batch, read ahead."""
        view = self._view_of(epoch)
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(1, "cache") as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(self._read, batch, view))
                    if len(waiting) > AHEAD:
                        yield self._next(waiting)
                while waiting:
                    yield self._next(waiting)
            finally:
                for future in waiting:
                    future.cancel()

    def _next(self, waiting: deque[Future[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
        started = time.monotonic()
        batch = waiting.popleft().result()
        self.waited += time.monotonic() - started
        return batch

    def _read(self, batch: Sequence[int], view: int) -> tuple[Tensor, Tensor]:
        features = self._store.gather([self._digests[row] for row in batch], view)
        return torch.tensor(batch, dtype=torch.int64), torch.from_numpy(features)


class StreamedSource:
    """UsableImages, decoded (and augmented) by other processes while the tail trains, through the prefix.

    Args:
        frozen: The prefix; rounds its features as the store would.
        loader: Of the images.
        paths: Of the images, by row.
        digests: Of the images; one that is another by now is left out.
        view_of: Which view an epoch shows.
        lost: Gets the paths that can't be read any more, and why.
        report: Told of them.
    """

    def __init__(
        self,
        frozen: Frozen,
        loader: ImageLoader,
        paths: Sequence[str],
        digests: Sequence[bytes],
        view_of: ViewOf,
        lost: dict[str, str],
        report: Reporter,
    ) -> None:
        self.waited = 0.0
        self._frozen = frozen
        self._loader = loader
        self._paths = paths
        self._digests = digests
        self._view_of = view_of
        self._lost = lost
        self._report = report

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows int64 [B'] and features float32 [B', ...] of each batch; lost images are left out."""
        view = self._view_of(epoch)
        images = self._loader.load_views((self._paths[row], view) for batch in batches for row in batch)
        for batch in batches:
            started = time.monotonic()
            arrived = list(islice(images, len(batch)))
            self.waited += time.monotonic() - started
            good = [(row, image) for row, image in zip(batch, arrived, strict=True) if self._usable(row, image)]
            rows = torch.tensor([row for row, _ in good], dtype=torch.int64)
            # Also where nothing is left: whoever goes on from a step counts batches.
            none = torch.empty(0, *self._frozen.cut.feature_shape)
            yield rows, self._features([image for _, image in good]) if good else none

    def _usable(self, row: int, image: DecodedImage) -> bool:
        if image.pixels is not None and image.digest == self._digests[row]:
            return True
        path = self._paths[row]
        if path not in self._lost:
            self._lost[path] = image.error or CHANGED
            self._report.warn(f"{path} is left out from here: {self._lost[path]}")
        return False

    def _features(self, images: Sequence[DecodedImage]) -> Tensor:
        shape = self._frozen.network.preprocessing.shape
        pixels = stack_images([image.pixels or b"" for image in images], shape)
        runner = self._frozen.runner
        if self._frozen.cut.layer == 0:
            return runner.features(pixels).clone()  # no longer an inference tensor, so that gradients may pass
        if runner.device.type != "cpu":
            return round_as_stored(runner.features(pixels).clone())
        # In the same small single-threaded batches as for the cache: fast, and the same to the last bit.
        size = pick_batch_size(None, runner.device)
        parts = list(map_padded(runner, (pixels[start : start + size] for start in range(0, len(pixels), size)), size))
        return round_as_stored(torch.from_numpy(np.concatenate(parts)))
