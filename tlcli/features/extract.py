"""Images through a frozen prefix into the store: each is read once, and only what is missing is computed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from tlcli.errors import ArtifactError
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import DecodedImage
from tlcli.progress import Advance, Reporter

Pixels = npt.NDArray[np.uint8]
CHANGED = "changed since the run began"
RunPrefix = Callable[[Iterable[Pixels]], Iterable[npt.NDArray[np.float32]]]
"""Batches uint8 [B, H, W, C] to features float32 [B, *feature_shape], in order."""


@dataclass(kw_only=True)
class Extraction:
    """What became of each image, by its index in the list that was asked for."""

    digests: list[bytes | None]
    """None where the file could not be read."""
    failures: dict[int, str] = field(default_factory=dict)
    """Reason for each image that has no feature."""
    computed: int = 0
    reused: int = 0


def missing(
    paths: Sequence[str], store: FeatureStore, memo: Memo, *, verify: bool
) -> tuple[Extraction, list[tuple[int, int]]]:
    """Look up what is known without reading any image: the extraction so far, and what is still to do (view 0)."""
    digests = [None if verify else memo.digest(path) for path in paths]
    todo = [(index, 0) for index, digest in enumerate(digests) if digest is None or (digest, 0) not in store]
    return Extraction(digests=digests, reused=len(paths) - len(todo)), todo


def extract(
    paths: Sequence[str],
    todo: Sequence[tuple[int, int]],
    extraction: Extraction,
    *,
    prefix: Callable[[], RunPrefix],
    loader: ImageLoader,
    preprocessing: Preprocessing,
    store: FeatureStore,
    memo: Memo,
    batch_size: int,
    report: Reporter,
    name: str = "Features",
) -> None:
    """Compute the features of the images and views `todo` into `store`, and complete `extraction`.

    `prefix` is asked for when the first images are being decoded already, since making it ready may take seconds.
    Interrupted at any moment, what was flushed to disk stays and is reused next time.
    """
    waiting: deque[list[tuple[bytes, int]]] = deque()
    with contextlib.ExitStack() as writing, report.task(name, len(todo)) as advance:

        def batches() -> Iterator[Pixels]:
            """Pixels of the images that need computing; their digests and views go to `waiting`."""
            needed = _needed(zip(todo, images, strict=True), paths, extraction, memo, advance, begin)
            while batch := list(islice(needed, batch_size)):
                waiting.append([key for key, _ in batch])
                yield stack_images([image for _, image in batch], preprocessing.shape)

        def begin(key: tuple[bytes, int]) -> bool:
            """Take the writer's lock before the first image is computed; whether this one still is to be."""
            if not store.locked:
                writing.enter_context(store.writing())
            return key not in store

        images = loader.load_views((paths[index], view) for index, view in todo)
        run_prefix = prefix()
        try:
            for features in run_prefix(batches()):
                if not np.isfinite(features).all():
                    raise ArtifactError(
                        "the frozen network gives features that are not finite. Its weights are broken, or too large "
                        "for this arithmetic: try --precision fp32."
                    )
                for (digest, view), feature in zip(waiting.popleft(), features, strict=True):
                    store.add(digest, view, feature)
                extraction.computed += len(features)
                advance(len(features))
        finally:
            memo.save()


def _needed(
    images: Iterable[tuple[tuple[int, int], DecodedImage]],
    paths: Sequence[str],
    extraction: Extraction,
    memo: Memo,
    advance: Advance,
    begin: Callable[[tuple[bytes, int]], bool],
) -> Iterator[tuple[tuple[bytes, int], bytes]]:
    """Key and pixels of each image that must be computed; the others are entered into `extraction`."""
    seen: set[tuple[bytes, int]] = set()
    for (index, view), image in images:
        memo.remember(paths[index], image)
        if not view:
            extraction.digests[index] = image.digest
        key = (image.digest or b"", view)
        if image.error is not None:
            extraction.failures[index] = image.error
        elif view and image.digest != extraction.digests[index]:
            extraction.failures[index] = CHANGED
        elif image.pixels is not None and key not in seen and begin(key):
            seen.add(key)
            yield key, image.pixels
            continue
        else:
            extraction.reused += 1
        advance(1)
