"""inspect: the pictures that excite a network's units most, and what in them does."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from tlcli.errors import DataError
from tlcli.files import portable_name
from tlcli.images.dataset import Dataset, Sample, open_dataset
from tlcli.images.describe import describe_dataset, describe_failures
from tlcli.inspection.draw import filter_sheet, first_filters, grids
from tlcli.inspection.folder import FILTERS, PAGE, PATCHES, inspect_folder, sheet_name
from tlcli.inspection.scan import Scan, scan
from tlcli.inspection.sheet import Sheet, facts
from tlcli.inspection.sources import Source, sources
from tlcli.inspection.subject import Subject, open_subject, subject_name
from tlcli.inspection.top import KEPT, RunningTop
from tlcli.inspection.units import Tap, choose_taps
from tlcli.inspection.winners import Patch, Unit, Winners
from tlcli.progress import Reporter, Silent
from tlcli.reports.inspection import LayerSection, UnitCard, as_jpeg, as_png, data_uri, inspect_page
from tlcli.settings import InspectSettings


@dataclass(frozen=True, kw_only=True)
class InspectedLayer:
    """What was shown of a layer."""

    number: int
    name: str
    units: tuple[int, ...]
    """Numbers of the units shown, the most selective first."""
    alive: int
    """Units that don't answer every picture alike."""
    of: int
    """Units there are."""
    file: str
    """The picture, below `out`."""


