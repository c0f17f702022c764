"""What several processes that train one tail do together: gradients, validation, checkpoints, lost images.

In a process that is alone, all of it acts on this process only.

Shapes: B images of a batch, M images to predict, k classes.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import convert_sync_batchnorm  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tlcli import processes
from tlcli.errors import DataError
from tlcli.features.backbone import LoadedBackbone
from tlcli.progress import Reporter
from tlcli.runs.directory import CHECKPOINTS
from tlcli.runs.provenance import versions
from tlcli.training.tail.batches import Source
from tlcli.training.tail.checkpoints import IMAGES, Checkpoints
from tlcli.training.tail.gradients import Gradients, set_train_mode
from tlcli.training.tail.precision import training_precision
from tlcli.training.tail.validation import ValidationResult, predict_batches, validate
from tlcli.training.usable_images import UsableImages

EVALUATION_BATCH = 32
# Renamed in torch 2.15, where the old name warns. `synchronize_buffers` does it instead, once an epoch.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


class SharedGradients(Gradients):
    """Gradients by several processes, each with its part of every batch, averaged over all images.

    BatchNorm's statistics are those of all parts on CUDA. On a CPU, where torch does not support that, they are those
    of each process's own part, and `synchronize_buffers` keeps the running averages of the first process.
    """

    compiles = False

    def _prepare(self, warn: Callable[[str], None]) -> None:
        tail, device, fixed = self._tail, self._device, self._recipe.fixed_statistics
        moving = not fixed and any(isinstance(module, _BatchNorm) for module in tail.modules())
        synchronized = moving and device.type == "cuda"
        if moving:
            self.least = 2 * processes.size()  # two for each; padding would enter the statistics
            if self.batch_size < self.least:
                warn(f"batches have {self.least} images, two per process, the minimum for BatchNorm.")
                self.batch_size = self.least
        if moving and not synchronized:
            warn(
                "BatchNorm's statistics are computed from each process's part of a batch, since torch cannot "
                "synchronize them on a CPU; the running averages of the first process are kept."
            )
        self._shared = DistributedDataParallel(
            _synchronized(tail) if synchronized else tail,
            device_ids=[device] if device.type == "cuda" else None,
            static_graph=True,  # some parameters may have no gradient
            **_WITHOUT_BUFFERS,
        )

    def train_mode(self) -> None:
        """See `Gradients.train_mode`."""
        set_train_mode(self._shared, self._recipe)

    def own_part(self, batch: list[int]) -> Sequence[int]:
        """See `Gradients.own_part`."""
        return processes.share(batch)

    def total(self, images: int) -> int:
        """See `Gradients.total`."""
        return round(processes.total([images])[0])

    def backward(self, inputs: Tensor, labels: Tensor, images: int, step: int) -> float:
        """See `Gradients.backward`. Running out of memory is an error here: the other processes could not follow."""
        count = len(labels)
        if count < 2:  # its images vanished; the padding does not count
            inputs = torch.cat([inputs, inputs.new_zeros(2 - count, *inputs.shape[1:])])
        self._clear()
        logits = self._logits(self._shared, inputs, step + processes.rank() * 998_244_353)[:count]
        smoothing = self._recipe.label_smoothing
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / images
        value = processes.total([loss.item()])[0]
        if np.isfinite(value):  # for all, or for none
            self._scaler.scale(loss * processes.size()).backward()  # type: ignore[no-untyped-call]
        return value

    def synchronize_buffers(self) -> None:
        """Give every process the running averages of the first one."""
        for buffer in self._tail.buffers():
            torch.distributed.broadcast(buffer, 0)


def gradients_class() -> type[Gradients]:
    """Return how gradients are computed: by this process, or by all that were started together."""
    return Gradients if processes.size() == 1 else SharedGradients


def _synchronized(tail: nn.Module) -> nn.Module:
    """Return a tail with the same parameters and buffers whose BatchNorms are synchronized between processes.

    The tail itself is not converted, since its modules are those of the network that is saved.
    """
    tensors = itertools.chain(tail.parameters(), tail.buffers())
    own = copy.deepcopy(tail, {id(tensor): tensor for tensor in tensors})
    converted: nn.Module = convert_sync_batchnorm(own)  # type: ignore[no-untyped-call]
    return converted


def predict_together(
    tail: nn.Module, source: Source, count: int, device: torch.device
) -> tuple[list[int], NDArray[np.float32]]:
    """Run a tail in full precision on the rows 0 to `count` - 1 of a source. Every process gets all results.

    Args:
        tail: Features to logits [B, k].
        source: The batches of images to run.
        count: Number of images.
        device: Where the tail is.

    Returns:
        The M rows whose images can still be read, and their logits float32 [M, k].

    Raises:
        DataError: none can be read.
    """
    batches = [list(range(start, min(start + EVALUATION_BATCH, count))) for start in range(0, count, EVALUATION_BATCH)]
    parts = processes.in_parts(batches, lambda part: predict_batches(tail, source, part, device))
    found, logits = [row for rows, _ in parts for row in rows], [some for _, arrays in parts for some in arrays]
    if not found:
        raise DataError(
            f"all {count:,} images to evaluate on changed or vanished since the run began. Put them back and continue "
            "with --resume, or start again with --overwrite to train on the images that are there now."
        )
    return found, np.concatenate(logits)


def validate_together(
    logits: NDArray[np.float32], labels: NDArray[np.integer], log_prior: NDArray[np.float64] | None
) -> ValidationResult:
    """Run `validate` in the first process and share the result, so that it is bit-identical in all processes."""
    return processes.from_first(lambda: validate(logits, labels, log_prior))


def share_lost(images: UsableImages, report: Reporter) -> None:
    """Exchange the images that could not be read again. Each process has reported its own."""
    reported = set(images.lost)
    for others in processes.gather(dict(images.lost)):
        images.lost.update(others)
    for path in images.lost.keys() - reported:
        report.warn(f"{path} was left out: {images.lost[path]}")


def open_checkpoints(
    directory: Path,
    network: LoadedBackbone,
    images: UsableImages,
    *,
    precision: str,
    origin: dict[str, Any],
    resume: bool,
) -> Checkpoints | None:
    """Open the checkpoints of a run, in the first process; the others get None.

    Args:
        directory: The run's directory.
        network: What training starts from.
        images: The images to train on.
        precision: The user's `--precision`.
        origin: Settings and first weights. A checkpoint of another origin, other versions, images, precision, device
            or number of threads is refused.
        resume: Whether to continue from the checkpoints; otherwise they are removed.

    Raises:
        ArtifactError: with `resume`, the checkpoints are of another origin, or damaged.
    """

    def open_them() -> Checkpoints:
        depends_on = {
            IMAGES: images.content_hash(),
            "trained in": training_precision(precision, network.device),
            "on": network.device.type,
            # Several processes may resume as more or fewer: the result is the same up to rounding.
            "threads": torch.get_num_threads() if processes.size() == 1 else "of several processes",
        }
        whole = origin | versions() | depends_on
        return Checkpoints(directory / CHECKPOINTS, whole, resume=resume, report=network.report)

    return processes.in_first(open_them)


def latest_checkpoint(checkpoints: Checkpoints | None) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return what the first process finds in its checkpoints, in every process; None if there is nothing."""
    return processes.from_first(lambda: checkpoints.latest() if checkpoints else None)
