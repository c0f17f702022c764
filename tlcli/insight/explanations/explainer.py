"""Explain predictions: write a card for each row, and an index from rows to cards.

Label and confidence are those of the row. Images are read again, so the rows may come from an earlier command; images
that have changed since are left out.
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
from tlcli.inference.explained_rows import EXPLANATION_INDEX, ExplainedRow, ExplainedRows, card_name
from tlcli.inference.load_network import load_network
from tlcli.inference.predictor import Predictor, ranked
from tlcli.insight.explanations.card import draw_card
from tlcli.insight.explanations.gradcam import GradCam
from tlcli.insight.upright_images import UprightImage, upright_images
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.storage.files import portable_name

CLASSES_SHOWN = 3
"""Classes on a card."""
IMAGE_SIDE = 640
"""Longer side, in pixels, of the images that panels are made from."""
MAX_BATCH_SIZE = 16
"""Gradients need more memory than predictions."""
TOLERANCE = 0.01
"""Maximum difference between a confidence and that of the row; beyond it, the file must have changed."""


class Explainer:
    """Explains predictions of a run's network.

    Args:
        run: The run whose predictions are explained.
        device: Device to compute on, as in `--device`.
        workers: Number of decoder processes.
        batch_size: Images per batch, limited to `MAX_BATCH_SIZE`; None for the device's default.
        report: Receives progress and warnings.

    Raises:
        UsageError: the network cannot be explained.
        ArtifactError: the run's weights do not match its network.
        MachineError: there is no such device.
    """

    def __init__(self, run: Run, *, device: str, workers: int, batch_size: int | None, report: Reporter) -> None:
        self._run, self._report = run, report
        self._workers = workers
        torch_device = pick_device(device)
        self._batch_size = min(pick_batch_size(batch_size, torch_device), MAX_BATCH_SIZE)
        self._cam = GradCam(load_network(run), run.preprocessing, device=torch_device, warn=report.warn)

    def write(self, folder: Path, selection: ExplainedRows, predictor: Predictor) -> int:
        """Write a card for each row, and the index.

        Args:
            folder: An empty folder to write into.
            selection: The rows to explain.
            predictor: The predictor of the same run.

        Returns:
            The number of cards written; images that changed since their prediction get none.
        """
        rows = selection.rows
        paths = [row.path for row in rows]
        preprocessing = self._run.preprocessing
        images = 0
        with (
            (folder / EXPLANATION_INDEX).open("w", encoding="utf8", errors="backslashreplace") as index,
            ImageLoader(DecodeOptions(preprocessing=preprocessing), workers=self._workers) as loader,
            self._report.task("Explain", len(rows)) as advance,
        ):
            whole_images = upright_images(paths, preprocessing, side=IMAGE_SIDE, workers=self._workers)
            loaded = zip(rows, loader.load(paths), whole_images, strict=True)
            while batch := list(islice(loaded, self._batch_size)):
                for line in self._write_cards(folder, batch, predictor):
                    index.write(json.dumps(line, ensure_ascii=False) + "\n")
                    images += 1
                advance(len(batch))
        if changed := len(rows) - images:
            count = "1 image" if changed == 1 else f"{changed:,} images"
            self._report.warn(f"{count} changed since the prediction and cannot be explained.")
        return images

    def _write_cards(
        self,
        folder: Path,
        batch: Sequence[tuple[ExplainedRow, DecodedImage, UprightImage | None]],
        predictor: Predictor,
    ) -> Iterator[dict[str, Any]]:
        """Write the cards of a batch, and yield their lines of the index."""
        unchanged = [
            (row, image.pixels, upright)
            for row, image, upright in batch
            if image.pixels and upright and image.digest == upright.digest
        ]
        if not unchanged:
            return
        pixels = stack_images([data for _, data, _ in unchanged], self._run.preprocessing.shape)
        labels = [self._run.classes.index(row.label) for row, _, _ in unchanged]
        probabilities = np.concatenate(
            [
                predictor.probabilities(predictor.model.run(pixels[start : start + predictor.model.batch_size]).logits)
                for start in range(0, len(pixels), predictor.model.batch_size)
            ]
        )
        maps = self._cam.maps(pixels, labels)
        for (row, _, upright), label, found, heat in zip(unchanged, labels, probabilities, maps, strict=True):
            if abs(float(found[label]) - row.confidence) > TOLERANCE:
                continue
            others = ranked(label, found)[1:CLASSES_SHOWN]
            rest = [(self._run.classes[index], round(float(found[index]), 6)) for index in others]
            ranking = [(row.label, row.confidence), *rest]
            name = card_name(row)
            image = draw_card(portable_name(row.path), upright.image, upright.placement, heat, ranking)
            image.save(folder / name, "JPEG", quality=92, subsampling=0)
            yield self._line(row, name, ranking, upright.placement)

    def _line(
        self, row: ExplainedRow, name: str, ranking: Sequence[tuple[str, float]], placement: Placement
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
