"""Images to calibrated probabilities; torch-free where the run brings an ONNX model."""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tlcli.engines.onnx_session import OnnxSession, UnloadableError
from tlcli.errors import UsageError
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage, DecodeOptions
from tlcli.inference.calibration import probabilities
from tlcli.progress import Reporter, Silent
from tlcli.runs.directory import ONNX_FILE
from tlcli.runs.run import Run
from tlcli.settings import ComputeSettings

ONNX_BATCH_SIZE = 4
"""Images that go to ONNX Runtime together; it takes them one by one."""
DRIVERS = ("libcuda.so.1", "libamdhip64.so", "nvcuda.dll")
"""Libraries without which no GPU is there that torch calls CUDA."""

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


class Prediction(NamedTuple):
    """What the run says of one image."""

    path: str
    digest: bytes | None
    label: int | None
    """Index of the class that scores highest; None where the image failed."""
    probabilities: npt.NDArray[np.float32] | None
    """[k], calibrated; None where the image failed."""
    error: str | None


def ranked(label: int, probabilities: npt.NDArray[np.float32]) -> list[int]:
    """All classes, the label first and the others from likeliest to least likely.

    Args:
        label: With `--balance` not always the most probable class at the training data's frequencies.
        probabilities: [k].
    """
    # Stable, so that equal probabilities rank in the order of the classes, as argmax does.
    order: list[int] = np.argsort(-probabilities, kind="stable").tolist()
    return [label, *(other for other in order if other != label)]


class Model(Protocol):
    """A run's network: pixels uint8 [B, H, W, C] to logits float32 [B, k]."""

    batch_size: int
    name: str
    """What runs it, and how, for people."""

    def run(self, pixels: Pixels) -> Logits:
        """The logits of a batch."""

    def map(self, batches: Iterable[Pixels]) -> Iterator[Logits]:
        """`run` of each batch, computed in the background, in order."""


class OnnxModel(OnnxSession):
    """A run's network in ONNX Runtime."""

    name = "cpu, fp32, ONNX Runtime"

    def __init__(self, model: bytes, batch_size: int | None) -> None:
        super().__init__(model)
        self.batch_size = batch_size or ONNX_BATCH_SIZE


class Predictor:
    """A run, ready to predict.

    Args:
        run: The run.
        compute: Where it runs.
        report: Told what runs it.

    Raises:
        UsageError: the run keeps no ONNX model, and nothing else was asked for.
        ArtifactError: its weights don't fit its architecture.
        MachineError: the device isn't there.
    """

    def __init__(self, run: Run, compute: ComputeSettings, report: Reporter | None = None) -> None:
        report = report or Silent()
        self.run = run
        self._workers = compute.worker_count()
        self.network = open_model(run, compute, report)
        report.detail(
            f"  {run.info['backbone']} on {self.network.name}, {self._workers} decoding processes, "
            f"{self.network.batch_size} images a batch, temperature {run.temperature:.3f}"
        )

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float32]:
        """Logits [B, k] to calibrated probabilities [B, k]."""
        return probabilities(logits, self.run.temperature, self.run.log_prior)

    def open_loader(self) -> ImageLoader:
        """Decoding processes for `stream`, for whoever calls that several times."""
        return ImageLoader(DecodeOptions(preprocessing=self.run.preprocessing), workers=self._workers)

    def stream(self, paths: Iterator[str], loader: ImageLoader | None = None) -> Iterator[Prediction]:
        """A `Prediction` for each path, in order; memory doesn't grow with their number.

        Args:
            paths: Of the images.
            loader: From `open_loader`, and left open; None opens one for these paths.
        """
        with contextlib.nullcontext(loader) if loader else self.open_loader() as opened:
            yield from chain.from_iterable(self._predict(opened, paths))

    def _predict(self, loader: ImageLoader, paths: Iterator[str]) -> Iterator[list[Prediction]]:
        asked: deque[str] = deque()
        waiting: deque[list[tuple[str, DecodedImage]]] = deque()

        def remembered() -> Iterator[str]:
            for path in paths:
                asked.append(path)
                yield path

        def batches() -> Iterator[Pixels]:
            images = loader.load(remembered())
            while some := list(islice(images, self.network.batch_size)):
                waiting.append([(asked.popleft(), image) for image in some])
                good = [image.pixels for image in some if image.pixels]
                if good:  # else these are told with the next batch
                    yield stack_images(good, self.run.preprocessing.shape)

        for logits in self.network.map(batches()):
            while not any(image.pixels for _, image in waiting[0]):
                yield self._told(waiting.popleft(), None)
            yield self._told(waiting.popleft(), logits)
        while waiting:
            yield self._told(waiting.popleft(), None)

    def _told(self, batch: Sequence[tuple[str, DecodedImage]], logits: Logits | None) -> list[Prediction]:
        found = (
            iter(()) if logits is None else zip(logits.argmax(axis=1).tolist(), self.probabilities(logits), strict=True)
        )
        predictions = []
        for path, image in batch:
            label, shares = next(found) if image.pixels else (None, None)
            predictions.append(Prediction(path, image.digest, label, shares, image.error))
        return predictions


def open_model(run: Run, compute: ComputeSettings, report: Reporter) -> Model:
    """What runs a run's network: its ONNX model on a CPU, where it brings one; else torch.

    Raises:
        UsageError: the run keeps no ONNX model, and nothing else was asked for.
        ArtifactError: its weights don't fit its architecture.
        MachineError: the device isn't there.
    """
    required = compute.engine == "onnx"
    exported = ONNX_FILE in run.info["files"]
    if required and not exported:
        raise UsageError(
            f"--engine onnx: {run.directory} has no {ONNX_FILE}: it was trained with --engine torch or in bf16, or its "
            "network can't be exported. Use --engine torch."
        )
    on_cpu = compute.device == "cpu" or (compute.device == "auto" and (required or not _gpu_driver()))
    if required and not on_cpu:
        raise UsageError(f"--engine onnx runs on a CPU, not on {compute.device}. Use --engine torch.")
    if exported and on_cpu and compute.engine != "torch":
        try:
            return OnnxModel(run.content(ONNX_FILE), compute.batch_size)
        except UnloadableError as error:
            if required:
                raise UsageError(f"--engine onnx: {error}. Use --engine torch.") from error
            report.note(f"Engine    torch: {error}")
    from tlcli.inference.torch_model import TorchModel

    return TorchModel(run, compute, report)


def _gpu_driver() -> bool:
    """Whether a GPU may be there: without asking torch, which takes seconds to import."""
    for name in DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
