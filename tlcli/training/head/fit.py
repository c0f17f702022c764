"""The head on wholly frozen features: the whole job where all is frozen, and where a tail's training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tlcli.datasets.splits import assign_folds, group_keys
from tlcli.errors import DataError
from tlcli.features.frozen import Frozen
from tlcli.progress import Reporter
from tlcli.settings import FinetuneSettings
from tlcli.training.head.l2_selection import L2S, Selection, select_folds, select_holdout
from tlcli.training.usable_images import UsableImages

IN_MEMORY = 2**27
"""Values (0.5 GB) above which features stay on disk: for cross-validation, five rotated copies lie in memory."""


class StoredRows:
    """Features of images, plain ones and then each view, that are read as they are needed.

    Args:
        frozen: Whose stores have them.
        digests: Of the images.
        views: How many augmented ones of each.
    """

    def __init__(self, frozen: Frozen, digests: Sequence[bytes], views: int) -> None:
        self._places = [(frozen.plain, frozen.plain.places((digest, 0) for digest in digests))]
        if frozen.augmented is not None:
            store = frozen.augmented
            self._places += [
                (store, store.places((digest, view) for digest in digests)) for view in range(1, views + 1)
            ]
        self._images = len(digests)
        self.shape = (len(self._places) * len(digests), *frozen.plain.shape)

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows `start` to `stop`: float32 [stop - start, D]."""
        found = []
        while start < stop:
            view, at = divmod(start, self._images)
            end = min(self._images, at + stop - start)
            store, places = self._places[view]
            found.append(store.read(places[at:end]))
            start += end - at
        return found[0] if len(found) == 1 else np.concatenate(found)


def fit_head(
    frozen: Frozen, images: UsableImages, settings: FinetuneSettings, views: int, report: Reporter
) -> Selection:
    """Fit the softmax head on train and `views` cached views of it; L2 and temperature from plain images held out.

    Raises:
        DataError: nobody is left to judge, or a feature is not finite.
    """
    splits = images.splits
    train = splits.indices("train")
    digests = images.digests(train)
    rows = StoredRows(frozen, digests, views)
    features = torch.from_numpy(rows.read(0, rows.shape[0])) if math.prod(rows.shape) <= IN_MEMORY else rows
    labels = torch.from_numpy(np.tile(images.labels(train), views + 1))
    device = frozen.network.head_device()
    with report.task("Head", len(L2S), "fits") as advance:
        if not splits.cross_validated:
            validation = splits.indices("validation")
            selection = select_holdout(
                features,
                labels,
                torch.from_numpy(frozen.plain.gather(images.digests(validation))),
                torch.from_numpy(images.labels(validation)),
                classes=images.classes,
                balance=settings.balance,
                device=device,
                progress=advance,
            )
        else:
            keys = group_keys([splits.samples[row] for row in train], digests)
            if len(set(keys)) < 2:
                raise DataError(
                    f"all images of {settings.data} are copies of one, or in one group of --group-by, so none can "
                    "judge the others. Add other images, or use another --group-by."
                )
            selection = select_folds(
                features,
                labels,
                np.tile(assign_folds(keys, seed=settings.network.seed), views + 1),
                classes=images.classes,
                judged=len(train),
                balance=settings.balance,
                device=device,
                progress=advance,
            )
    for tried in selection.sweep:
        report.detail("  " + ", ".join(f"{name} {value:.4g}" for name, value in tried.items()))
    return selection
