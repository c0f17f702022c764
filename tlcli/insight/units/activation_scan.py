"""First pass: run all images through the network once and keep the top nine of every unit of several layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.engines.choice import pick_batch_size, pick_engine
from tlcli.engines.onnx_export import export_onnx
from tlcli.engines.opening import open_runner
from tlcli.engines.runner import Runner, map_padded
from tlcli.images.batch import Pixels, stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.units.inspected_network import InspectedNetwork
from tlcli.insight.units.tapped_network import MaxActivations
from tlcli.insight.units.top_activations import TopActivations
from tlcli.progress import Advance, Reporter


@dataclass(frozen=True, kw_only=True)
class ActivationScan:
    """The result of one pass over the images."""

    tops: tuple[TopActivations, ...]
    """One for each tap."""
    failures: dict[int, str]
    """Reasons why images were left out, by index."""
    copies: int
    """Images that were byte-identical to earlier ones, and therefore skipped."""


def scan_activations(
    network: InspectedNetwork,
    taps: Sequence[ActivationTap],
    paths: Sequence[str],
    *,
    workers: int,
    batch_size: int | None,
    report: Reporter,
) -> ActivationScan:
    """Run every distinct image through the network once and collect the top activations of every unit.

    Apart from the list of paths and digests, memory does not grow with the number of images.

    Args:
        network: The network whose layers are scanned.
        taps: The layers to read.
        paths: Paths of the images; an image's position in this list is its index.
        workers: Number of decoder processes.
        batch_size: Images per batch; None for the device's default.
        report: Receives the progress over the images.
    """
    runner = _runner(network, MaxActivations(network.tapped(taps), taps), len(paths), report)
    size = pick_batch_size(batch_size, network.device)
    tops = tuple(TopActivations(tap.layout.units) for tap in taps)
    boundaries = np.cumsum([tap.layout.units for tap in taps])[:-1]
    with (
        ImageLoader(DecodeOptions(preprocessing=network.preprocessing), workers=workers) as loader,
        report.task("Scan", len(paths)) as advance,
    ):
        images = _DistinctImages(loader, paths, advance)
        batches = _image_batches(images, size, network.preprocessing.shape)
        for values in map_padded(runner, batches, size):
            indices = np.array([images.pending.popleft() for _ in values], np.int64)
            for top, part in zip(tops, np.split(values, boundaries, axis=1), strict=True):
                top.update(part, indices)
    return ActivationScan(tops=tops, failures=images.failures, copies=images.copies)


def _runner(network: InspectedNetwork, model: MaxActivations, images: int, report: Reporter) -> Runner:
    preprocessing = network.preprocessing

    def exported() -> bytes:
        report.note("Export    network to ONNX Runtime")
        return export_onnx(model, preprocessing)

    engine = pick_engine("auto", network.device, "fp32", images)
    return open_runner(
        lambda: model,
        preprocessing,
        exported=exported if engine == "onnx" else None,
        requested="auto",
        device=network.device,
        precision="fp32",
        report=report,
    )


class _DistinctImages:
    """Iterate over the pixels of the readable images in order, skipping byte-identical copies."""

    def __init__(self, loader: ImageLoader, paths: Sequence[str], advance: Advance) -> None:
        self._loader, self._paths, self._advance = loader, paths, advance
        self._seen: set[bytes] = set()
        self.pending: deque[int] = deque()
        """Indices of the images yielded; the consumer removes them."""
        self.failures: dict[int, str] = {}
        self.copies = 0

    def __iter__(self) -> Iterator[bytes]:
        for index, image in enumerate(self._loader.load(self._paths)):
            self._advance(1)
            if image.pixels is None or image.digest is None:
                self.failures[index] = image.error or "cannot be read"
            elif image.digest in self._seen:
                self.copies += 1
            else:
                self._seen.add(image.digest)
                self.pending.append(index)
                yield image.pixels


def _image_batches(pixels: Iterable[bytes], size: int, shape: tuple[int, int, int]) -> Iterator[Pixels]:
    """Group images into batches, uint8 [B, H, W, C], of up to `size` images."""
    batch: list[bytes] = []
    for image in pixels:
        batch.append(image)
        if len(batch) == size:
            yield stack_images(batch, shape)
            batch = []
    if batch:
        yield stack_images(batch, shape)