@dataclass(frozen=True, kw_only=True)
class InspectResult:
    """What was looked at, and where it lies."""

    out: Path
    network: str
    layers: tuple[InspectedLayer, ...]
    images: int
    copies: int
    """Pictures that were byte-identical to others, and counted once."""
    failures: dict[str, str]
    """Why pictures were left out, by path."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "out": portable_name(str(self.out)),
            "network": self.network,
            "layers": [
                {
                    "number": layer.number,
                    "name": layer.name,
                    "units": list(layer.units),
                    "alive": layer.alive,
                    "of": layer.of,
                    "file": layer.file,
                }
                for layer in self.layers
            ],
            "units": sum(len(layer.units) for layer in self.layers),
            "images": self.images,
            "copies": self.copies,
            "failed": len(self.failures),
            "failures": [{"path": path, "error": reason} for path, reason in self.failures.items()],
            "seconds": round(self.seconds, 3),
        }


def inspect(settings: InspectSettings, report: Reporter | None = None) -> InspectResult:
    """Find and draw what excites the units of some layers most, among the training pictures of DATA.

    Raises:
        UsageError: no such backbone or layer, or `out` exists already.
        DataError: DATA is missing or unusable, or none of it can be read.
        ArtifactError: run or weights are broken.
        MachineError: no room, no permission, no such device, or weights that would need a network.
    """
    report = report or Silent()
    started = time.monotonic()
    out = settings.out or Path("inspect") / subject_name(settings.network)
    target = inspect_folder(out)
    target.check(replace=settings.overwrite)
    dataset = open_dataset(settings.data)
    describe_dataset(dataset, report)
    samples = [sample for sample in dataset.samples if sample.split in {None, "train"}]
    subject = open_subject(settings)
    taps = choose_taps(subject.backbone, settings.layers)
    side = subject.preprocessing.width
    report.note(f"{subject.backbone.name}, {subject.origin}, {side} px, {subject.device}, fp32")
    paths = [sample.path for sample in samples]
    found = scan(subject, taps, paths, settings.compute, report)
    if len(found.failures) == len(samples):
        raise DataError(f"none of the {len(samples):,} training pictures of {dataset.root} can be read.")
    studio = _Studio(settings, subject, dataset, samples, report)
    with target.filled(replace=settings.overwrite) as folder:
        layers = studio.write(folder, taps, found)
    failures = found.failures | studio.winners.failures
    describe_failures(Dataset(root=dataset.root, samples=tuple(samples), classes=(), skipped={}), failures, report)
    return InspectResult(
        out=out,
        network=subject.backbone.name,
        layers=layers,
        images=len(samples),
        copies=found.copies,
        failures={portable_name(paths[number]): reason for number, reason in sorted(failures.items())},
        seconds=time.monotonic() - started,
    )


class _Studio:
    """Draws what the first pass found: a picture a layer, a line a patch, and the page."""

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

    def write(self, folder: Path, taps: Sequence[Tap], found: Scan) -> tuple[InspectedLayer, ...]:
        """Write all files of the folder."""
        chosen = [top.most_selective(self._settings.units) for top in found.tops]
        wanted = {
            int(number)
            for top, units in zip(found.tops, chosen, strict=True)
            for number in top.pictures[units].flat
            if number >= 0
        }
        preprocessing = self._subject.preprocessing
        self._sources = sources(self._paths, wanted, preprocessing, self._settings.compute.worker_count())
        layers, sections = [], []
        with (folder / PATCHES).open("w", encoding="utf8", errors="backslashreplace") as lines:
            for tap, top, units in zip(taps, found.tops, chosen, strict=True):
                section, rows = self._layer(folder, tap, top, units)
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                sections.append(section)
                file = sheet_name(tap.layer.number, tap.layer.name)
                layers.append(
                    InspectedLayer(
                        number=section.number,
                        name=section.name,
                        units=tuple(unit.number for unit in section.units),
                        alive=section.alive,
                        of=section.of,
                        file=file,
                    )
                )
        seen = found.tops[0].seen
        lead = (
            f"{self._subject.backbone.name}, {self._subject.origin}. {seen:,} training pictures of "
            f"{portable_name(str(self._dataset.root))} at {preprocessing.width} x {preprocessing.height} pixels."
        )
        page = inspect_page(
            name=self._subject.name,
            lead=lead,
            layers=sections,
            thumbnails={str(number): data_uri(source.thumbnail, "jpeg") for number, source in self._sources.items()},
            kept=KEPT,
        )
        (folder / PAGE).write_bytes(page.encode("utf8", "backslashreplace"))
        return tuple(layers)

    def _layer(
        self, folder: Path, tap: Tap, top: RunningTop, units: Sequence[int]
    ) -> tuple[LayerSection, list[dict[str, Any]]]:
        """Draw a layer: its section of the page, and its lines."""
        sheet, cards, lines = Sheet(tap, len(units)), [], []
        for found in self.winners.units(tap, top, units):
            readable = tuple(patch for patch in found.patches if patch.picture in self._sources)
            unit = replace(found, patches=readable)
            patches, projections = grids(unit, tap.sight)
            sheet.add(unit, patches, projections)
            rows = [self._row(tap, unit, patch) for patch in unit.patches]
            lines += rows
            cards.append(
                UnitCard(
                    number=unit.number,
                    selectivity=unit.selectivity,
                    patches=as_jpeg(patches),
                    projections=as_jpeg(projections),
                    rows=[row | self._of_page(patch) for row, patch in zip(rows, unit.patches, strict=True)],
                )
            )
        sheet.picture.save(folder / sheet_name(tap.layer.number, tap.layer.name), "PNG")
        filters = self._filters(folder) if tap.layer.number == 1 else None
        section = LayerSection(
            number=tap.layer.number,
            name=tap.layer.name,
            facts=facts(tap),
            units=cards,
            alive=len(top.most_selective(tap.layout.units)),
            of=tap.layout.units,
            mapped=tap.sight.field is None and tap.sight.places != (1, 1),
            filters=None if filters is None else as_png(filters),
            plain=tap.layer.name in self.winners.unguided,
        )
        return section, lines

    def _filters(self, folder: Path) -> Image.Image | None:
        found = first_filters(self._subject.backbone.model, self._subject.preprocessing.channels)
        if found is None:
            return None
        sheet = filter_sheet(found)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        (folder / FILTERS).write_bytes(file.getvalue())
        return sheet

    def _row(self, tap: Tap, unit: Unit, patch: Patch) -> dict[str, Any]:
        """A line of `units.jsonl`."""
        sample, source = self._samples[patch.picture], self._sources[patch.picture]
        return {
            "layer": tap.layer.number,
            "layer_name": tap.layer.name,
            "unit": unit.number,
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
        return {"picture": patch.picture, "size": list(self._sources[patch.picture].placement.size)}
