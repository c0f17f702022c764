"""The feature cache of one command: where it is, the digests it remembers, and the stores that are open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlcli.features.fingerprint import fingerprint
from tlcli.features.listing import check_space, nearest_cache
from tlcli.features.memo import Memo
from tlcli.features.store import FeatureStore
from tlcli.progress import Reporter
from tlcli.storage.files import megabytes

DEPTH = {"cut.layer", "cut.name", "augmentation", "seed"}
"""Ingredients in which the caches of one run differ. The weights before the cut differ along with the cut."""


class FeatureCache:
    """Looks up and opens feature stores.

    Args:
        root: The cache directory; None keeps features in memory and forgets them.
        report: Receives details about a store's ingredients, and how the nearest existing cache differs.
        shared_writers: Whether other processes write the same stores at the same time.
    """

    def __init__(self, root: Path | None, report: Reporter, *, shared_writers: bool = False) -> None:
        self.root = root
        self.memo = Memo(root, report)
        self.stores: dict[str, FeatureStore] = {}
        """Open stores by fingerprint. Each verifies its checksums once."""
        self._report = report
        self._shared_writers = shared_writers

    @property
    def on_disk(self) -> bool:
        """Whether features are kept on disk."""
        return self.root is not None

    def open(self, ingredients: dict[str, Any], shape: tuple[int, ...], *, cached: bool) -> FeatureStore:
        """Open the store of the features that depend on `ingredients`.

        Args:
            ingredients: Everything the features depend on, from `fingerprint.ingredients`.
            shape: Shape of one feature.
            cached: Whether to keep them on disk if this cache is on disk.

        Raises:
            ArtifactError: the cache holds something else under this fingerprint.
        """
        name = fingerprint(ingredients)
        if name in self.stores:
            return self.stores[name]
        for key, value in ingredients.items():
            self._report.detail(f"  ingredient {key}: {value}")
        root = self.root if cached else None
        store = FeatureStore(root, ingredients, shape, self._report, shared_writers=self._shared_writers)
        self.stores[name] = store
        if root is not None and not len(store):
            self._explain_miss(root, ingredients)
        return store

    def _explain_miss(self, root: Path, ingredients: dict[str, Any]) -> None:
        """Name the ingredients in which the nearest existing cache differs."""
        nearest = nearest_cache(root, ingredients)
        if nearest is None:
            return
        listing, names = nearest
        # Another depth is expected; other weights or another size may be a mistake.
        expected = bool(DEPTH & set(names)) and set(names) <= DEPTH | {"weights"}
        show = self._report.detail if expected else self._report.note
        show(
            f"New cache: the nearest existing one ({listing.directory.name[:8]}, {listing.images:,} images) differs "
            f"in {', '.join(names)}"
        )

    def announce(self, store: FeatureStore, images: int, report: Reporter) -> None:
        """Report how much will be written to `store` for `images` images, and raise if the disk lacks the space.

        Raises:
            MachineError: the disk has too little free space.
        """
        if self.root is None:
            return
        needed = images * store.row_bytes()
        shape = " x ".join(str(size) for size in store.shape)
        report.note(
            f"Up to {images:,} images to compute: {shape} {store.dtype} each, at most {megabytes(needed)} in "
            f"{store.directory}"
        )
        check_space(self.root, needed)
