"""Run images through a frozen prefix into a store: each file is read once, and only missing features are computed."""

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
from tlcli.images.batch import Pixels, stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage
from tlcli.progress import Advance, Reporter

Key = tuple[bytes, int]
"""Digest and view of a feature."""
CHANGED = "changed since the run began"
RunPrefix = Callable[[Iterable[Pixels]], Iterable[npt.NDArray[np.float32]]]
"""Batches uint8 [B, H, W, C] to features float32 [B, *feature_shape], in order."""


@dataclass(kw_only=True)
class Extraction:
    """The result for each image, by its index in the list of paths."""

    digests: list[bytes | None]
    """SHA-256 of each file; None if it could not be read."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why an image has no feature."""
    computed: int = 0
    reused: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class MissingFeatures:
    """Features that a store lacks, and the extraction that computing them completes."""

    name: str
    """Title of the progress bar: `Features` or `Views`."""
    store: FeatureStore
    paths: Sequence[str]
    """All images."""
    todo: Sequence[tuple[int, int]]
    """Index in `paths` and view of each missing feature."""
    extraction: Extraction


def find_missing(paths: Sequence[str], store: FeatureStore, memo: Memo, *, verify: bool) -> MissingFeatures:
    """Look up the plain features (view 0) of images without reading a file.

    Args:
        paths: The images to look up.
        store: Where their features are kept.
        memo: Holds the digests of unchanged files.
        verify: Ignore the memo, so that every file is read again.
    """
    digests = [None if verify else memo.digest(path) for path in paths]
    todo = [(index, 0) for index, digest in enumerate(digests) if digest is None or (digest, 0) not in store]
    extraction = Extraction(digests=digests, reused=len(paths) - len(todo))
    return MissingFeatures(name="Features", store=store, paths=paths, todo=todo, extraction=extraction)


def extract(
    missing: MissingFeatures,
    *,
    open_prefix: Callable[[], RunPrefix],
    loader: ImageLoader,
    image_shape: tuple[int, int, int],
    batch_size: int,
    memo: Memo,
    report: Reporter,
) -> None:
    """Compute missing features into their store, and complete their extraction.

    If interrupted at any moment, what was flushed to disk stays and is reused next time.

    Args:
        missing: The features to compute, their store, and the extraction to complete.
        open_prefix: Called while the first images are being decoded, since an export may take seconds.
        loader: Decodes the images.
        image_shape: H, W, C of decoded pixels.
        batch_size: Images in one forward pass.
        memo: Remembers the digests of the files read.
        report: Receives progress.
    """
    store, extraction, todo = missing.store, missing.extraction, missing.todo
    waiting: deque[list[Key]] = deque()
    with contextlib.ExitStack() as writing, report.task(missing.name, len(todo)) as advance:

        def batches() -> Iterator[Pixels]:
            """Yield the pixels of images that need computing, and append their keys to `waiting`."""
            needed = _images_to_compute(images, missing, memo, advance, lock)
            while batch := list(islice(needed, batch_size)):
                waiting.append([key for key, _ in batch])
                yield stack_images([image for _, image in batch], image_shape)

        def lock(key: Key) -> bool:
            """Lock the store before the first image is computed. Return whether `key` is still missing."""
            if not store.locked:
                writing.enter_context(store.writing())
            return key not in store

        images = loader.load_views((missing.paths[index], view) for index, view in todo)
        run_prefix = open_prefix()
        try:
            for features in run_prefix(batches()):
                if not np.isfinite(features).all():
                    raise ArtifactError(
                        "the frozen layers produce NaN or infinite features. The weights are broken, or their range "
                        "is too large for this precision: try --precision fp32."
                    )
                for (digest, view), feature in zip(waiting.popleft(), features, strict=True):
                    store.add(digest, view, feature)
                extraction.computed += len(features)
                advance(len(features))
        finally:
            memo.save()


def _images_to_compute(
    images: Iterable[DecodedImage],
    missing: MissingFeatures,
    memo: Memo,
    advance: Advance,
    lock: Callable[[Key], bool],
) -> Iterator[tuple[Key, bytes]]:
    """Yield key and pixels of each image that must be computed; record the others in the extraction."""
    extraction = missing.extraction
    seen: set[Key] = set()
    for (index, view), image in zip(missing.todo, images, strict=True):
        memo.remember(missing.paths[index], image)
        if not view:
            extraction.digests[index] = image.digest
        key = (image.digest or b"", view)
        if image.error is not None:
            extraction.failures[index] = image.error
        elif view and image.digest != extraction.digests[index]:
            extraction.failures[index] = CHANGED
        elif image.pixels is not None and key not in seen and lock(key):
            seen.add(key)
            yield key, image.pixels
            continue
        else:
            extraction.reused += 1
        advance(1)
