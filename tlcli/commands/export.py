"""`tlcli export`: write a run for use without tlcli, after comparing the export with the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlcli.backbones.backbone import Backbone
from tlcli.datasets.dataset import open_dataset
from tlcli.engines.openvino_session import check_openvino
from tlcli.errors import UsageError
from tlcli.exporting import onnx_file, openvino_folder, timm_folder, torch_program
from tlcli.exporting.calibrated_network import export_metadata
from tlcli.exporting.comparison import (
    Comparison,
    ExportedNetwork,
    Tolerance,
    check_comparison,
    compare_with_run,
    export_tolerance,
)
from tlcli.exporting.comparison_images import (
    ComparisonImages,
    comparison_data,
    load_comparison_images,
    recorded_columns,
    recorded_corrections,
    recorded_patterns,
)
from tlcli.exporting.fp16 import check_fp16_range, convert_to_fp16
from tlcli.exporting.model_card import model_card
from tlcli.exporting.network_input import NetworkInput
from tlcli.exporting.onnx_model import calibrated_network, onnx_model
from tlcli.features.file_digests import DigestReader
from tlcli.inference.load_network import load_network
from tlcli.inference.novelty import NO_NOVELTY
from tlcli.inference.predictor import Predictor
from tlcli.progress import Reporter, Silent
from tlcli.runs.run import Run, load_run
from tlcli.settings import ExportSettings, PathPatterns
from tlcli.settings.export import ONNX_FORMATS
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.folders import AtomicFolder, exclusive_write
from tlcli.storage.outputs import Target, published
from tlcli.storage.urls import Location

CALIBRATION_IMAGES = 256
"""Images on which `--int8` measures the ranges of activations."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The result of export: what was written, and how much it differs from the run."""

    out: Location
    form: str
    size: int
    """Total size of the files, in bytes."""
    comparison: Comparison
    bf16: Comparison | None
    """The same for OpenVINO IR computed in bf16; None for other formats, or if this processor cannot."""
    limits: Tolerance
    """How much the export may differ."""
    calibrated_on: int | None
    """Number of calibration images with `--int8`, otherwise None."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        comparison = self.comparison
        int8 = {
            "calibrated_on": self.calibrated_on,
            "accuracy_before": comparison.accuracy_before,
            "accuracy_after": comparison.accuracy_after,
        }
        return {
            "out": portable_name(str(self.out)),
            "format": self.form,
            "max_difference": comparison.max_difference,
            "agreement": comparison.agreement,
            "bf16": self.bf16 and {"max_difference": self.bf16.max_difference, "agreement": self.bf16.agreement},
            "novelty_difference": comparison.novelty_difference,
            "tolerance": {"max_difference": self.limits.difference, "agreement": self.limits.agreement},
            "images": comparison.images,
            "held_out": comparison.held_out,
            "int8": None if self.calibrated_on is None else int8,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
        }


def export(settings: ExportSettings, report: Reporter | None = None) -> ExportResult:
    """Write a run for use without tlcli, if the export agrees with the run on real images.

    Args:
        settings: The run, the format, the output, and the images to compare on.
        report: Receives progress and notes.

    Raises:
        UsageError: The output exists, the format does not support the network, or there are no images to compare on.
        DataError: DATA is unusable.
        ArtifactError: The run is damaged, its network cannot be exported, or the export differs too much from it.
        MachineError: Disk space or memory ran out, or permission was denied.
    """
    report = report or Silent()
    run = load_run(settings.run)
    out = settings.out or Path(run.directory.resolve().name + settings.suffix())
    data = comparison_data(run, settings.data)
    for source, name in ((settings.run, "the run"), (data, "DATA")):
        check_outside("--out", out, source, name)
    folder = _folder(settings, Path(out.name))
    target = Target(option="--out") if folder is None else folder.as_target()
    with published(out, target, report, overwrite=settings.overwrite) as path:
        started = time.monotonic()
        _check_output(path, run, data, settings)
        backbone = load_network(run)
        if settings.form in ONNX_FORMATS:
            onnx_file.check_onnx_size(backbone.model)
        classes = len(run.classes)
        report.note(f"{run.info['backbone']}, {classes} classes, to {settings.form}: {portable_name(str(out))}")
        images = _load_images(run, data, settings, report)
        compare = partial(_compare, run, settings, images, report)
        bf16 = None
        if settings.form == "timm":
            comparison, size = _export_timm(run, path, compare, overwrite=settings.overwrite)
        elif settings.form == "openvino":
            comparison, bf16, size = _export_openvino(run, backbone, path, settings, images, report)
        else:
            content, exported = _export_file(run, backbone, settings, images, report)
            comparison, size = compare(exported), len(content)
            with exclusive_write(path, report) as file:
                file.write(content)
        return ExportResult(
            out=out,
            form=settings.form,
            size=size,
            comparison=comparison,
            bf16=bf16,
            limits=export_tolerance(run, settings.precision()),
            calibrated_on=len(images.calibration) if settings.int8 else None,
            seconds=time.monotonic() - started,
        )


def _folder(settings: ExportSettings, path: Path) -> AtomicFolder | None:
    """Return the folder to write, or None for formats that are one file."""
    match settings.form:
        case "timm":
            return timm_folder.timm_folder(path)
        case "openvino":
            return openvino_folder.openvino_folder(path)
        case _:
            return None


def _check_output(path: Path, run: Run, data: Location, settings: ExportSettings) -> None:
    """Check that the output can be written, before anything is computed."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}. Create it first.")
    if settings.with_novelty and not run.has_novelty:
        raise UsageError(f"--with-novelty has no effect: {settings.run} {NO_NOVELTY}. Train again, or omit the option.")
    if settings.form == "timm":
        timm_folder.check_timm_support(run)
    if settings.form == "openvino":
        check_openvino("--format")
    if folder := _folder(settings, path):
        folder.check(replace=settings.overwrite)
    else:
        check_new_file("--out", path, replace=settings.overwrite, inputs=[data])


