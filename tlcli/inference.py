"""A run and pictures to probabilities: the one path that evaluate, predict and exports share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.engine import map_batches, pick_batch_size, pick_device, pick_engine
from tlcli.backbones.runner import open_runner
from tlcli.backbones.zoo import rebuild
from tlcli.errors import ArtifactError
from tlcli.features.rounding import round_as_stored
from tlcli.images.loader import PictureLoader
from tlcli.images.worker import Order, Picture
from tlcli.progress import Reporter, Silent
from tlcli.runs import Run
from tlcli.settings import ComputeSettings
from tlcli.training.calibration import probabilities


class Prediction(NamedTuple):
    """What the run says of one picture."""

    path: str
    digest: bytes | None
    label: int | None
    """Index of the class that scores highest; None where the picture failed."""
    probabilities: npt.NDArray[np.float32] | None
    """[k], calibrated; None where the picture failed."""
    error: str | None


class Predictor:
    """A run, ready to predict.

    Raises:
        ArtifactError: its weights don't fit its architecture.
        MachineError: the device isn't there.
    """

    def __init__(self, run: Run, compute: ComputeSettings, report: Reporter | None = None) -> None:
        backbone = rebuild(run.config)
        try:
            backbone.model.load_state_dict(run.weights(), strict=True)
        except RuntimeError as error:
            raise ArtifactError(f"the weights in {run.directory} don't fit {backbone.name}: {error}") from error
        cut = cut_at(backbone, {0: "none", run.info["freeze"]["of"]: "all"}.get(run.layer, str(run.layer)))
        device = pick_device(compute.device)
        # In the arithmetic that the run was judged in; fp16 is for GPUs alone.
        made_in = run.info["precision"]
        precision = "fp32" if made_in == "fp16" and device.type == "cpu" else made_in
        preprocessing = run.preprocessing
        self.run = run
        self._device = device
        self._batch_size = pick_batch_size(compute.batch_size, device)
        self._workers = compute.worker_count()
        report = report or Silent()
        report.detail(
            f"  {backbone.name} on {device}, {precision}, {self._workers} decoding processes, "
            f"{self._batch_size} pictures a batch, temperature {run.temperature:.3f}"
        )
        engine = pick_engine(compute.engine, device, precision, 0)
        self._prefix = open_runner(
            cut.prefix,
            preprocessing,
            engine=engine if cut.layer else "torch",
            required=True,
            device=device,
            precision=precision,
            directory=lambda: None,
            report=report,
        )
        self._tail = cut.tail.to(device).to(memory_format=torch.channels_last).eval()
        self._rounded = cut.layer > 0  # what enters a network that isn't frozen at all is never stored

    @torch.inference_mode()
    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to the network's logits, float32 [B, k]."""
        features = self._prefix.features(pixels)
        if self._rounded:  # as the cache rounds, so that a picture gets the same answer with and without it
            features = round_as_stored(features)
        logits: npt.NDArray[np.float32] = self._tail(features).float().cpu().numpy()
        return logits

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits [B, k] to calibrated probabilities [B, k]."""
        return probabilities(logits, self.run.temperature, self.run.log_prior)

    def stream(self, paths: Iterator[str]) -> Iterator[Prediction]:
        """A `Prediction` for each path, in order; memory doesn't grow with their number."""
        order = Order(preprocessing=self.run.preprocessing)
        with PictureLoader(order, workers=self._workers) as loader:
            yield from chain.from_iterable(map_batches(self._predict, self._batches(loader, paths), self._device))

    def _batches(self, loader: PictureLoader, paths: Iterator[str]) -> Iterator[list[tuple[str, Picture]]]:
        asked: deque[str] = deque()

        def remembered() -> Iterator[str]:
            for path in paths:
                asked.append(path)
                yield path

        pictures = loader.load(remembered())
        while some := list(islice(pictures, self._batch_size)):
            yield [(asked.popleft(), picture) for picture in some]

    def _predict(self, batch: Sequence[tuple[str, Picture]]) -> list[Prediction]:
        preprocessing = self.run.preprocessing
        shape = (-1, preprocessing.height, preprocessing.width, preprocessing.channels)
        pixels = bytearray().join(picture.pixels for _, picture in batch if picture.pixels)
        logits = self.logits(np.frombuffer(pixels, np.uint8).reshape(shape)) if pixels else None
        found = (
            iter(()) if logits is None else zip(logits.argmax(axis=1).tolist(), self.probabilities(logits), strict=True)
        )
        predictions = []
        for path, picture in batch:
            label, shares = next(found) if picture.pixels else (None, None)
            predictions.append(Prediction(path, picture.digest, label, shares, picture.error))
        return predictions
