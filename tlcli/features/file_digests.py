"""The digests of files, which are read if the memo does not know them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tlcli.datasets.corrections import Corrections
from tlcli.datasets.tables.correction_table import read_corrections
from tlcli.features.memo import Memo
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.progress import Reporter
from tlcli.settings import CacheSettings
from tlcli.storage.urls import Location


class DigestReader:
    """Returns the digests of files. Unchanged files that the memo knows are not read again.

    Args:
        cache: Where the memo is; None keeps it in memory only.
        workers: Number of decoder processes.
        report: Receives progress, and warnings about the memo.
    """

    def __init__(self, cache: CacheSettings | None, *, workers: int, report: Reporter) -> None:
        self._cache = cache
        self._workers = workers
        self._report = report

    @cached_property
    def _memo(self) -> Memo:
        cache = self._cache
        root = cache.root() if cache is not None and cache.enabled and not cache.verify else None
        return Memo(root, self._report)

    def read(self, paths: Sequence[str], task: str = "Digests") -> list[bytes | None]:
        """Return the SHA-256 of each file; None if it cannot be read.

        Args:
            paths: Files, images in tars, and URLs.
            task: Title of the progress bar.
        """
        digests = [self._memo.digest(path) for path in paths]
        unknown = [index for index, digest in enumerate(digests) if digest is None]
        if not unknown:
            return digests
        workers = min(self._workers, len(unknown))
        with (
            ImageLoader(DecodeOptions(), workers=workers) as loader,
            self._report.task(task, len(unknown)) as advance,
        ):
            images = loader.load(paths[index] for index in unknown)
            for index, image in zip(unknown, images, strict=True):
                digests[index] = image.digest
                self._memo.remember(paths[index], image)
                advance(1)
        self._memo.save()
        return digests

    def corrections(self, file: Location | None) -> Corrections | None:
        """Return the table of `--corrections`, to be applied by these digests; None if there is none.

        Raises:
            DataError: See `read_corrections`.
        """
        return None if file is None else Corrections(table=read_corrections(file), read_digests=self.read)
