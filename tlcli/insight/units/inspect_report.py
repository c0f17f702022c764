"""Write the results of `inspect`: a PNG per layer, a line of `units.jsonl` per patch, and the page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from PIL import Image

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.insight.activation_taps import ActivationTap
from tlcli.insight.units.activation_scan import ActivationScan
from tlcli.insight.units.filters import filter_sheet, first_filters
from tlcli.insight.units.inspect_page import (
    LayerSection,
    UnitCard,
    UnitPanel,
    as_png,
    as_webp,
    data_uri,
    inspect_page,
)
from tlcli.insight.units.inspected_network import InspectedNetwork
from tlcli.insight.units.layer_sheet import LayerSheet, layer_facts, selectivity_caption
from tlcli.insight.units.output_folder import FILTERS, PAGE, PATCHES, sheet_name
from tlcli.insight.units.patch_grids import PatchGrids, draw_patch_grids
from tlcli.insight.units.top_activations import TOP_K, TopActivations
from tlcli.insight.units.top_patches import Patch, TopPatches, UnitPatches
from tlcli.insight.upright_images import Thumbnail, load_thumbnails
from tlcli.storage.files import portable_name


@dataclass(frozen=True)
class _LayerUnits:
    """The units to show of a layer."""

    stages: tuple[tuple[ActivationTap, TopActivations], ...]
    """One entry, or one before and one after fine-tuning."""
    units: list[int]


@dataclass(frozen=True)
class _DrawnUnit:
    """A unit of one network, in its three output forms."""

    grids: PatchGrids
    lines: list[dict[str, Any]]
    panel: UnitPanel


class InspectReport:
    """Draws units and writes the output folder.

    Args:
        network: The network that the report is about.
        dataset: The dataset, for its class names and root.
        samples: The images; an image's position in this list is its index.
        top_patches: Computes the patches of the network's units on the images of `samples`.
        units: Units to show per layer.
        workers: Number of decoder processes for the thumbnails.
    """

    def __init__(
        self,
        network: InspectedNetwork,
        dataset: Dataset,
        samples: Sequence[Sample],
        top_patches: TopPatches,
        *,
        units: int,
        workers: int,
    ) -> None:
        self._network, self._dataset, self._samples = network, dataset, samples
        self._top_patches, self._units, self._workers = top_patches, units, workers
        self._paths = [sample.path for sample in samples]
        self._thumbnails: dict[int, Thumbnail] = {}

    def write(self, folder: Path, taps: Sequence[ActivationTap], scan: ActivationScan) -> list[LayerSection]:
        """Write all files of the folder.

        Args:
            folder: An empty folder to write into.
            taps: The tapped layers; those that are compared once before and once after fine-tuning.
            scan: The top activations of these taps.
        """
        layers = self._select_units(taps, scan)
        wanted = {
            int(index)
            for layer in layers
            for _, top in layer.stages
            for index in top.images[layer.units].flat
            if index >= 0
        }
        preprocessing = self._network.preprocessing
        self._thumbnails = load_thumbnails(self._paths, wanted, preprocessing, self._workers)
        with (folder / PATCHES).open("w", encoding="utf8", errors="backslashreplace") as lines:
            sections = [self._write_layer(folder, layer, lines) for layer in layers]
        lead = (
            f"{self._network.backbone.name}, {self._network.origin}. {scan.tops[0].seen:,} training images from "
            f"{portable_name(str(self._dataset.root))}, {preprocessing.width} x {preprocessing.height} pixels. "
            f"{self._network.remark}"
        )
        page = inspect_page(
            name=self._network.name,
            lead=lead,
            layers=sections,
            thumbnails={str(index): data_uri(one.content, "webp") for index, one in self._thumbnails.items()},
            top_k=TOP_K,
        )
        (folder / PAGE).write_bytes(page.encode("utf8", "backslashreplace"))
        return sections

    def _select_units(self, taps: Sequence[ActivationTap], scan: ActivationScan) -> list[_LayerUnits]:
        """Select the most selective units of each layer, as measured after fine-tuning."""
        by_layer: dict[int, list[tuple[ActivationTap, TopActivations]]] = {}
        for tap, top in zip(taps, scan.tops, strict=True):
            by_layer.setdefault(tap.layer.number, []).append((tap, top))
        return [_LayerUnits(tuple(stages), stages[-1][1].most_selective(self._units)) for stages in by_layer.values()]

    def _write_layer(self, folder: Path, layer: _LayerUnits, lines: IO[str]) -> LayerSection:
        """Draw a layer, and write its PNG and its lines."""
        tap, top = layer.stages[-1]
        sheet, cards = LayerSheet(tap, len(layer.units), len(layer.stages)), []
        drawn = [list(self._draw(tap, top, layer.units)) for tap, top in layer.stages]
        for number, *stages in zip(layer.units, *drawn, strict=True):
            sheet.add(number, [unit.grids for unit in stages])
            lines.writelines(json.dumps(line, ensure_ascii=False) + "\n" for unit in stages for line in unit.lines)
            cards.append(UnitCard(number=number, panels=[unit.panel for unit in stages]))
        sheet.image.save(folder / sheet_name(tap.layer.number, tap.layer.name), "PNG")
        filters = self._write_filters(folder) if tap.layer.number == 1 else None
        return LayerSection(
            number=tap.layer.number,
            name=tap.layer.name,
            facts=layer_facts(tap),
            units=cards,
            alive=len(top.most_selective(tap.layout.units)),
            of=tap.layout.units,
            mapped=tap.boxes.mixes_positions,
            compared=len(layer.stages) > 1,
            frozen=self._network.frozen is not None and tap.stage is None,
            filters=None if filters is None else as_png(filters),
            plain=tap.layer.name in self._top_patches.unguided,
        )

    def _draw(self, tap: ActivationTap, top: TopActivations, units: Sequence[int]) -> Iterator[_DrawnUnit]:
        for found in self._top_patches.units(tap, top, units):
            unit = replace(found, patches=tuple(patch for patch in found.patches if patch.image in self._thumbnails))
            grids = draw_patch_grids(unit, tap)
            lines = [self._line(tap, unit, patch) for patch in unit.patches]
            panel = UnitPanel(
                stage=tap.stage,
                caption=selectivity_caption(grids),
                patches=as_webp(grids.patches),
                projections=as_webp(grids.projections),
                rows=[line | self._page_fields(patch) for line, patch in zip(lines, unit.patches, strict=True)],
            )
            yield _DrawnUnit(grids, lines, panel)

    def _write_filters(self, folder: Path) -> Image.Image | None:
        filters = first_filters(self._network.backbone.model, self._network.preprocessing.channels)
        if filters is None:
            return None
        sheet = filter_sheet(filters)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        (folder / FILTERS).write_bytes(file.getvalue())
        return sheet

    def _line(self, tap: ActivationTap, unit: UnitPatches, patch: Patch) -> dict[str, Any]:
        """Return a line of `units.jsonl`."""
        sample, thumbnail = self._samples[patch.image], self._thumbnails[patch.image]
        return {
            "layer": tap.layer.number,
            "layer_name": tap.layer.name,
            "unit": unit.number,
            "finetuning": tap.stage,
            "rank": patch.rank,
            "path": portable_name(sample.path),
            "label": self._dataset.classes[sample.label],
            "position": list(patch.position),
            "box": list(patch.box),
            "source_box": [round(edge, 2) for edge in thumbnail.placement.box(patch.box)],
            "activation": patch.activation,
        }

    def _page_fields(self, patch: Patch) -> dict[str, Any]:
        """Return what the page needs of a patch in addition to its line."""
        return {"image": patch.image, "size": list(self._thumbnails[patch.image].placement.size)}
