"""The second pass: the few images that won, for the place that fired, its box, and the guided projection.

B images of H x W pixels with C channels; U units; h x w places of a unit's map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.choice import pick_batch_size
from tlcli.engines.torch_engine import normalization
from tlcli.images.batch import stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.insight.guided_backprop import project
from tlcli.insight.receptive_boxes import Box
from tlcli.insight.subject import Subject
from tlcli.insight.top_activations import RunningTop
from tlcli.insight.units import Tap
from tlcli.progress import Reporter
from tlcli.settings import ComputeSettings

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One of a unit's top images."""

    rank: int
    """From 1."""
    image: int
    """Its number."""
    activation: float
    position: tuple[int, int]
    """Row and column of the place that fired."""
    box: Box
    """What that place sees: [x0, y0, x1, y1) in pixels of the network's input; beyond it lies the padding."""
    cell: Box | None
    """The part of the input that lies at that place."""
    pixels: Pixels
    """uint8 [H, W, C]: the network's input."""
    projection: Floats
    """float32 [H, W, C]: the guided gradient with respect to the normalized input."""
    heat: Floats
    """float32 [h, w]: the unit's activation at each place."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit and its patches, the strongest first."""

    number: int
    selectivity: float
    """NaN where it answers every image alike."""
    mean: float
    """Of its activation over all images."""
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class _Request:
    unit: int
    rank: int
    image: int
    activation: float


class Winners:
    """Goes through the winning images of one layer after another.

    Args:
        subject: The network.
        paths: Of all images.
        compute: Batch size and decoding processes.
        report: Shown the progress.
    """

    def __init__(self, subject: Subject, paths: Sequence[str], compute: ComputeSettings, report: Reporter) -> None:
        self._subject, self._paths, self._report = subject, paths, report
        self._workers = compute.worker_count()
        self._batch_size = pick_batch_size(compute.batch_size, subject.device)
        self._splitter = BatchSplitter(subject.device, report.warn)
        mean, std = subject.preprocessing.mean, subject.preprocessing.std
        self._scale, self._shift = (values.to(subject.device) for values in normalization(mean, std))
        self.failures: dict[int, str] = {}
        """Images that could be read in the first pass and can't any more, by their number."""
        self.unguided: list[str] = []
        """Names of layers before which there is no activation, so that their projections are plain gradients."""

    def units(self, tap: Tap, top: RunningTop, numbers: Sequence[int]) -> Iterator[Unit]:
        """Each of the layer's units asked for, with its patches; without any where it answers every image alike.

        Args:
            tap: The layer.
            top: What the first pass found of it.
            numbers: Of the units.
        """
        network = self._subject.look_into([tap])
        scores = top.selectivity()
        requests = {unit: [] if np.isnan(scores[unit]) else list(_requests(top, unit)) for unit in numbers}
        every = [request for some in requests.values() for request in some]
        order = DecodeOptions(preprocessing=self._subject.preprocessing)
        with (
            ImageLoader(order, workers=self._workers) as loader,
            self._report.task(f"Layer {tap.layer.number}{' before' * tap.before}", len(every), "patches") as advance,
        ):
            loaded = zip(every, loader.load(self._paths[request.image] for request in every), strict=True)
            for unit, some in requests.items():
                given: list[tuple[_Request, bytes]] = []
                for request, image in islice(loaded, len(some)):
                    advance(1)
                    if image.pixels is None:
                        self.failures[request.image] = image.error or "cannot be read"
                    else:
                        given.append((request, image.pixels))
                yield Unit(
                    number=unit,
                    selectivity=float(scores[unit]),
                    mean=float(top.mean[unit]),
                    patches=tuple(self._patches(network, tap, given)),
                )

    def _patches(self, network: torch.nn.Module, tap: Tap, given: Sequence[tuple[_Request, bytes]]) -> Iterator[Patch]:
        for start in range(0, len(given), self._batch_size):
            part = given[start : start + self._batch_size]
            pixels = stack_images([data for _, data in part], self._subject.preprocessing.shape)
            units = torch.tensor([request.unit for request, _ in part], device=self._subject.device)
            found = self._splitter.run(partial(self._look, network, tap, pixels, units), len(part))
            rows = [row for piece in found for row in piece]
            for (request, _), image, (projection, heat) in zip(part, pixels, rows, strict=True):
                place = int(heat.argmax())
                row, column = divmod(place, heat.shape[1])
                yield Patch(
                    rank=request.rank,
                    image=request.image,
                    activation=request.activation,
                    position=(row, column),
                    box=tap.sight.box(row, column),
                    cell=tap.sight.cell(row, column),
                    pixels=image,
                    projection=projection,
                    heat=heat,
                )

    def _look(
        self, network: torch.nn.Module, tap: Tap, pixels: Pixels, units: Tensor, part: slice
    ) -> list[tuple[Floats, Floats]]:
        """The projection [H, W, C] and the heat [h, w] of one unit in each image of a part of the batch."""
        pixels, units = pixels[part], units[part]
        images = torch.from_numpy(pixels).to(self._subject.device).permute(0, 3, 1, 2)
        images = (images.float() * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
        heats: list[Tensor] = []

        def pick(values: tuple[Tensor, ...]) -> Tensor:
            maps = tap.layout.maps(values[0])
            own = maps[torch.arange(len(maps), device=maps.device), units]
            heats.append(own.detach())
            return own.flatten(1).max(1).values

        gradient, _, activations = project(network, images, pick)
        if not activations and tap.layer.name not in self.unguided:
            self.unguided.append(tap.layer.name)
        return list(
            zip(gradient.permute(0, 2, 3, 1).float().cpu().numpy(), heats[0].float().cpu().numpy(), strict=True)
        )


def _requests(top: RunningTop, unit: int) -> Iterator[_Request]:
    pairs = zip(top.images[unit].tolist(), top.values[unit].tolist(), strict=True)
    for rank, (image, value) in enumerate(pairs, 1):
        if image >= 0:
            yield _Request(unit, rank, image, value)
