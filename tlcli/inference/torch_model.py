"""A run's network in torch, for GPUs and for runs without an ONNX file.

Shapes: B images of H x W pixels with C channels in a batch, k classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.backbones.cut import cut_at
from tlcli.backbones.heads import WithHeadInput, head_modules
from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.choice import pick_batch_size, pick_device
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import pad_batch
from tlcli.engines.torch_engine import map_in_torch_threads
from tlcli.features.rounding import round_as_stored
from tlcli.inference.load_network import load_network
from tlcli.inference.network_outputs import Outputs
from tlcli.progress import Reporter
from tlcli.runs.run import Run


class TorchModel:
    """A run's network in torch; see `Model`.

    Args:
        run: The run whose network is loaded.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        batch_size: Images per batch; None picks it by device.
        report: Receives a warning when a batch has to be split for lack of memory.
        precision: `fp32`, `bf16` or `fp16` for the frozen layers; None means the precision that the run was evaluated
            in, on a CPU fp32 instead of fp16.

    Raises:
        ArtifactError: The weights do not fit the architecture.
        MachineError: The device is missing.
    """

    threads = 1  # which torch divides each batch among, or which fills a GPU

    def __init__(
        self, run: Run, device: str, batch_size: int | None, report: Reporter, *, precision: str | None = None
    ) -> None:
        backbone = load_network(run)
        cut = cut_at(backbone, {0: "none", run.info["freeze"]["of"]: "all"}.get(run.layer, str(run.layer)))
        self._device = pick_device(device)
        if precision is None:
            trained_in = run.info["precision"]
            precision = "fp32" if trained_in == "fp16" and self._device.type == "cpu" else trained_in
            if run.is_openvino_bf16:  # torch rounds otherwise in bf16, and the run's labels were compared with fp32
                precision = "fp32"
        self.batch_size = pick_batch_size(batch_size, self._device)
        self._prefix = open_runner(
            lambda: cut.prefix,
            run.preprocessing,
            exported=None,
            requested="torch",
            device=self._device,
            precision=precision,
            report=report,
        )
        self.name = f"{self._device}, {self._prefix.precision}, torch"
        self._splitter = BatchSplitter(self._device, report.warn)
        self._has_features = run.has_novelty
        tail = WithHeadInput(cut.tail, head_modules(backbone.model)) if self._has_features else cut.tail
        self._tail = tail.to(self._device).to(memory_format=torch.channels_last).eval()
        self._rounded = cut.layer > 0  # the input of a network without frozen layers is never stored

    @torch.inference_mode()
    def run(self, pixels: npt.NDArray[np.uint8]) -> Outputs:
        """Convert pixels uint8 [B, H, W, C] to logits float32 [B, k], and to features if the run can tell novelty."""
        count = len(pixels)
        features = self._prefix.features(pad_batch(pixels, self.batch_size) if self._device.type == "cpu" else pixels)
        if self._rounded:  # as in the cache, so that predictions do not depend on whether features were cached
            features = round_as_stored(features)
        parts = self._splitter.run(lambda part: self._run_tail(features[part]), len(features))
        logits, *others = (np.concatenate(values)[:count] for values in zip(*parts, strict=True))
        return Outputs(logits, others[0] if others else None)

    def _run_tail(self, features: Tensor) -> list[npt.NDArray[np.float32]]:
        outputs = self._tail(features) if self._has_features else [self._tail(features)]
        return [output.float().cpu().numpy() for output in outputs]

    def map(self, batches: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Outputs]:
        """Call `run` on each batch in the background, and yield the results in order."""
        return map_in_torch_threads(self.run, batches, self._device)
