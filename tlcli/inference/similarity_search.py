"""The nearest images of queries in a collection of images, by the cosine of their cached features."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tlcli.errors import DataError, first_reasons
from tlcli.features.extractor import FeatureExtractor
from tlcli.features.nearest import QUERIES, NearestImages, Neighbors
from tlcli.features.stored_rows import StoredRows
from tlcli.inference.neighbor_rows import Answer, Neighbor
from tlcli.storage.files import portable_name
from tlcli.storage.urls import absolute


@dataclass(frozen=True, kw_only=True)
class SearchedImages:
    """The images of DATA."""

    source: str
    """DATA as given by the user, for messages."""
    paths: Sequence[str]
    labels: Sequence[str] | None
    """The label of each image; None if they have none."""
    unlisted: Sequence[str] = ()
    """Folders that could not be listed, each with the reason."""


class SimilaritySearch:
    """Finds the images of DATA whose features are nearest to a query's.

    Args:
        images: The images of DATA.
        extractor: Computes features, and keeps them in its plain store.
        verify: Read every file again, even if it is unchanged.

    Raises:
        DataError: No image of DATA can be read.
    """

    def __init__(self, images: SearchedImages, extractor: FeatureExtractor, *, verify: bool) -> None:
        self._images, self._extractor, self._verify = images, extractor, verify
        report = extractor.network.report
        extraction = extractor.extract(images.paths, verify=verify)
        self.usable = [index for index in range(len(images.paths)) if index not in extraction.failures]
        """Images that can be read, in order: their position here is their number below."""
        self.unusable = [
            (portable_name(images.paths[index]), reason) for index, reason in sorted(extraction.failures.items())
        ]
        """Path and reason of each image that cannot be read."""
        if self.unusable:
            count = "none" if not self.usable else f"only {len(self.usable):,}"
            problem = f"{count} of {len(images.paths):,} images of {images.source} can be read"
            if not self.usable:
                raise DataError(f"{problem}: {first_reasons(self.unusable)}", path=images.source)
            report.warn(f"{problem}: {first_reasons(self.unusable)}")
        digests = [extraction.digests[index] or b"" for index in self.usable]
        self._by_digest: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, digest in enumerate(digests):
            self._by_digest[digest].append(number)
        store = extractor.plain
        with report.task("Index", len(digests)) as advance:
            self._index = NearestImages(
                StoredRows(extractor, digests, 0).gather,
                len(digests),
                release=store.release,
                folder=store.directory,
                advance=advance,
            )

    def answers(self, queries: Sequence[str], top: int) -> Iterator[Answer]:
        """Yield the answer to each query, in order.

        Args:
            queries: Paths of images.
            top: Number of neighbors of each query.
        """
        extraction = self._extractor.extract(queries, verify=self._verify)
        with self._extractor.network.report.task("Search", len(queries), "queries") as advance:
            for start in range(0, len(queries), QUERIES):
                chunk = range(start, min(start + QUERIES, len(queries)))
                readable = {
                    index: extraction.digests[index] or b"" for index in chunk if index not in extraction.failures
                }
                found = self._nearest(queries, readable, top)
                for index in chunk:
                    yield Answer(
                        path=queries[index], neighbors=found.get(index, ()), error=extraction.failures.get(index)
                    )
                advance(len(chunk))

    def _nearest(
        self, queries: Sequence[str], digests: Mapping[int, bytes], top: int
    ) -> dict[int, tuple[Neighbor, ...]]:
        """Return the neighbors of the queries with these digests. A query is not its own neighbor."""
        itself = {
            index: {
                number
                for number in self._by_digest.get(digest, ())
                if _is_same_file(queries[index], self._path(number))
            }
            for index, digest in digests.items()
        }
        most = top + max(map(len, itself.values()), default=0)
        found = self._index.search(self._extractor.plain.gather(digests.values()), most)
        return {
            index: self._neighbors(neighbors, itself[index], top)
            for index, neighbors in zip(digests, found, strict=True)
        }

    def _neighbors(self, found: Neighbors, itself: Container[int], top: int) -> tuple[Neighbor, ...]:
        labels = self._images.labels
        pairs = zip(found.images.tolist(), found.cosines.clip(-1, 1).tolist(), strict=True)
        others = [(number, cosine) for number, cosine in pairs if number not in itself]
        return tuple(
            Neighbor(
                path=self._path(number),
                similarity=cosine,
                label=None if labels is None else labels[self.usable[number]],
            )
            for number, cosine in others[:top]
        )

    def _path(self, number: int) -> str:
        return self._images.paths[self.usable[number]]


def _is_same_file(one: str, other: str) -> bool:
    """Return whether two paths lead to the same file, by whatever links."""
    if absolute(one) == absolute(other):
        return True
    try:
        return os.path.samefile(one, other)  # noqa: PTH121 - names may be any bytes
    except (OSError, ValueError):  # at a URL, in a tar, or gone
        return False
