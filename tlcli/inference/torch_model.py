"""A run's network in torch: on GPUs, and for runs without an ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from tlcli.backbones.cut import cut_at
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.choice import pick_batch_size, pick_device
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import pad_batch
from tlcli.engines.torch_engine import map_in_torch_threads
from tlcli.features.rounding import round_as_stored
from tlcli.inference.load_network import trained_network
from tlcli.progress import Reporter
from tlcli.runs.run import Run
from tlcli.settings import ComputeSettings


class TorchModel:
    """A run's network in torch.

    Raises:
        ArtifactError: its weights don't fit its architecture.
        MachineError: the device isn't there.
    """

    def __init__(self, run: Run, compute: ComputeSettings, report: Reporter) -> None:
        backbone = trained_network(run)
        cut = cut_at(backbone, {0: "none", run.info["freeze"]["of"]: "all"}.get(run.layer, str(run.layer)))
        self._device = pick_device(compute.device)
        # In the arithmetic that the run was judged in; fp16 is for GPUs alone.
        made_in = run.info["precision"]
        precision = "fp32" if made_in == "fp16" and self._device.type == "cpu" else made_in
        self.batch_size = pick_batch_size(compute.batch_size, self._device)
        self._prefix = open_runner(
            cut.prefix,
            run.preprocessing,
            exported=None,
            required=False,
            device=self._device,
            precision=precision,
            report=report,
        )
        self.name = f"{self._device}, {self._prefix.precision}, torch"
        self._splitter = BatchSplitter(self._device, report.warn)
        self._tail = cut.tail.to(self._device).to(memory_format=torch.channels_last).eval()
        self._rounded = cut.layer > 0  # what enters a network that isn't frozen at all is never stored

    @torch.inference_mode()
    def run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to the network's logits, float32 [B, k]."""
        count = len(pixels)
        features = self._prefix.features(pad_batch(pixels, self.batch_size) if self._device.type == "cpu" else pixels)
        if self._rounded:  # as the cache rounds, so that an image gets the same answer with and without it
            features = round_as_stored(features)
        parts = self._splitter.run(lambda part: self._tail(features[part]).float().cpu().numpy(), len(features))
        return np.concatenate(parts)[:count]

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.float32]]:
        """`run` of each batch, computed in the background, in order."""
        return map_in_torch_threads(self.run, batches, self._device)
