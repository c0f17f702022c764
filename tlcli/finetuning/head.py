"""The head on wholly frozen features: the whole job where all is frozen, and where a tail's training starts."""

from __future__ import annotations

import numpy as np
import torch

from tlcli.errors import DataError
from tlcli.features.frozen import Frozen
from tlcli.finetuning.pictures import Pictures
from tlcli.images.split import folds, unit_keys
from tlcli.progress import Reporter
from tlcli.settings import FinetuneSettings
from tlcli.training.selection import L2S, Selection, select_folds, select_holdout


def fit_head(frozen: Frozen, pictures: Pictures, settings: FinetuneSettings, views: int, report: Reporter) -> Selection:
    """Fit the softmax head on train and `views` cached views of it; L2 and temperature from plain pictures held out.

    Raises:
        DataError: nobody is left to judge, or a feature is not finite.
    """
    settled = pictures.settled
    train = settled.indices("train")
    digests = pictures.digests(train)
    shown = [frozen.plain.gather(digests)]
    if frozen.augmented is not None:
        shown += [frozen.augmented.gather(digests, view) for view in range(1, views + 1)]
    features = torch.from_numpy(np.concatenate(shown))
    labels = torch.from_numpy(np.tile(pictures.labels(train), len(shown)))
    device = frozen.network.head_device()
    with report.task("Head", len(L2S), "fits") as advance:
        if not settled.folded:
            validation = settled.indices("validation")
            selection = select_holdout(
                features,
                labels,
                torch.from_numpy(frozen.plain.gather(pictures.digests(validation))),
                torch.from_numpy(pictures.labels(validation)),
                classes=pictures.classes,
                balance=settings.balance,
                device=device,
                progress=advance,
            )
        else:
            keys = unit_keys([settled.samples[row] for row in train], digests)
            if len(set(keys)) < 2:
                raise DataError(
                    f"all pictures of {settings.data} are in one group, so none can judge the others. Use another "
                    "--group-by."
                )
            selection = select_folds(
                features,
                labels,
                np.tile(folds(keys, seed=settings.network.seed), len(shown)),
                classes=pictures.classes,
                judged=len(train),
                balance=settings.balance,
                device=device,
                progress=advance,
            )
    for tried in selection.sweep:
        report.detail("  " + ", ".join(f"{name} {value:.4g}" for name, value in tried.items()))
    return selection
