"""Which images are held out: decided by what each image is, not by where it stands in a list."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.errors import DataError

SMALL_CLASS = 10
"""Classes with fewer images than this have none held out."""

FOLDS = 5
DEFAULT_VALIDATION_FRACTION = 0.2
"""Share of the images that are held out where some must be, and nobody said how many."""


def uniform_hash(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def group_keys(samples: Sequence[Sample], digests: Sequence[bytes]) -> list[str]:
    """A key for each sample; samples with the same key must stay together.

    Images of one group go together, and so do byte-identical images, whatever groups they are in. The key
    is the group's name (the first in order, where identical images join groups), else the digest.
    """
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    # "g" sorts after every hexadecimal digit's "d", so a component with a group in it is named by a group.
    nodes = []
    for sample, digest in zip(samples, digests, strict=True):
        image = f"d{digest.hex()}"
        nodes.append(image)
        if sample.group is not None:
            one, two = find(image), find(f"g{sample.group}")
            low, high = sorted((one, two), key=lambda key: (key[0] != "g", key))
            parent[high] = low
    return [find(node)[1:] for node in nodes]


def hold_out(samples: Sequence[Sample], keys: Sequence[str], *, seed: int, fraction: float) -> list[bool]:
    """Whether each sample goes to validation: where the hash of its key falls below the fraction.

    Classes under `SMALL_CLASS` images stay in train, and whatever must stay together with one of theirs.
    """
    counts = Counter(sample.label for sample in samples)
    kept = {key for sample, key in zip(samples, keys, strict=True) if counts[sample.label] < SMALL_CLASS}
    return [key not in kept and uniform_hash(seed, key) < fraction for key in keys]


def assign_folds(keys: Sequence[str], *, seed: int) -> list[int]:
    """A fold in 0 .. FOLDS - 1 for each key, made like the held-out split."""
    return [int(uniform_hash(seed, key) * FOLDS) for key in keys]


@dataclass(frozen=True, kw_only=True)
class SplitDataset:
    """The images to learn from and to be judged on: N samples, each with its split."""

    samples: tuple[Sample, ...]
    digests: tuple[bytes, ...]
    cross_validated: bool
    """True where nothing is held out, so that train is judged by folds."""

    def indices(self, split: str) -> list[int]:
        """Positions of the samples of `split`."""
        return [index for index, sample in enumerate(self.samples) if sample.split == split]


def split_dataset(
    dataset: Dataset,
    digests: Sequence[bytes | None],
    failed: Container[int],
    *,
    fraction: float | None,
    seed: int,
) -> SplitDataset:
    """Give each usable image its split: DATA's own, or ours where it has none.

    Args:
        dataset: What DATA holds.
        digests: One for each sample; None where it could not be read.
        failed: Indices of the samples that cannot be used.
        fraction: Share of train to hold out; None where DATA brings validation, or folds will judge.
        seed: Seed of the split.

    Raises:
        DataError: a class has no usable image in train, or nothing was held out.
    """
    read = [index for index, digest in enumerate(digests) if digest is not None]
    samples = assign_splits(
        [dataset.samples[index] for index in read],
        [digests[index] or b"" for index in read],
        fraction=fraction,
        seed=seed,
    )
    kept = [(sample, digests[index] or b"") for sample, index in zip(samples, read, strict=True) if index not in failed]
    settled = SplitDataset(
        samples=tuple(sample for sample, _ in kept),
        digests=tuple(digest for _, digest in kept),
        cross_validated=fraction is None and not dataset.has_split("validation"),
    )
    _check(dataset, settled)
    return settled


def assign_splits(
    samples: Sequence[Sample], digests: Sequence[bytes], *, fraction: float | None, seed: int
) -> list[Sample]:
    """The samples, each with a split; with a `fraction`, that share of train moved to validation."""
    split = [replace(sample, split=sample.split or "train") for sample in samples]
    if fraction is None:
        return split
    train = [index for index, sample in enumerate(split) if sample.split == "train"]
    members = [split[index] for index in train]
    keys = group_keys(members, [digests[index] for index in train])
    for index, out in zip(train, hold_out(members, keys, seed=seed, fraction=fraction), strict=True):
        if out:
            split[index] = replace(split[index], split="validation")
    return split


def _check(dataset: Dataset, settled: SplitDataset) -> None:
    counts = Counter(sample.label for sample in settled.samples if sample.split == "train")
    for label, name in enumerate(dataset.classes):
        if not counts[label]:
            raise DataError(
                f"class {name!r} has no usable image to train on in {dataset.root}. Add some, or remove the class.",
                path=dataset.root,
            )
    if not settled.cross_validated and not settled.indices("validation"):
        raise DataError(
            f"no image of {dataset.root} was held out for validation: classes under {SMALL_CLASS} images stay in "
            "train. Use a larger --validation-fraction, or leave it out for five folds.",
            path=dataset.root,
        )


def splits_by_digest(settled: SplitDataset, digests: Iterable[bytes | None]) -> dict[bytes, str]:
    """The split of each image; `failed` for those of `digests` that could not be used.

    One that stands in several splits counts as trained on, if any of them is train.
    """
    splits = {digest: "failed" for digest in digests if digest is not None}
    for sample, digest in zip(settled.samples, settled.digests, strict=True):
        if splits[digest] != "train":
            splits[digest] = sample.split or "train"
    return splits