def _load_images(run: Run, data: Location, settings: ExportSettings, report: Reporter) -> ComparisonImages:
    """Load the images to compare on and, with `--int8`, to calibrate with."""
    filters, columns, corrected = settings.filters, settings.columns, None
    if settings.data is None:  # the run's training data, which was read with the run's own options
        filters = recorded_patterns(run) if filters == PathPatterns() else filters
        columns = columns if columns.given() else recorded_columns(run)
        corrected = recorded_corrections(run)
    digests = DigestReader(None, workers=settings.worker_count(), report=report)
    corrections = digests.corrections(corrected)
    images = load_comparison_images(
        run,
        open_dataset(data, classes=run.classes, filters=filters, columns=columns, corrections=corrections),
        compare=settings.image_count(),
        calibrate=CALIBRATION_IMAGES if settings.int8 else 0,
        workers=settings.worker_count(),
    )
    count = len(images.pixels)
    trained_on = "" if images.held_out == count else f", {count - images.held_out:,} of them training images"
    if isinstance(data, Path) and data.is_relative_to(Path.cwd()):
        data = data.relative_to(Path.cwd())
    report.note(f"Images    {count:,} from {portable_name(str(data))} to compare on{trained_on}")
    return images


def _compare(
    run: Run,
    settings: ExportSettings,
    images: ComparisonImages,
    report: Reporter,
    exported: ExportedNetwork,
    *,
    refuse: bool = True,
) -> Comparison:
    """Compare an export with the run, and with `refuse` refuse it if it differs too much."""
    engine = "onnx" if run.is_openvino_bf16 else "auto"  # the export is in fp32
    predictor = Predictor(run, device="cpu", engine=engine, workers=settings.worker_count(), report=report)
    with report.task("Compare", len(images.pixels)) as advance:
        comparison = compare_with_run(predictor, exported, images, advance)
    if refuse:
        check_comparison(comparison, export_tolerance(run, settings.precision()))
    return comparison


def _export_file(
    run: Run, backbone: Backbone, settings: ExportSettings, images: ComparisonImages, report: Reporter
) -> tuple[bytes, ExportedNetwork]:
    """Export to ONNX or torch.

    Returns:
        The content of the file, and the network loaded from it.
    """
    network, network_input = calibrated_network(run, backbone, settings)
    metadata = export_metadata(run, network_input)
    if settings.form == "torch":
        report.note("Export    the network, with torch.export")
        content = torch_program.serialize_program(torch_program.export_program(network, network_input), metadata)
        return content, torch_program.load_program(content, network_input)
    model = onnx_model(network, network_input, settings, images.calibration, report)
    if settings.fp16:
        report.note("Convert   to 16 bits")
        model = convert_to_fp16(model)
        check_fp16_range(model, network_input, images.pixels)
    content = onnx_file.serialize_onnx(model, metadata)
    return content, onnx_file.load_onnx(content, network_input, network.outputs)


def _export_openvino(
    run: Run,
    backbone: Backbone,
    path: Path,
    settings: ExportSettings,
    images: ComparisonImages,
    report: Reporter,
) -> tuple[Comparison, Comparison | None, int]:
    """Write the folder with OpenVINO IR.

    Returns:
        The comparison in fp32, that in bf16 if this processor can, and the total size of the files in bytes.
    """
    network, network_input = calibrated_network(run, backbone, settings)
    model = onnx_model(network, network_input, settings, images.calibration, report)
    card = model_card(run, path.absolute().name, network_input)
    with openvino_folder.openvino_folder(path).publish(replace=settings.overwrite) as folder:
        report.note("Convert   to OpenVINO")
        metadata = export_metadata(run, network_input)
        openvino_folder.write_openvino_files(folder, model, metadata, card, fp16=settings.fp16)
        fp32, bf16 = (
            openvino_folder.load_openvino(folder, network_input, network.outputs, precision)
            for precision in ("f32", "bf16")
        )
        assert fp32 is not None, "every processor computes in fp32"
        comparison = _compare(run, settings, images, report, fp32)
        in_bf16 = bf16 and _compare(run, settings, images, report, bf16, refuse=False)
        if in_bf16:
            report.note(
                f"In bf16   probabilities differ by up to {in_bf16.max_difference:.2g}, "
                f"{100 * in_bf16.agreement:.1f} % of labels agree. OpenVINO computes so by default on this processor."
            )
        return comparison, in_bf16, sum(file.stat().st_size for file in folder.iterdir())


def _export_timm(
    run: Run, path: Path, compare: Callable[[ExportedNetwork], Comparison], *, overwrite: bool
) -> tuple[Comparison, int]:
    """Write the folder for timm.

    Returns:
        The comparison, and the total size of the files in bytes.
    """
    network_input = NetworkInput(preprocessing=run.preprocessing, takes_pixels=False)
    config = timm_folder.timm_folder_config(run, export_metadata(run, network_input))
    card = model_card(run, path.absolute().name)
    with timm_folder.timm_folder(path).publish(replace=overwrite) as folder:
        timm_folder.write_timm_files(folder, run, config, card)
        comparison = compare(timm_folder.load_timm_folder(folder, run))
        return comparison, sum(file.stat().st_size for file in folder.iterdir())
