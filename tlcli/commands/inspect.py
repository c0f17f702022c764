"""inspect: the images that excite a network's units most, and what in them does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset, describe_failures
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.errors import DataError
from tlcli.insight.output_folder import inspect_folder, sheet_name
from tlcli.insight.report import Studio
from tlcli.insight.scan import scan
from tlcli.insight.subject import open_subject, refuse_options_of_backbones, subject_name
from tlcli.insight.units import choose_taps, stages
from tlcli.progress import Reporter, Silent
from tlcli.settings import InspectSettings
from tlcli.storage.files import check_outside, portable_name
from tlcli.storage.outputs import published
from tlcli.storage.urls import Location


@dataclass(frozen=True, kw_only=True)
class InspectedLayer:
    """What was shown of a layer."""

    number: int
    name: str
    units: tuple[int, ...]
    """Numbers of the units shown, the most selective first."""
    alive: int
    """Units that don't answer every image alike."""
    of: int
    """Units there are."""
    compared: bool
    """Units are shown before and after fine-tuning."""
    file: str
    """The image, below `out`."""


@dataclass(frozen=True, kw_only=True)
class InspectResult:
    """What was looked at, and where it lies."""

    out: Location
    network: str
    layers: tuple[InspectedLayer, ...]
    images: int
    copies: int
    """Images that were byte-identical to others, and counted once."""
    failures: dict[str, str]
    """Why images were left out, by path."""
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
                    "compared": layer.compared,
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
    """Find and draw what excites the units of some layers most, among the training images of DATA.

    Raises:
        UsageError: no such backbone or layer, or `out` exists already.
        DataError: DATA is missing or unusable, or none of it can be read.
        ArtifactError: run or weights are broken.
        MachineError: no room, no permission, no such device, or weights that would need a network.
    """
    report = report or Silent()
    place = settings.out or Path("inspect") / subject_name(settings.network)
    check_outside("--out", place, settings.data, "DATA")
    output = inspect_folder(Path(place.name)).as_target()
    with published(place, output, report, overwrite=settings.overwrite) as out:
        return replace(_inspect(settings, out, report), out=place)


def _inspect(settings: InspectSettings, out: Path, report: Reporter) -> InspectResult:
    started = time.monotonic()
    target = inspect_folder(out)
    refuse_options_of_backbones(settings)
    target.check(replace=settings.overwrite)
    dataset = open_dataset(settings.data)
    describe_dataset(dataset, report)
    samples = [sample for sample in dataset.samples if sample.split in {None, "train"}]
    workers = settings.compute.worker_count()
    intensity = resolve_intensity(settings.intensity, dataset, fraction=None, seed=0, workers=workers, report=report)
    subject = open_subject(settings, intensity)
    taps = stages(
        choose_taps(subject.backbone, settings.layers), frozen=subject.frozen, compare=subject.start is not None
    )
    side = subject.preprocessing.width
    report.note(f"{subject.backbone.name}, {subject.origin}, {side} px, {subject.device}, fp32")
    if subject.remark:
        report.note(subject.remark)
    paths = [sample.path for sample in samples]
    found = scan(subject, taps, paths, settings.compute, report)
    if len(found.failures) == len(samples):
        raise DataError(f"none of the {len(samples):,} training images of {dataset.root} can be read.")
    studio = Studio(settings, subject, dataset, samples, report)
    with target.publish(replace=settings.overwrite) as folder:
        sections = studio.write(folder, taps, found)
    failures = found.failures | studio.winners.failures
    describe_failures(Dataset(root=dataset.root, samples=tuple(samples), classes=(), skipped={}), failures, report)
    return InspectResult(
        out=out,
        network=subject.backbone.name,
        layers=tuple(
            InspectedLayer(
                number=section.number,
                name=section.name,
                units=tuple(unit.number for unit in section.units),
                alive=section.alive,
                of=section.of,
                compared=section.compared,
                file=sheet_name(section.number, section.name),
            )
            for section in sections
        ),
        images=len(samples),
        copies=found.copies,
        failures={portable_name(paths[number]): reason for number, reason in sorted(failures.items())},
        seconds=time.monotonic() - started,
    )
