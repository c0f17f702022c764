"""Splits and folds, decided by a hash of each image or group, so they do not depend on the order of the images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.errors import DataError, first_reasons
from tlcli.storage.files import portable_name

SMALL_CLASS = 10
"""No images are held out of classes with fewer images than this."""

FOLDS = ((500, 20), (1500, 10))
"""Largest numbers of images, and the largest numbers of folds for them."""
FEWEST_FOLDS = 5
"""Number of folds for more images."""
FEW_IMAGES, HELD_OUT_FOLDS = 500, 30
"""Up to so many images, each fold has an image or more of each class, unless groups have several classes, and images
are divided anew until about so many folds were held out. Leaving one out would put its class at a disadvantage: only
that class would lose an image."""

DEFAULT_VALIDATION_FRACTION = 0.2
"""Fraction of the training images to hold out if some must be held out and the user did not choose a fraction."""


def uniform_hash(seed: int, key: str) -> float:
    """Return a number in [0, 1) that depends only on the seed and the key."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def group_keys(samples: Sequence[Sample], digests: Sequence[bytes], similar: Iterable[Iterable[int]] = ()) -> list[str]:
    """Return a key for each sample; samples with the same key must stay together.

    Images of one group stay together, and so do byte-identical images and `similar` ones, whatever their groups. The
    key is the name of the group, or the smallest digest if there is none. If images join several groups, the first
    name in sort order is the key.

    Args:
        samples: The images, some of which may have a `group`.
        digests: Digests of their files.
        similar: Groups of images that belong together, as positions in `samples`.
    """
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    # Nodes are "d<digest>" and "g<group>". The sort key prefers groups, so a component with a group is named by one.
    def join(one: str, other: str) -> None:
        low, high = sorted((find(one), find(other)), key=lambda key: (key[0] != "g", key))
        parent[high] = low

    nodes = [f"d{digest.hex()}" for digest in digests]
    for node, sample in zip(nodes, samples, strict=True):
        if sample.group is not None:
            join(node, f"g{sample.group}")
    for first, *others in similar:
        for other in others:
            join(nodes[first], nodes[other])
    return [find(node)[1:] for node in nodes]


def hold_out(samples: Sequence[Sample], keys: Sequence[str], *, seed: int, fraction: float) -> list[bool]:
    """Return whether each sample is held out for validation: whether the hash of its key is below the fraction.

    Classes with fewer than `SMALL_CLASS` images stay in train, together with all samples that share a key with them,
    and so does one key of each class: that with the largest hash.
    """
    counts = Counter(sample.label for sample in samples)
    kept = {key for sample, key in zip(samples, keys, strict=True) if counts[sample.label] < SMALL_CLASS}
    last: dict[int, str] = {}
    for sample, key in zip(samples, keys, strict=True):
        last[sample.label] = max(last.get(sample.label, key), key, key=lambda key: (uniform_hash(seed, key), key))
    kept |= set(last.values())
    return [key not in kept and uniform_hash(seed, key) < fraction for key in keys]


def fold_count(keys: Sequence[str], labels: Sequence[int]) -> int:
    """Return the number of folds for images with these keys and labels; there are at most as many as keys."""
    count, distinct = next((folds for images, folds in FOLDS if len(keys) <= images), FEWEST_FOLDS), len(set(keys))
    if 0 < len(keys) <= FEW_IMAGES and len(set(zip(keys, labels, strict=True))) == distinct:
        count = max(2, min(count, round(distinct / len(set(labels)))))
    return min(count, distinct)


def fold_method(keys: Sequence[str], labels: Sequence[int]) -> str:
    """Return `leave-one-out` if each key has a fold of its own, else for example `5-fold` or `10 x 5-fold`."""
    count, divisions = fold_count(keys, labels), _divisions(keys, labels)
    if count == len(set(keys)):
        return "leave-one-out"
    return f"{count}-fold" if divisions == 1 else f"{divisions} x {count}-fold"


def _divisions(keys: Sequence[str], labels: Sequence[int]) -> int:
    """Return how often images are divided into folds."""
    count = fold_count(keys, labels)
    return HELD_OUT_FOLDS // count if len(keys) <= FEW_IMAGES and 0 < count < len(set(keys)) else 1


def assign_folds(keys: Sequence[str], labels: Sequence[int], *, seed: int) -> list[list[int]]:
    """Divide images into folds, one or several times; `divide` says how.

    Args:
        keys: A key for each image; images with the same key are in one fold.
        labels: The class of each image.
        seed: Seed of the hashes.

    Returns:
        For each division, a fold in 0..`fold_count` - 1 for each image.
    """
    count = fold_count(keys, labels)
    return [divide(keys, labels, count, seed=seed, division=number) for number in range(_divisions(keys, labels))]


def divide(keys: Sequence[str], labels: Sequence[int], count: int, *, seed: int, division: int = 0) -> list[int]:
    """Divide images into folds.

    The hash of a key decides, so adding images moves no others. Only of few images, the keys of a class are dealt to
    the folds in the order of their hashes, so that each fold has about as many of them.

    Args:
        keys: A key for each image; images with the same key are in one fold.
        labels: The class of each image.
        count: Number of folds.
        seed: Seed of the hashes.
        division: Number of the division, if images are divided several times.

    Returns:
        A fold in 0..`count` - 1 for each image.
    """
    if len(keys) > FEW_IMAGES and count < len(set(keys)):
        return [int(uniform_hash(seed, key) * count) for key in keys]
    label_of: dict[str, int] = {}
    for key, label in zip(keys, labels, strict=True):
        label_of[key] = min(label, label_of.get(key, label))
    order = sorted(label_of, key=lambda key: (label_of[key], uniform_hash(seed, f"{division}:{key}"), key))
    fold = {key: number % count for number, key in enumerate(order)}
    return [fold[key] for key in keys]


