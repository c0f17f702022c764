"""export: a run for use without tlcli, compared with the original before it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlcli.backbones.build import Backbone
from tlcli.errors import UsageError
from tlcli.exporting import onnx_file, timm_folder, torch_program
from tlcli.exporting.calibrated_network import Calibrated, describe, input_name
from tlcli.exporting.comparison import Comparison, Exported, Tolerance, check, compare, tolerance
from tlcli.exporting.comparison_images import ComparisonImages, data_of, real_images
from tlcli.exporting.int8 import quantized
from tlcli.exporting.model_card import model_card
from tlcli.inference.load_network import load_network
from tlcli.inference.predictor import Predictor
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import ComputeSettings, ExportSettings
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.folders import exclusive_write
from tlcli.storage.outputs import Target, published
from tlcli.storage.urls import Location

CALIBRATION = 256
"""Images by which `--int8` measures the ranges of activations."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, and how near it comes."""

    out: Location
    form: str
    size: int
    """Bytes, of all files."""
    comparison: Comparison
    limits: Tolerance
    calibrated_on: int | None
    """UsableImages, with `--int8`."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        found = self.comparison
        int8 = {
            "calibrated_on": self.calibrated_on,
            "accuracy_before": found.accuracy_before,
            "accuracy_after": found.accuracy_after,
        }
        return {
            "out": portable_name(str(self.out)),
            "format": self.form,
            "max_difference": found.max_difference,
            "agreement": found.agreement,
            "tolerance": {"max_difference": self.limits.difference, "agreement": self.limits.agreement},
            "images": found.images,
            "held_out": found.held_out,
            "int8": None if self.calibrated_on is None else int8,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
        }


def export(settings: ExportSettings, report: Reporter | None = None) -> ExportResult:
    """Write a run for use without tlcli, once it has said the same as the run on real images.

    Raises:
        UsageError: the output exists, the format can't hold this network, or there are no images to compare on.
        DataError: DATA is unusable.
        ArtifactError: the run is broken, its network can't be exported, or the export says something else.
        MachineError: no room, no permission, no memory.
    """
    report = report or Silent()
    run = load_run(settings.run)
    place = settings.out or Path(run.directory.resolve().name + settings.suffix())
    data = data_of(run, settings.data)
    for read, what in ((settings.run, "the run"), (data, "DATA")):
        check_outside("--out", place, read, what)
    folder = timm_folder.timm_folder(Path(place.name))
    output = folder.as_target() if settings.form == "timm" else Target(option="--out")
    with published(place, output, report, overwrite=settings.overwrite) as out:
        return replace(_export(run, data, replace(settings, out=place), out, report), out=place)


def _export(run: Run, data: Location, settings: ExportSettings, out: Path, report: Reporter) -> ExportResult:
    started = time.monotonic()
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}. Make it first.")
    if settings.form == "timm":
        timm_folder.check_known(run)
        timm_folder.timm_folder(out).check(replace=settings.overwrite)
    else:
        check_new_file("--out", out, replace=settings.overwrite, inputs=[data])
    backbone = load_network(run)
    if settings.form == "onnx":
        onnx_file.check_size(backbone.model)
    report.note(
        f"{run.info['backbone']}, {len(run.classes)} classes, to {settings.form}: {portable_name(str(settings.out))}"
    )
    images = _images(run, data, settings, report)
    limits = tolerance(run, int8=settings.int8)

    def judge(exported: Exported) -> Comparison:
        predictor = Predictor(run, ComputeSettings(device="cpu", workers=settings.worker_count()), report)
        with report.task("Compare", len(images.pixels)) as advance:
            found = compare(predictor, exported, images, advance)
        check(found, limits)
        return found

    if settings.form == "timm":
        found, size = _to_timm(run, out, judge, overwrite=settings.overwrite)
    else:
        make = _onnx if settings.form == "onnx" else _torch
        content, exported = make(run, backbone, settings, images, report)
        found, size = judge(exported), len(content)
        with exclusive_write(out, report) as file:
            file.write(content)
    return ExportResult(
        out=out,
        form=settings.form,
        size=size,
        comparison=found,
        limits=limits,
        calibrated_on=len(images.calibration) if settings.int8 else None,
        seconds=time.monotonic() - started,
    )


def _images(run: Run, data: Location, settings: ExportSettings, report: Reporter) -> ComparisonImages:
    images = real_images(
        run,
        data,
        wanted=settings.image_count(),
        calibrating=CALIBRATION if settings.int8 else 0,
        workers=settings.worker_count(),
    )
    count = len(images.pixels)
    seen = "" if images.held_out == count else f", {count - images.held_out:,} of them trained on"
    if isinstance(data, Path) and data.is_relative_to(Path.cwd()):
        data = data.relative_to(Path.cwd())
    report.note(f"Images  {count:,} of {portable_name(str(data))} to compare on{seen}")
    return images


Made = tuple[bytes, Exported]
"""A file's content, and what it says once it is loaded."""


def _onnx(run: Run, backbone: Backbone, settings: ExportSettings, images: ComparisonImages, report: Reporter) -> Made:
    asked, entry = settings.with_preprocessing, input_name(with_preprocessing=settings.with_preprocessing)
    report.note("Export    the network, for ONNX")
    network = Calibrated(backbone, run, with_preprocessing=asked)
    traced = torch_program.trace(network, run.preprocessing, with_preprocessing=asked)
    model = onnx_file.onnx_model(traced, entry)
    if settings.int8:
        report.note(f"Quantize  to 8 bits, calibrated on {len(images.calibration):,} training images")
        model = quantized(model, entry, images.calibration, run.preprocessing)
    content = onnx_file.onnx_file(model, describe(run, with_preprocessing=asked))
    return content, onnx_file.run_onnx_file(content, entry, run.preprocessing)


def _torch(run: Run, backbone: Backbone, settings: ExportSettings, images: ComparisonImages, report: Reporter) -> Made:
    del images
    asked = settings.with_preprocessing
    report.note("Export    the network, by torch.export")
    network = Calibrated(backbone, run, with_preprocessing=asked)
    traced = torch_program.trace(network, run.preprocessing, with_preprocessing=asked)
    content = torch_program.torch_file(traced, describe(run, with_preprocessing=asked))
    return content, torch_program.run_torch_file(content, run.preprocessing, with_preprocessing=asked)


def _to_timm(
    run: Run, out: Path, judge: Callable[[Exported], Comparison], *, overwrite: bool
) -> tuple[Comparison, int]:
    config = timm_folder.export_config(run, describe(run, with_preprocessing=False))
    card = model_card(run, out.absolute().name)
    with timm_folder.timm_folder(out).publish(replace=overwrite) as folder:
        timm_folder.fill(folder, run, config, card)
        found = judge(timm_folder.run_timm_folder(folder, run))
        return found, sum(path.stat().st_size for path in folder.iterdir())
