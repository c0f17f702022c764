"""`tlcli inspect`: show the image patches that activate a network's units most (Zeiler & Fergus 2013)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcli.datasets.corrections import AppliedCorrections
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import describe_dataset, describe_failures
from tlcli.datasets.intensity_measurement import resolve_intensity
from tlcli.errors import DataError, UsageError, first_reasons
from tlcli.features.file_digests import DigestReader
from tlcli.insight.activation_taps import choose_taps, tap_stages
from tlcli.insight.units.activation_scan import scan_activations
from tlcli.insight.units.inspect_report import InspectReport
from tlcli.insight.units.inspected_network import load_inspected_network, network_name
from tlcli.insight.units.output_folder import inspect_folder, sheet_name
from tlcli.insight.units.top_patches import TopPatches
from tlcli.progress import Reporter, Silent
from tlcli.runs.directory import is_run
from tlcli.settings import InspectSettings
from tlcli.storage.files import check_outside, portable_name
from tlcli.storage.outputs import published
from tlcli.storage.urls import Location


@dataclass(frozen=True, kw_only=True)
class InspectedLayer:
    """A layer, and which of its units are shown."""

    number: int
    name: str
    units: tuple[int, ...]
    """Indices of the units shown, the most selective first."""
    alive: int
    """Units that are not dead, that is, whose activation is not the same for every image."""
    of: int
    """All units of the layer."""
    compared: bool
    """Whether units are shown before and after fine-tuning."""
    file: str
    """File name of the layer's PNG in `out`."""


@dataclass(frozen=True, kw_only=True)
class InspectResult:
    """What was inspected, and where the output is."""

    out: Location
    network: str
    layers: tuple[InspectedLayer, ...]
    images: int
    copies: int
    """Images that were byte-identical to earlier ones, and therefore skipped."""
    failures: dict[str, str]
    """Reasons why images were left out, by path."""
    corrections: AppliedCorrections | None
    """The labels of DATA that were corrected."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object for `--json`."""
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
            "corrections": self.corrections.to_json() if self.corrections else None,
            "seconds": round(self.seconds, 3),
        }


def inspect(settings: InspectSettings, report: Reporter | None = None) -> InspectResult:
    """Find and draw the patches of the training images in DATA that activate the units of some layers most.

    Raises:
        UsageError: there is no such backbone or layer, or `out` exists.
        DataError: DATA is missing or unusable, or no image of it can be read.
        ArtifactError: the run or the weights are invalid.
        MachineError: the disk is full, permission is denied, there is no such device, or the weights would have to be
            downloaded.
    """
    report = report or Silent()
    destination = settings.out or Path("inspect") / network_name(settings.network)
    check_outside("--out", destination, settings.data, "DATA")
    output = inspect_folder(Path(destination.name)).as_target()
    with published(destination, output, report, overwrite=settings.overwrite) as out:
        return replace(_inspect(settings, out, report), out=destination)


def _inspect(settings: InspectSettings, out: Path, report: Reporter) -> InspectResult:
    started = time.monotonic()
    target = inspect_folder(out)
    _check_backbone_options(settings)
    target.check(replace=settings.overwrite)
    workers, batch_size = settings.compute.worker_count(), settings.compute.batch_size
    corrections = DigestReader(None, workers=workers, report=report).corrections(settings.corrections)
    dataset = open_dataset(settings.data, filters=settings.filters, columns=settings.columns, corrections=corrections)
    describe_dataset(dataset, report)
    samples = [sample for sample in dataset.samples if sample.split in {None, "train"}]
    intensity = resolve_intensity(settings.intensity, dataset, fraction=None, seed=0, workers=workers, report=report)
    network = load_inspected_network(
        settings.network,
        device=settings.compute.device,
        weights=settings.weights,
        size=settings.size,
        fit=settings.fit,
        intensity=intensity,
    )
    taps = tap_stages(
        choose_taps(network.backbone, settings.layers), frozen=network.frozen, compare=network.initial is not None
    )
    side = network.preprocessing.width
    report.note(f"{network.backbone.name}, {network.origin}, {side} px, {network.device}, fp32")
    if network.remark:
        report.note(network.remark)
    paths = [sample.path for sample in samples]
    scan = scan_activations(network, taps, paths, workers=workers, batch_size=batch_size, report=report)
    if len(scan.failures) == len(samples):
        reasons = first_reasons((portable_name(paths[number]), why) for number, why in sorted(scan.failures.items()))
        raise DataError(f"none of the {len(samples):,} training images of {dataset.root} can be used: {reasons}")
    top_patches = TopPatches(network, paths, workers=workers, batch_size=batch_size, report=report)
    inspect_report = InspectReport(network, dataset, samples, top_patches, units=settings.units, workers=workers)
    with target.publish(replace=settings.overwrite) as folder:
        sections = inspect_report.write(folder, taps, scan)
    failures = scan.failures | top_patches.failures
    describe_failures(Dataset(root=dataset.root, samples=tuple(samples), classes=(), skipped={}), failures, report)
    return InspectResult(
        out=out,
        network=network.backbone.name,
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
        copies=scan.copies,
        failures={portable_name(paths[number]): reason for number, reason in sorted(failures.items())},
        corrections=dataset.corrections,
        seconds=time.monotonic() - started,
    )


def _check_backbone_options(settings: InspectSettings) -> None:
    """Refuse options for building a backbone if the network is that of a run.

    Raises:
        UsageError: the network is that of a run and such an option is given.
    """
    given = {
        "--size": settings.size,
        "--weights": settings.weights,
        "--fit": settings.fit,
        "--intensity": settings.intensity,
    }
    for option, value in given.items():
        if value is not None and is_run(settings.network):
            raise UsageError(f"{option} has no effect on a run, which records its own. Remove the option.")
