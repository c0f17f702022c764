"""Pictures through a frozen prefix into the store: each is read once, and only what is missing is computed."""

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
from tlcli.images.loader import PictureLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import Order, Picture
from tlcli.progress import Advance, Reporter

Pixels = npt.NDArray[np.uint8]
RunPrefix = Callable[[Iterable[Pixels]], Iterable[npt.NDArray[np.float32]]]
"""Batches uint8 [B, H, W, C] to features float32 [B, *feature_shape], in order."""


@dataclass(kw_only=True)
class Extraction:
    """What became of each picture, by its index in the list that was asked for."""

    digests: list[bytes | None]
    """None where the file could not be read."""
    failures: dict[int, str] = field(default_factory=dict)
    """Reason for each picture that has no feature."""
    computed: int = 0
    reused: int = 0


def missing(paths: Sequence[str], store: FeatureStore, memo: Memo, *, verify: bool) -> tuple[Extraction, list[int]]:
    """Look up what is known without reading any picture: the extraction so far, and the indices still to do."""
    digests = [None if verify else memo.digest(path) for path in paths]
    todo = [index for index, digest in enumerate(digests) if digest is None or (digest, 0) not in store]
    return Extraction(digests=digests, reused=len(paths) - len(todo)), todo


def extract(
    paths: Sequence[str],
    todo: Sequence[int],
    extraction: Extraction,
    *,
    run_prefix: RunPrefix,
    preprocessing: Preprocessing,
    store: FeatureStore,
    memo: Memo,
    batch_size: int,
    workers: int,
    report: Reporter,
) -> None:
    """Compute the features of the pictures `todo` into `store`, and complete `extraction`.

    Interrupted at any moment, what was flushed to disk stays and is reused next time.
    """
    waiting: deque[list[bytes]] = deque()
    order = Order(preprocessing=preprocessing, known=store.digests())
    with (
        contextlib.ExitStack() as writing,
        PictureLoader(order, workers=workers) as loader,
        report.task("Features", len(todo)) as advance,
    ):

        def batches() -> Iterator[Pixels]:
            """Pixels of the pictures that need computing; their digests go to `waiting`."""
            pictures = zip(todo, loader.load(paths[index] for index in todo), strict=True)
            needed = _needed(pictures, paths, extraction, memo, advance, begin)
            while batch := list(islice(needed, batch_size)):
                waiting.append([digest for digest, _ in batch])
                # A bytearray, since torch wants memory that it could write to.
                pixels = np.frombuffer(bytearray().join(picture for _, picture in batch), np.uint8)
                yield pixels.reshape(-1, preprocessing.height, preprocessing.width, preprocessing.channels)

        def begin(digest: bytes) -> bool:
            """Take the writer's lock before the first picture is computed; whether this one still is to be."""
            if not store.locked:
                writing.enter_context(store.writing())
            return (digest, 0) not in store

        try:
            for features in run_prefix(batches()):
                if not np.isfinite(features).all():
                    raise ArtifactError(
                        "the frozen network gives features that are not finite. Its weights are broken, or too large "
                        "for this arithmetic: try --precision fp32."
                    )
                for digest, feature in zip(waiting.popleft(), features, strict=True):
                    store.add(digest, 0, feature)
                extraction.computed += len(features)
                advance(len(features))
        finally:
            memo.save()


def _needed(
    pictures: Iterable[tuple[int, Picture]],
    paths: Sequence[str],
    extraction: Extraction,
    memo: Memo,
    advance: Advance,
    begin: Callable[[bytes], bool],
) -> Iterator[tuple[bytes, bytes]]:
    """Digest and pixels of each picture that must be computed; the others are entered into `extraction`."""
    seen: set[bytes] = set()
    for index, picture in pictures:
        extraction.digests[index] = picture.digest
        memo.remember(paths[index], picture)
        if picture.error is not None:
            extraction.failures[index] = picture.error
        elif (
            picture.digest is not None
            and picture.pixels is not None
            and picture.digest not in seen
            and begin(picture.digest)
        ):
            seen.add(picture.digest)
            yield picture.digest, picture.pixels
            continue
        else:
            extraction.reused += 1
        advance(1)
