"""Sources of a tail's batches: the feature cache, or images streamed through the frozen prefix.

Both give the same numbers.

Shapes: B images in a batch, H x W pixels, C channels.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tlcli.engines.choice import pick_batch_size
from tlcli.engines.runner import map_padded
from tlcli.features.extraction import CHANGED
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.rounding import round_as_stored
from tlcli.features.store import FeatureStore
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage
from tlcli.training.tail.batches import Source
from tlcli.training.usable_images import UsableImages, require_unchanged

AHEAD = 2
"""Batches read ahead of the one being trained on."""
STREAMED_AHEAD = 3
"""Batches of decoded images that may wait."""

ViewOf = Callable[[int], int]
"""Maps an epoch, from 0, to the view that it shows."""


class CachedSource:
    """Features from a store, mapped from disk: only a few batches are in memory.

    Args:
        store: Contains every view that will be requested.
        digests: Digests of the images, by row.
        view_of: The view that an epoch shows.
    """

    def __init__(self, store: FeatureStore, digests: Sequence[bytes], view_of: ViewOf) -> None:
        self.waited = 0.0
        self._store = store
        self._digests = digests
        self._view_of = view_of

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows int64 [B] and features float32 [B, ...] of each batch, reading ahead."""
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
    """Images, decoded (and augmented) by worker processes while the tail trains, through the prefix.

    Args:
        extractor: Runs the prefix; features are rounded as its store would round them.
        loader: Decodes the images.
        images: Collects the images that can no longer be read. An image whose file changed is left out.
        rows: The images, by position in a batch's numbers.
        view_of: The view that an epoch shows.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        loader: ImageLoader,
        images: UsableImages,
        rows: Sequence[int],
        view_of: ViewOf,
    ) -> None:
        self.waited = 0.0
        self._extractor = extractor
        self._runner = extractor.runner  # opened here: in inference mode, it would turn weights into inference tensors
        self._loader = loader
        self._paths, self._digests = images.paths(rows), images.digests(rows)
        self._lost = images.lost
        self._view_of = view_of

    def load(self, batches: Sequence[Sequence[int]], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows int64 [B'] and features float32 [B', ...] of each batch, without lost images."""
        view = self._view_of(epoch)
        images = self._loader.load_views((self._paths[row], view) for batch in batches for row in batch)
        for batch in batches:
            started = time.monotonic()
            arrived = list(islice(images, len(batch)))
            self.waited += time.monotonic() - started
            good = [(row, image) for row, image in zip(batch, arrived, strict=True) if self._usable(row, image)]
            rows = torch.tensor([row for row, _ in good], dtype=torch.int64)
            # An empty batch is yielded too: a resumed training counts batches.
            empty = torch.empty(0, *self._extractor.cut.feature_shape)
            yield rows, self._features([image for _, image in good]) if good else empty

    def _usable(self, row: int, image: DecodedImage) -> bool:
        if image.pixels is not None and image.digest == self._digests[row]:
            return True
        path = self._paths[row]
        if path not in self._lost:
            self._lost[path] = image.error or CHANGED
            self._extractor.network.report.warn(f"{path} is left out from now on: {self._lost[path]}")
        return False

    def _features(self, images: Sequence[DecodedImage]) -> Tensor:
        shape = self._extractor.network.preprocessing.shape
        pixels = stack_images([image.pixels or b"" for image in images], shape)
        runner = self._runner
        if self._extractor.cut.layer == 0:
            return runner.features(pixels).clone()  # no longer an inference tensor, so gradients can pass
        if runner.device.type != "cpu":
            return round_as_stored(runner.features(pixels).clone())
        # In the same small single-threaded batches as for the cache: fast, and the same to the last bit.
        size = pick_batch_size(None, runner.device)
        parts = list(map_padded(runner, (pixels[start : start + size] for start in range(0, len(pixels), size)), size))
        return round_as_stored(torch.from_numpy(np.concatenate(parts)))


@dataclass(frozen=True, kw_only=True)
class TailData:
    """The images of a run, and how their features reach the tail of a cut network."""

    extractor: FeatureExtractor
    images: UsableImages
    batch_size: int
    """Images in a training step."""
    views: int | None
    """Augmented views to cache; None streams a new view in every epoch."""

    @contextlib.contextmanager
    def open(self, rows: Sequence[int], *, augmented: bool = False) -> Iterator[Source]:
        """Open the batches of some images: from the cache if possible, which is filled first, else streamed.

        Args:
            rows: Rows of the images.
            augmented: Show augmented views, if there is an augmentation.
        """
        extractor, cacheable = self.extractor, self.extractor.cacheable
        augmented = augmented and extractor.augmented is not None
        views = self.views if cacheable else None

        def view_of(epoch: int) -> int:
            return 0 if not augmented else 1 + (epoch if views is None else epoch % views)

        if not cacheable or (augmented and views is None):
            options = extractor.decode_options(augmented=augmented)
            ahead = STREAMED_AHEAD * self.batch_size
            with ImageLoader(options, workers=extractor.workers, ahead=ahead) as loader:
                if augmented:
                    loader.start()  # workers import torch, which no epoch should wait for
                yield StreamedSource(extractor, loader, self.images, rows, view_of)
            return
        store = extractor.augmented if augmented and extractor.augmented is not None else extractor.plain
        self.cache(rows, range(1, views + 1) if augmented and views else [0])
        yield CachedSource(store, self.images.digests(rows), view_of)

    def cache(self, rows: Sequence[int], views: Sequence[int]) -> None:
        """Compute the features of some images' views that the cache lacks.

        Args:
            rows: Rows of the images.
            views: `[0]`, or views above 0.

        Raises:
            DataError: an image whose feature is missing changed or vanished.
        """
        digests = self.images.digests(rows)
        require_unchanged(self.extractor.extract_views(self.images.paths(rows), digests, views), digests)
