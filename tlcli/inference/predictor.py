"""Images to calibrated probabilities. Torch-free if the run has an ONNX file.

Shapes: B images in a batch, k classes, D features.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcli.images.batch import Floats, Pixels, stack_images
from tlcli.images.loader import TIME_LIMIT, ImageLoader
from tlcli.images.worker import DecodedImage, DecodeOptions
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.model import open_model
from tlcli.inference.network_outputs import Outputs
from tlcli.inference.novelty import COMPARED_TOGETHER, load_novelty
from tlcli.processes import cores
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run

Batch = list[tuple[str, DecodedImage]]
"""Images with their paths."""


class Prediction(NamedTuple):
    """The prediction for one image."""

    path: str
    digest: bytes | None
    """SHA-256 of the image file; None if it cannot be read."""
    label: int | None
    """Index of the class with the largest logit; None if the image failed."""
    probabilities: npt.NDArray[np.float32] | None
    """[k], calibrated; None if the image failed."""
    error: str | None
    """Why the image failed; None if it did not."""
    novelty: float | None = None
    """How untypical the image is of the training images, in [0, 1]; None if the run cannot tell, or the image failed.
    """


def ranked(label: int, probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return all classes: the predicted class first, then the others by decreasing probability.

    Args:
        label: The predicted class. With class weights, another class may be more probable at the class frequencies of
            the training data.
        probabilities: [k].
    """
    # Stable, so that equal probabilities keep the order of the classes, as with argmax.
    order: list[int] = np.argsort(-probabilities, kind="stable").tolist()
    return [label, *(other for other in order if other != label)]


class Predictor:
    """A run, ready to predict.

    Args:
        run: The run whose network predicts.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        engine: `auto`, `onnx`, `openvino` or `torch`.
        batch_size: Images per batch; None picks it by engine and device.
        workers: Number of decoder processes; None starts one per core.
        report: Receives details about the model.

    Raises:
        UsageError: `--engine onnx` or `openvino` was given, and the run has no ONNX file that it can load or the device
            is not the CPU.
        ArtifactError: The weights do not fit the architecture.
        MachineError: The device is missing, or OpenVINO is not installed.
    """

    def __init__(
        self,
        run: Run,
        *,
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        report: Reporter | None = None,
    ) -> None:
        report = self._report = report or Silent()
        self.run = run
        self._workers = workers or cores()
        self.novelty = load_novelty(run)
        """Tells how untypical an image is; None if the run cannot."""
        self.model = open_model(run, device=device, engine=engine, batch_size=batch_size, report=report)
        report.detail(
            f"  {run.info['backbone']} on {self.model.name}, {self._workers} worker processes, "
            f"batch size {self.model.batch_size}, temperature {run.temperature:.3f}"
        )

    def probabilities(self, logits: Floats) -> npt.NDArray[np.float32]:
        """Convert logits [B, k] to calibrated probabilities [B, k]."""
        return calibrated_probabilities(logits, self.run.temperature, self.run.log_prior)

    def open_loader(self, time_limit: float = TIME_LIMIT) -> ImageLoader:
        """Open worker processes that several calls of `stream` can share.

        Args:
            time_limit: Seconds to read and decode one image.
        """
        options = DecodeOptions(preprocessing=self.run.preprocessing)
        return ImageLoader(options, workers=self._workers, time_limit=time_limit, report=self._report)

    def stream(self, paths: Iterator[str], loader: ImageLoader | None = None) -> Iterator[Prediction]:
        """Yield a `Prediction` for each path, in order, in memory that does not grow with the number of paths.

        Args:
            paths: Paths of the images.
            loader: From `open_loader`, and left open; None opens one for this call.
        """
        with contextlib.nullcontext(loader) if loader else self.open_loader() as opened:
            for batches in self._together(self._run(opened, paths)):
                yield from self.predictions(batches)

    def _run(self, loader: ImageLoader, paths: Iterator[str]) -> Iterator[tuple[Batch, Outputs | None]]:
        """Yield batches of images, each with the outputs for those that could be read; None if there are none."""
        requested: deque[str] = deque()
        waiting: deque[Batch] = deque()

        def requested_paths() -> Iterator[str]:
            for path in paths:
                requested.append(path)
                yield path

        def batches() -> Iterator[Pixels]:
            images = loader.load(requested_paths())
            while batch := list(islice(images, self.model.batch_size)):
                waiting.append([(requested.popleft(), image) for image in batch])
                good = [image.pixels for image in batch if image.pixels]
                if good:  # otherwise, these images are yielded before the next batch
                    yield stack_images(good, self.run.preprocessing.shape)

        for outputs in self.model.map(batches()):
            while not any(image.pixels for _, image in waiting[0]):
                yield waiting.popleft(), None
            yield waiting.popleft(), outputs
        while waiting:
            yield waiting.popleft(), None

    def _together(
        self, batches: Iterable[tuple[Batch, Outputs | None]]
    ) -> Iterator[list[tuple[Batch, Outputs | None]]]:
        """Collect batches until they have `COMPARED_TOGETHER` images, if images are compared with anything."""
        enough = 1 if self.novelty is None else COMPARED_TOGETHER
        collected: list[tuple[Batch, Outputs | None]] = []
        for pair in batches:
            collected.append(pair)
            if sum(len(batch) for batch, _ in collected) >= enough:
                yield collected
                collected = []
        if collected:
            yield collected

    def predictions(self, batches: Sequence[tuple[Batch, Outputs | None]]) -> list[Prediction]:
        """Return the predictions of some batches; outputs have one row for each image that could be read."""
        found = [outputs for _, outputs in batches if outputs is not None]
        readable = self._results(found) if found else iter(())
        predictions = []
        for path, image in chain.from_iterable(batch for batch, _ in batches):
            label, shares, novelty = next(readable) if image.pixels else (None, None, None)
            predictions.append(Prediction(path, image.digest, label, shares, image.error, novelty))
        return predictions

    def _results(self, found: Sequence[Outputs]) -> Iterator[tuple[int, Floats, float | None]]:
        """Return label, probabilities, and novelty of each image."""
        logits = np.concatenate([outputs.logits for outputs in found])
        novelties: list[float] | list[None] = [None] * len(logits)
        if self.novelty is not None:
            features = [outputs.features for outputs in found if outputs.features is not None]
            novelties = self.novelty(np.concatenate(features), logits).tolist()
        return zip(logits.argmax(axis=1).tolist(), self.probabilities(logits), novelties, strict=True)
