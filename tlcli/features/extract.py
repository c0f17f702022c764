"""Pictures through a frozen prefix into the store: each is read once, and only what is missing is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.images.loader import PictureLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import Order
from tlcli.progress import Reporter

Pixels = npt.NDArray[np.uint8]
RunPrefix = Callable[[Pixels], npt.NDArray[np.float32]]
"""uint8 [B, H, W, C] to features float32 [B, *feature_shape]."""


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
    order = Order(preprocessing=preprocessing, known=store.digests())
    shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
    batch: list[tuple[bytes, bytes]] = []
    seen: set[bytes] = set()

    def run() -> None:
        pixels = np.stack([np.frombuffer(picture, np.uint8).reshape(shape) for _, picture in batch])
        for (digest, _), feature in zip(batch, run_prefix(pixels), strict=True):
            store.add(digest, 0, feature)
        extraction.computed += len(batch)
        batch.clear()

    with (
        store.writing(),
        PictureLoader(order, workers=workers) as loader,
        report.task("Features", len(todo)) as advance,
    ):
        try:
            for index, picture in zip(todo, loader.load(paths[index] for index in todo), strict=True):
                extraction.digests[index] = picture.digest
                memo.remember(paths[index], picture)
                if picture.error is not None:
                    extraction.failures[index] = picture.error
                elif picture.pixels is None or picture.digest in seen:
                    extraction.reused += 1
                elif picture.digest is not None:
                    seen.add(picture.digest)
                    batch.append((picture.digest, picture.pixels))
                    if len(batch) == batch_size:
                        run()
                advance(1)
            if batch:
                run()
        finally:
            memo.save()
