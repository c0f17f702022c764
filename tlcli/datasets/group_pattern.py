"""Suggest a `--group-by` for near duplicates whose names share a pattern, such as the images of a burst."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tlcli.datasets.dataset import Dataset

ENDINGS = (
    r"([^/]+)[-_ .][^-_ ./]+\.[^./]+$",  # tile12_exp3.png, burst-7-001.jpg
    r"([^/]+)[-_ .][^-_ ./]+[-_ .][^-_ ./]+\.[^./]+$",  # tile12_exp_3.png
    r"([^-_ ./]+)[^/]*$",  # tile12_night_exp3.png, tile12.png
    r"([^/]*\d)[A-Za-z]+\.[^./]+$",  # 0012a.jpg, 0012b.jpg
    r"([^/]*[A-Za-z])\d+\.[^./]+$",  # walk1.jpg, walk2.jpg
    r"([^/]+?) ?(?:\(\d+\))?\.[^./]+$",  # car.jpg, car (2).jpg
    r"([^/]+)/[^/]+$",  # burst12/001.jpg
)
"""Patterns for the part of a path that images of one group share, tried in this order."""
MIN_GROUPS = 3
"""Fewer groups may share a pattern by chance."""
MIN_JOINED = 0.9
"""Share of the near duplicates that the pattern must join."""
MIN_SIMILAR = 0.5
"""Share of the images that the pattern joins with others that must be near duplicates. Images of a burst may differ."""
MOST_WORDS = 12


def suggest_group_by(dataset: Dataset, groups: Sequence[Sequence[int]]) -> str | None:
    """Return the regular expression for `--group-by` that reproduces the groups of near duplicates best.

    Args:
        dataset: Its images, and DATA, below which the pattern is searched.
        groups: Groups of images that belong together, as positions in `dataset.samples`.

    Returns:
        None if the images have groups already, or no pattern joins nearly all near duplicates and few other images.
    """
    if any(sample.group is not None for sample in dataset.samples):
        return None
    root = os.path.dirname(dataset.root) if os.path.isfile(dataset.root) else dataset.root  # noqa: PTH113, PTH120
    paths = [os.path.relpath(sample.path, root) for sample in dataset.samples]
    if len(groups) < MIN_GROUPS:
        return None
    rated = [(_rating(pattern, paths, groups), pattern) for pattern in _candidates(paths, groups)]
    best = max(rating for rating, _ in rated)
    return next(pattern for rating, pattern in rated if rating == best) if best else None


def _candidates(paths: Sequence[str], groups: Sequence[Sequence[int]]) -> Iterator[str]:
    words: set[str] = set()
    for group in groups:
        stems = [os.path.splitext(os.path.basename(paths[index]))[0] for index in group]  # noqa: PTH119, PTH122
        shared = len(os.path.commonprefix(stems))  # noqa: RUF071 - of characters
        words |= {word for stem in stems if (word := stem[shared:].strip("-_ .")).isalpha()}  # counters fit any name
    named = sorted(words, key=lambda word: (-len(word), word))
    marked = (
        [rf"([^/]+?)[-_ .]?(?:{'|'.join(map(re.escape, named))})?\.[^./]+$"] if 0 < len(named) <= MOST_WORDS else []
    )
    for pattern in (*ENDINGS, *marked):
        yield pattern
        yield pattern.replace("(", "((?:.*/)?", 1)  # the same name in two folders is two groups


def _rating(pattern: str, paths: Sequence[str], groups: Sequence[Sequence[int]]) -> float:
    """Return how well a pattern reproduces the groups: the product of both shares, or 0 if one is too small."""
    matches = [re.search(pattern, path) for path in paths]
    keys = [match[1] if match else path for match, path in zip(matches, paths, strict=True)]
    counts = Counter(keys)
    joined, covered, owners = 0, 0, Counter[str]()
    for group in groups:
        key, most = Counter(keys[index] for index in group).most_common(1)[0]
        if most > 1:
            joined += most
            owners[key] += 1
            covered += most if owners[key] == 1 else 0  # a key that joins two groups joins too much
    together = sum(count for count in counts.values() if count > 1)
    if not together:
        return 0.0
    share, similar = joined / sum(map(len, groups)), covered / together
    return share * similar if share >= MIN_JOINED and similar >= MIN_SIMILAR else 0.0
