"""Explains some predictions: a card for each, and an index from rows to cards.

The label and its confidence are those of the row. The images are read once more, so that it doesn't matter when their
rows were made; one that has changed since is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.engines.choice import pick_batch_size, pick_device
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Placement
from tlcli.images.worker import DecodedImage, DecodeOptions
from tlcli.inference.explained_rows import INDEX, Explained, ExplainedRows, card_name
from tlcli.inference.load_network import trained_network
from tlcli.inference.predictor import Predictor, ranked
from tlcli.insight.explanation_card import card
from tlcli.insight.gradcam import GradCam
from tlcli.insight.image_thumbnails import Upright, upright_images
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.settings import ComputeSettings
from tlcli.storage.files import portable_name

SHOWN = 3
"""Classes on a card."""
SIDE = 640
"""Pixels along an image's longer side, from which its panels are made."""
MOST = 16
"""Images that go through the network together, at most: gradients need more memory than predictions."""
TOLERANCE = 0.01
"""By how much a confidence may differ from the row's; more, and the file is another one."""


class Explainer:
    """A run's network, ready to explain.

    Args:
        run: The run.
        compute: Where it runs.
        report: Told of progress, and where batches had to become smaller.

    Raises:
        UsageError: the network can't be explained.
        ArtifactError: the run's weights don't fit.
        MachineError: no such device.
    """

    def __init__(self, run: Run, compute: ComputeSettings, report: Reporter) -> None:
        self._run, self._report = run, report
        self._workers = compute.worker_count()
        device = pick_device(compute.device)
        self._batch_size = min(pick_batch_size(compute.batch_size, device), MOST)
        self._cam = GradCam(trained_network(run), run.preprocessing, device=device, warn=report.warn)

    def write(self, folder: Path, selection: ExplainedRows, predictor: Predictor) -> int:
        """Write a card for each row, and the index.

        Args:
            folder: Empty.
            selection: The rows.
            predictor: What made them.

        Returns:
            How many cards there are: images that changed since they were predicted have none.
        """
        rows = selection.rows
        paths = [row.path for row in rows]
        preprocessing = self._run.preprocessing
        images = 0
        with (
            (folder / INDEX).open("w", encoding="utf8", errors="backslashreplace") as index,
            ImageLoader(DecodeOptions(preprocessing=preprocessing), workers=self._workers) as loader,
            self._report.task("Explain", len(rows)) as advance,
        ):
            whole = upright_images(paths, preprocessing, side=SIDE, workers=self._workers)
            loaded = zip(rows, loader.load(paths), whole, strict=True)
            while some := list(islice(loaded, self._batch_size)):
                for line in self._cards(folder, some, predictor):
                    index.write(json.dumps(line, ensure_ascii=False) + "\n")
                    images += 1
                advance(len(some))
        if changed := len(rows) - images:
            what = "1 image" if changed == 1 else f"{changed:,} images"
            self._report.warn(f"{what} changed since the prediction, and can't be explained.")
        return images

    def _cards(
        self, folder: Path, some: Sequence[tuple[Explained, DecodedImage, Upright | None]], predictor: Predictor
    ) -> Iterator[dict[str, Any]]:
        """Draw a batch's cards, and give their lines of the index."""
        good = [
            (row, image.pixels, upright)
            for row, image, upright in some
            if image.pixels and upright and image.digest == upright.digest
        ]
        if not good:
            return
        pixels = stack_images([data for _, data, _ in good], self._run.preprocessing.shape)
        labels = [self._run.classes.index(row.label) for row, _, _ in good]
        shares = np.concatenate(
            [
                predictor.probabilities(predictor.network.run(pixels[start : start + predictor.network.batch_size]))
                for start in range(0, len(pixels), predictor.network.batch_size)
            ]
        )
        maps = self._cam.maps(pixels, labels)
        for (row, _, upright), label, found, heat in zip(good, labels, shares, maps, strict=True):
            if abs(float(found[label]) - row.confidence) > TOLERANCE:
                continue
            others = ranked(label, found)[1:SHOWN]
            rest = [(self._run.classes[index], round(float(found[index]), 6)) for index in others]
            ranking = [(row.label, row.confidence), *rest]
            name = card_name(row)
            image = card(portable_name(row.path), upright.image, upright.placement, heat, ranking)
            image.save(folder / name, "JPEG", quality=92, subsampling=0)
            yield self._line(row, name, ranking, upright.placement)

    def _line(
        self, row: Explained, name: str, ranking: Sequence[tuple[str, float]], placement: Placement
    ) -> dict[str, Any]:
        return {
            "row": row.row,
            "path": portable_name(row.path),
            "file": name,
            "label": row.label,
            "confidence": row.confidence,
            "top": [{"label": label, "confidence": confidence} for label, confidence in ranking],
            "layer": self._cam.layer,
            "size": list(placement.size),
            "seen": [round(edge, 2) for edge in placement.seen],
        }
