"""Images to calibrated probabilities. Torch-free if the run has an ONNX file.

Shapes: B images in a batch, k classes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tlcli.images.batch import Pixels, stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage, DecodeOptions
from tlcli.inference.calibration import calibrated_probabilities
from tlcli.inference.model import Logits, open_model
from tlcli.processes import cores
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run


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


def ranked(label: int, probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return all classes: the predicted class first, then the others by decreasing probability.

    Args:
        label: The predicted class. With `--balance`, another class may be more probable at the class frequencies of
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
        engine: `auto`, `onnx` or `torch`.
        batch_size: Images per batch; None picks it by engine and device.
        workers: Number of decoder processes; None starts one per core.
        report: Receives details about the model.

    Raises:
        UsageError: `--engine onnx` was given, and the run has no loadable ONNX file or the device is not the CPU.
        ArtifactError: The weights do not fit the architecture.
        MachineError: The device is missing.
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
        self.model = open_model(run, device=device, engine=engine, batch_size=batch_size, report=report)
        report.detail(
            f"  {run.info['backbone']} on {self.model.name}, {self._workers} worker processes, "
            f"batch size {self.model.batch_size}, temperature {run.temperature:.3f}"
        )

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float32]:
        """Convert logits [B, k] to calibrated probabilities [B, k]."""
        return calibrated_probabilities(logits, self.run.temperature, self.run.log_prior)

    def open_loader(self) -> ImageLoader:
        """Open worker processes that several calls of `stream` can share."""
        options = DecodeOptions(preprocessing=self.run.preprocessing)
        return ImageLoader(options, workers=self._workers, report=self._report)

    def stream(self, paths: Iterator[str], loader: ImageLoader | None = None) -> Iterator[Prediction]:
        """Yield a `Prediction` for each path, in order, in memory that does not grow with the number of paths.

        Args:
            paths: Paths of the images.
            loader: From `open_loader`, and left open; None opens one for this call.
        """
        with contextlib.nullcontext(loader) if loader else self.open_loader() as opened:
            yield from chain.from_iterable(self._predict(opened, paths))

    def _predict(self, loader: ImageLoader, paths: Iterator[str]) -> Iterator[list[Prediction]]:
        requested: deque[str] = deque()
        waiting: deque[list[tuple[str, DecodedImage]]] = deque()

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

        for logits in self.model.map(batches()):
            while not any(image.pixels for _, image in waiting[0]):
                yield self._predictions(waiting.popleft(), None)
            yield self._predictions(waiting.popleft(), logits)
        while waiting:
            yield self._predictions(waiting.popleft(), None)

    def _predictions(self, batch: Sequence[tuple[str, DecodedImage]], logits: Logits | None) -> list[Prediction]:
        """Return the predictions of a batch; `logits` has one row for each image that could be read."""
        readable = (
            iter(()) if logits is None else zip(logits.argmax(axis=1).tolist(), self.probabilities(logits), strict=True)
        )
        predictions = []
        for path, image in batch:
            label, shares = next(readable) if image.pixels else (None, None)
            predictions.append(Prediction(path, image.digest, label, shares, image.error))
        return predictions