@dataclass(frozen=True, kw_only=True)
class SplitDataset:
    """The usable images of a dataset, each with its split."""

    samples: tuple[Sample, ...]
    digests: tuple[bytes, ...]
    keys: tuple[str, ...]
    """From `group_keys`, for the images of which some may be held out."""
    cross_validated: bool
    """True if nothing is held out, so the training images are evaluated by folds."""

    def indices(self, split: str) -> list[int]:
        """Return the positions of the samples of `split`."""
        return [index for index, sample in enumerate(self.samples) if sample.split == split]


def split_dataset(
    dataset: Dataset,
    digests: Sequence[bytes | None],
    failed: Mapping[int, str],
    *,
    fraction: float | None,
    seed: int,
    similar: Iterable[Iterable[int]] = (),
) -> SplitDataset:
    """Assign a split to each usable image: the split of DATA, or a new one if DATA has none.

    Args:
        dataset: The labeled images to divide.
        digests: Digest of each sample; None if it could not be read.
        failed: Why samples cannot be used, by index.
        fraction: Fraction of train to hold out; None if DATA has validation images or folds are used.
        seed: Seed of the split.
        similar: Groups of images that belong together, as positions in `dataset.samples`.

    Raises:
        DataError: A class has no usable training image, or no image was held out.
    """
    read = [index for index, digest in enumerate(digests) if digest is not None]
    found = [digests[index] or b"" for index in read]
    place = {index: number for number, index in enumerate(read)}
    samples = [dataset.samples[index] for index in read]
    keys = group_keys(samples, found, [[place[index] for index in group] for group in similar])
    samples = _assign(samples, keys, fraction=fraction, seed=seed)
    kept = [number for number, index in enumerate(read) if index not in failed]
    splits = SplitDataset(
        samples=tuple(samples[number] for number in kept),
        digests=tuple(found[number] for number in kept),
        keys=tuple(keys[number] for number in kept),
        cross_validated=fraction is None and not dataset.has_split("validation"),
    )
    _check(dataset, splits, failed)
    return splits


def assign_splits(
    samples: Sequence[Sample],
    digests: Sequence[bytes],
    *,
    fraction: float | None,
    seed: int,
    similar: Iterable[Iterable[int]] = (),
) -> list[Sample]:
    """Return the samples, each with a split; a `fraction` of train is moved to validation unless it is None.

    The group of each sample becomes its key from `group_keys`.
    """
    keys = group_keys(samples, digests, similar)
    named = [replace(sample, group=key) for sample, key in zip(samples, keys, strict=True)]
    return _assign(named, keys, fraction=fraction, seed=seed)


def _assign(samples: Sequence[Sample], keys: Sequence[str], *, fraction: float | None, seed: int) -> list[Sample]:
    assigned = [replace(sample, split=sample.split or "train") for sample in samples]
    if fraction is None:
        return assigned
    train = [index for index, sample in enumerate(assigned) if sample.split == "train"]
    held_out = hold_out(
        [assigned[index] for index in train], [keys[index] for index in train], seed=seed, fraction=fraction
    )
    for index, held in zip(train, held_out, strict=True):
        if held:
            assigned[index] = replace(assigned[index], split="validation")
    return assigned


def _check(dataset: Dataset, splits: SplitDataset, failed: Mapping[int, str]) -> None:
    if failed and not splits.samples:
        raise DataError(
            f"none of the {len(dataset.samples):,} images of {dataset.root} can be used: "
            f"{first_reasons(_reasons(dataset, failed))}",
            path=dataset.root,
        )
    counts = Counter(sample.label for sample in splits.samples if sample.split == "train")
    for label, name in enumerate(dataset.classes):
        if not counts[label]:
            reasons = first_reasons(_reasons(dataset, failed, label))
            raise DataError(
                f"class {name!r} has no usable image to train on in {dataset.root}. Add images, or remove the class."
                + f" Found: {reasons}" * bool(reasons),
                path=dataset.root,
            )
    if not splits.cross_validated and not splits.indices("validation"):
        raise DataError(
            f"no image of {dataset.root} was held out for validation: classes with fewer than {SMALL_CLASS} images "
            "stay in train. Use a larger --validation-fraction, or remove the option to use cross-validation.",
            path=dataset.root,
        )


def _reasons(dataset: Dataset, failed: Mapping[int, str], label: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield the paths of the images that cannot be used, with the reasons; only those of a class if there is one."""
    for index in sorted(failed):
        if label in {None, dataset.samples[index].label}:
            yield portable_name(dataset.samples[index].path), failed[index]


def splits_by_digest(splits: SplitDataset, digests: Iterable[bytes | None]) -> dict[bytes, str]:
    """Return the split of each digest; `failed` for images that could not be used.

    An image that is in several splits counts as train if one of them is train.
    """
    by_digest = {digest: "failed" for digest in digests if digest is not None}
    for sample, digest in zip(splits.samples, splits.digests, strict=True):
        if by_digest[digest] != "train":
            by_digest[digest] = sample.split or "train"
    return by_digest
