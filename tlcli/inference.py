"""A run and pictures to probabilities: the one path that evaluate, predict and exports share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tlcli.backbones.cut import cut_at
from tlcli.backbones.engine import PrefixRunner, pick_batch_size, pick_device, pick_precision
from tlcli.backbones.zoo import rebuild
from tlcli.errors import ArtifactError
from tlcli.features.store import stored_dtype
from tlcli.images.loader import PictureLoader
from tlcli.images.worker import Order, Picture
from tlcli.runs import Run
from tlcli.settings import ComputeSettings
from tlcli.training.calibration import probabilities


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the run says of one picture."""

    path: str
    digest: bytes | None
    probabilities: npt.NDArray[np.float32] | None
    """[k], calibrated; None where the picture failed."""
    error: str | None


class Predictor:
    """A run, ready to predict.

    Raises:
        ArtifactError: its weights don't fit its architecture.
        MachineError: the device isn't there.
    """

    def __init__(self, run: Run, compute: ComputeSettings) -> None:
        backbone = rebuild(run.config)
        try:
            backbone.model.load_state_dict(run.weights(), strict=True)
        except RuntimeError as error:
            raise ArtifactError(f"the weights in {run.directory} don't fit {backbone.name}: {error}") from error
        cut = cut_at(backbone, "all" if run.layer == run.info["freeze"]["of"] else str(run.layer))
        device = pick_device(compute.device)
        precision = pick_precision(compute.precision, device)
        preprocessing = run.preprocessing
        self.run = run
        self.batch_size = pick_batch_size(compute.batch_size, device)
        self._workers = compute.worker_count()
        self._prefix = PrefixRunner(
            cut.prefix, preprocessing.mean, preprocessing.std, device=device, precision=precision
        )
        self._tail = cut.tail.to(device).eval()
        self._stored = torch.float32 if stored_dtype(cut.feature_shape) == np.float32 else torch.float16

    @torch.inference_mode()
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to calibrated probabilities [B, k]."""
        # Rounded as the cache rounds, so that a picture gets the same answer with and without it.
        features = self._prefix.features(pixels).to(self._stored).float()
        return probabilities(self._tail(features).float().cpu().numpy(), self.run.temperature)

    def stream(self, paths: Iterator[str]) -> Iterator[Prediction]:
        """A `Prediction` for each path, in order; memory doesn't grow with their number."""
        preprocessing = self.run.preprocessing
        shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
        asked: list[str] = []

        def remembered() -> Iterator[str]:
            for path in paths:
                asked.append(path)
                yield path

        batch: list[Picture] = []
        with PictureLoader(Order(preprocessing=preprocessing), workers=self._workers) as loader:
            for picture in loader.load(remembered()):
                batch.append(picture)
                if len(batch) == self.batch_size:
                    yield from self._predict(asked[: len(batch)], batch, shape)
                    del asked[: len(batch)]
                    batch = []
            yield from self._predict(asked, batch, shape)

    def _predict(self, paths: Sequence[str], batch: Sequence[Picture], shape: tuple[int, ...]) -> Iterator[Prediction]:
        good = [np.frombuffer(picture.pixels, np.uint8).reshape(shape) for picture in batch if picture.pixels]
        found = iter(self.probabilities(np.stack(good))) if good else iter(())
        for path, picture in zip(paths, batch, strict=True):
            yield Prediction(
                path=path,
                digest=picture.digest,
                probabilities=next(found) if picture.pixels else None,
                error=picture.error,
            )
