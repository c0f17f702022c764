"""Second pass: for each unit's top images, find the strongest position, its box, and the guided projection.

Shapes: B images of H x W pixels with C channels; U units; h x w positions of a unit's map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tlcli.engines.batch_splitter import BatchSplitter
from tlcli.engines.choice import pick_batch_size
from tlcli.engines.torch_engine import normalization
from tlcli.images.batch import Floats, Pixels, stack_images
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.receptive_boxes import Box
from tlcli.insight.units.guided_backprop import guided_gradients
from tlcli.insight.units.inspected_network import InspectedNetwork
from tlcli.insight.units.top_activations import TopActivations
from tlcli.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One of a unit's top images."""

    rank: int
    """Rank among the unit's top images, from 1."""
    image: int
    """Index of the image."""
    activation: float
    position: tuple[int, int]
    """Row and column of the strongest position on the unit's map."""
    box: Box
    """What that position sees, [x0, y0, x1, y1) in pixels of the network's input; outside the input is padding."""
    cell: Box | None
    """That position's cell of the input; None if there is only one position."""
    pixels: Pixels
    """The network's input, uint8 [H, W, C]."""
    projection: Floats
    """The guided gradient with respect to the normalized input, float32 [H, W, C]."""
    heat: Floats
    """The unit's activation at each position, float32 [h, w]."""


@dataclass(frozen=True, kw_only=True)
class UnitPatches:
    """A unit and its patches, in order of rank."""

    number: int
    """Index of the unit in its layer, from 0."""
    selectivity: float
    """Selectivity in standard deviations; NaN for a dead unit."""
    mean: float
    """Mean activation over all images."""
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class _PatchRequest:
    unit: int
    rank: int
    image: int
    activation: float


class TopPatches:
    """Computes the patches of units, one layer at a time.

    Args:
        network: The network whose units are shown.
        paths: Paths of all images.
        workers: Number of decoder processes.
        batch_size: Images per batch; None for the device's default.
        report: Receives progress and warnings.
    """

    def __init__(
        self,
        network: InspectedNetwork,
        paths: Sequence[str],
        *,
        workers: int,
        batch_size: int | None,
        report: Reporter,
    ) -> None:
        self._network, self._paths, self._report = network, paths, report
        self._workers = workers
        self._batch_size = pick_batch_size(batch_size, network.device)
        self._splitter = BatchSplitter(network.device, report.warn)
        mean, std = network.preprocessing.mean, network.preprocessing.std
        self._scale, self._shift = (values.to(network.device) for values in normalization(mean, std))
        self.failures: dict[int, str] = {}
        """Reasons why images that were readable in the first pass no longer are, by index."""
        self.unguided: list[str] = []
        """Names of layers without an activation function before them: their projections are plain gradients."""

    def units(self, tap: ActivationTap, top: TopActivations, numbers: Sequence[int]) -> Iterator[UnitPatches]:
        """Yield the given units with their patches; dead units have none.

        Args:
            tap: The layer that the units belong to.
            top: The layer's top activations from the first pass.
            numbers: Indices of the units.
        """
        tapped = self._network.tapped([tap])
        scores = top.selectivity()
        requests = {unit: [] if np.isnan(scores[unit]) else list(_requests(top, unit)) for unit in numbers}
        every = [request for group in requests.values() for request in group]
        options = DecodeOptions(preprocessing=self._network.preprocessing)
        with (
            ImageLoader(options, workers=self._workers) as loader,
            self._report.task(f"Layer {tap.layer.number}{' before' * tap.before}", len(every), "patches") as advance,
        ):
            loaded = zip(every, loader.load(self._paths[request.image] for request in every), strict=True)
            for unit, group in requests.items():
                readable: list[tuple[_PatchRequest, bytes]] = []
                for request, image in islice(loaded, len(group)):
                    advance(1)
                    if image.pixels is None:
                        self.failures[request.image] = image.error or "cannot be read"
                    else:
                        readable.append((request, image.pixels))
                yield UnitPatches(
                    number=unit,
                    selectivity=float(scores[unit]),
                    mean=float(top.mean[unit]),
                    patches=tuple(self._patches(tapped, tap, readable)),
                )

    def _patches(
        self, tapped: torch.nn.Module, tap: ActivationTap, readable: Sequence[tuple[_PatchRequest, bytes]]
    ) -> Iterator[Patch]:
        for start in range(0, len(readable), self._batch_size):
            part = readable[start : start + self._batch_size]
            pixels = stack_images([data for _, data in part], self._network.preprocessing.shape)
            units = torch.tensor([request.unit for request, _ in part], device=self._network.device)
            found = self._splitter.run(partial(self._project, tapped, tap, pixels, units), len(part))
            rows = [row for piece in found for row in piece]
            for (request, _), image, (projection, heat) in zip(part, pixels, rows, strict=True):
                row, column = divmod(int(heat.argmax()), heat.shape[1])
                yield Patch(
                    rank=request.rank,
                    image=request.image,
                    activation=request.activation,
                    position=(row, column),
                    box=tap.boxes.box(row, column),
                    cell=tap.boxes.cell(row, column),
                    pixels=image,
                    projection=projection,
                    heat=heat,
                )

    def _project(
        self, tapped: torch.nn.Module, tap: ActivationTap, pixels: Pixels, units: Tensor, part: slice
    ) -> list[tuple[Floats, Floats]]:
        """Return the projection [H, W, C] and the heat [h, w] of one unit per image, for a part of the batch."""
        pixels, units = pixels[part], units[part]
        images = torch.from_numpy(pixels).to(self._network.device).permute(0, 3, 1, 2)
        images = (images.float() * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
        heats: list[Tensor] = []

        def pick(values: tuple[Tensor, ...]) -> Tensor:
            maps = tap.layout.to_maps(values[0])
            own = maps[torch.arange(len(maps), device=maps.device), units]
            heats.append(own.detach())
            return own.flatten(1).max(1).values

        gradient, _, activations = guided_gradients(tapped, images, pick)
        if not activations and tap.layer.name not in self.unguided:
            self.unguided.append(tap.layer.name)
        return list(
            zip(gradient.permute(0, 2, 3, 1).float().cpu().numpy(), heats[0].float().cpu().numpy(), strict=True)
        )


def _requests(top: TopActivations, unit: int) -> Iterator[_PatchRequest]:
    pairs = zip(top.images[unit].tolist(), top.values[unit].tolist(), strict=True)
    for rank, (image, value) in enumerate(pairs, 1):
        if image >= 0:
            yield _PatchRequest(unit, rank, image, value)
