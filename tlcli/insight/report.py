"""What `inspect` found, drawn: an image a layer, a line a patch, and the page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from PIL import Image

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.insight.draw import Panel, draw_panel, filter_sheet, first_filters
from tlcli.insight.image_thumbnails import Source, sources
from tlcli.insight.output_folder import FILTERS, PAGE, PATCHES, sheet_name
from tlcli.insight.page import LayerSection, UnitCard, UnitPanel, as_png, as_webp, data_uri, inspect_page
from tlcli.insight.patches import Patch, Unit, Winners
from tlcli.insight.scan import Scan
from tlcli.insight.sheet import Sheet, caption, facts
from tlcli.insight.subject import Subject
from tlcli.insight.top_activations import KEPT, RunningTop
from tlcli.insight.units import Tap
from tlcli.progress import Reporter
from tlcli.settings import InspectSettings
from tlcli.storage.files import portable_name


@dataclass(frozen=True)
class _Look:
    """A layer, once or before and after fine-tuning, and the units of it to show."""

    stages: tuple[tuple[Tap, RunningTop], ...]
    units: list[int]


@dataclass(frozen=True)
class _Drawn:
    """A unit of one network."""

    panel: Panel
    lines: list[dict[str, Any]]
    on_page: UnitPanel


class Studio:
    """Draws units.

    Args:
        settings: How many units, and how to decode images.
        subject: The network.
        dataset: For class names.
        samples: The images; their places in this list are their numbers.
        report: Shown the progress.
    """

    def __init__(
        self,
        settings: InspectSettings,
        subject: Subject,
        dataset: Dataset,
        samples: Sequence[Sample],
        report: Reporter,
    ) -> None:
        self._settings, self._subject, self._dataset, self._samples = settings, subject, dataset, samples
        self._paths = [sample.path for sample in samples]
        self.winners = Winners(subject, self._paths, settings.compute, report)
        self._sources: dict[int, Source] = {}

    def write(self, folder: Path, taps: Sequence[Tap], found: Scan) -> list[LayerSection]:
        """Write all files of the folder.

        Args:
            folder: An empty one.
            taps: The layers, each before (where it is compared) and after.
            found: What the first pass found of them.
        """
        looks = self._looks(taps, found)
        wanted = {
            int(number)
            for look in looks
            for _, top in look.stages
            for number in top.images[look.units].flat
            if number >= 0
        }
        preprocessing = self._subject.preprocessing
        self._sources = sources(self._paths, wanted, preprocessing, self._settings.compute.worker_count())
        with (folder / PATCHES).open("w", encoding="utf8", errors="backslashreplace") as lines:
            sections = [self._layer(folder, look, lines) for look in looks]
        lead = (
            f"{self._subject.backbone.name}, {self._subject.origin}. {found.tops[0].seen:,} training images of "
            f"{portable_name(str(self._dataset.root))} at {preprocessing.width} x {preprocessing.height} pixels. "
            f"{self._subject.remark}"
        )
        page = inspect_page(
            name=self._subject.name,
            lead=lead,
            layers=sections,
            thumbnails={str(number): data_uri(source.thumbnail, "webp") for number, source in self._sources.items()},
            kept=KEPT,
        )
        (folder / PAGE).write_bytes(page.encode("utf8", "backslashreplace"))
        return sections

    def _looks(self, taps: Sequence[Tap], found: Scan) -> list[_Look]:
        """Units are chosen by what they are now, after fine-tuning."""
        by_layer: dict[int, list[tuple[Tap, RunningTop]]] = {}
        for tap, top in zip(taps, found.tops, strict=True):
            by_layer.setdefault(tap.layer.number, []).append((tap, top))
        return [_Look(tuple(some), some[-1][1].most_selective(self._settings.units)) for some in by_layer.values()]

    def _layer(self, folder: Path, look: _Look, lines: IO[str]) -> LayerSection:
        """Draw a layer, and write its image and its lines."""
        tap, top = look.stages[-1]
        sheet, cards = Sheet(tap, len(look.units), len(look.stages)), []
        drawn = [list(self._drawn(tap, top, look.units)) for tap, top in look.stages]
        for number, *parts in zip(look.units, *drawn, strict=True):
            sheet.add(number, [part.panel for part in parts])
            lines.writelines(json.dumps(line, ensure_ascii=False) + "\n" for part in parts for line in part.lines)
            cards.append(UnitCard(number=number, panels=[part.on_page for part in parts]))
        sheet.image.save(folder / sheet_name(tap.layer.number, tap.layer.name), "PNG")
        filters = self._filters(folder) if tap.layer.number == 1 else None
        return LayerSection(
            number=tap.layer.number,
            name=tap.layer.name,
            facts=facts(tap),
            units=cards,
            alive=len(top.most_selective(tap.layout.units)),
            of=tap.layout.units,
            mapped=tap.sight.field is None and tap.sight.places != (1, 1),
            compared=len(look.stages) > 1,
            frozen=self._subject.frozen is not None and tap.stage is None,
            filters=None if filters is None else as_png(filters),
            plain=tap.layer.name in self.winners.unguided,
        )

    def _drawn(self, tap: Tap, top: RunningTop, units: Sequence[int]) -> Iterator[_Drawn]:
        for found in self.winners.units(tap, top, units):
            unit = replace(found, patches=tuple(p for p in found.patches if p.image in self._sources))
            panel = draw_panel(unit, tap)
            lines = [self._line(tap, unit, patch) for patch in unit.patches]
            on_page = UnitPanel(
                stage=tap.stage,
                caption=caption(panel),
                patches=as_webp(panel.patches),
                projections=as_webp(panel.projections),
                rows=[line | self._of_page(patch) for line, patch in zip(lines, unit.patches, strict=True)],
            )
            yield _Drawn(panel, lines, on_page)

    def _filters(self, folder: Path) -> Image.Image | None:
        found = first_filters(self._subject.backbone.model, self._subject.preprocessing.channels)
        if found is None:
            return None
        sheet = filter_sheet(found)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        (folder / FILTERS).write_bytes(file.getvalue())
        return sheet

    def _line(self, tap: Tap, unit: Unit, patch: Patch) -> dict[str, Any]:
        """A line of `units.jsonl`."""
        sample, source = self._samples[patch.image], self._sources[patch.image]
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
            "source_box": [round(edge, 2) for edge in source.placement.box(patch.box)],
            "activation": patch.activation,
        }

    def _of_page(self, patch: Patch) -> dict[str, Any]:
        """What the page needs of a patch besides."""
        return {"picture": patch.image, "size": list(self._sources[patch.image].placement.size)}
