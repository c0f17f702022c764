"""`tlcli augment`: write a dataset in which each training image has augmented copies; classes and splits stay."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlcli.datasets.augment_signature import SIGNATURE_FILE, check_out, check_signature, record_signature, signature_of
from tlcli.datasets.augmented_dataset import AugmentedImage, check_class_folder_names, plan_augmented_dataset
from tlcli.datasets.dataset import Dataset, open_dataset
from tlcli.datasets.descriptions import count_groups, describe_dataset, describe_failures
from tlcli.errors import UsageError
from tlcli.features.file_digests import DigestReader
from tlcli.images.augment import draw_parameters
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import MAX_BYTES, DecodeOptions
from tlcli.inference.row_files import write_csv
from tlcli.progress import Reporter, Silent
from tlcli.reports.contact_sheet import contact_sheet
from tlcli.settings import SPLITS, AugmentSettings, intensity_range
from tlcli.settings.grouping import NO_GROUPS, check_split_options, group_pattern
from tlcli.storage.files import check_new_file, check_outside, portable_name
from tlcli.storage.folders import exclusive_write
from tlcli.storage.locks import lock_output
from tlcli.storage.outputs import Target, published_if
from tlcli.storage.publish import atomic_write, remove_temporary_files
from tlcli.storage.reading import UnreadableError, open_image_file
from tlcli.storage.urls import lies_in

MANIFEST = "manifest.csv"
"""Written last: one row per image. A dataset without it is incomplete."""

OUTPUT_DATASET = Target(
    option="--out",
    last=MANIFEST,
    foreign=lambda names: next(
        (name for name in names if name.partition("/")[0] not in {*SPLITS, SIGNATURE_FILE, MANIFEST}), None
    ),
    wanted={SIGNATURE_FILE, MANIFEST}.__contains__,
)

ROW_COLUMNS = ("path", "label", "split", "source", "digest", "view", "parameters", "group")


def augment(settings: AugmentSettings, report: Reporter | None = None) -> dict[str, Any]:
    """Write DATA's images and views 1 to `copies` of the training images to `out`, and draw the preview.

    Returns:
        The object of `--json`: out, images, written, seconds, splits, failed, failures, preview; and `was_finished` if
        `resume` found nothing to do.

    Raises:
        UsageError: `out` or `preview` already exists, or `out` is inside DATA or contains it.
        DataError: DATA is missing or unusable, or no validation images can be held out.
        ArtifactError: The dataset to resume was started with different settings or images.
        MachineError: The disk is full, permission is missing, or another process is writing `out`.
    """
    report = report or Silent()
    if settings.preview is not None:
        check_outside("--preview", settings.preview, settings.data, "DATA")
    if settings.out is not None and (lies_in(settings.out, settings.data) or lies_in(settings.data, settings.out)):
        raise UsageError(
            f"one of --out {settings.out} and DATA {settings.data} contains the other, so their images would be "
            "mixed. Choose a separate folder."
        )
    again = settings.overwrite or settings.resume
    with (
        published_if(settings.preview, Target(option="--preview"), report, overwrite=again) as preview,
        published_if(settings.out, OUTPUT_DATASET, report, resume=settings.resume) as out,
        _lock_unfinished(out, report),
    ):
        return _augment(settings, out, preview, report)


def _augment(settings: AugmentSettings, out: Path | None, preview: Path | None, report: Reporter) -> dict[str, Any]:
    started = time.monotonic()
    if preview is not None:
        check_new_file("--preview", preview, replace=settings.overwrite or settings.resume)
    if out is not None:
        check_out(out, settings)
    dataset = _open_data(settings, report)
    if preview is not None:  # a table may name images anywhere
        images = (sample.path for sample in dataset.samples)
        check_new_file("--preview", preview, replace=True, inputs=images)
    result: dict[str, Any] = {
        "out": None if settings.out is None else str(settings.out),
        "images": len(dataset.samples),
        "written": 0,
        "splits": {},
        "preview": None if settings.preview is None else str(settings.preview),
        "failed": 0,
        "failures": [],
        "corrections": dataset.corrections.to_json() if dataset.corrections else None,
    }
    if out is not None:
        describe_dataset(dataset, report)
        check_class_folder_names(dataset.classes)
        outputs, failures = plan_augmented_dataset(
            dataset,
            copies=settings.copies,
            seed=settings.seed,
            workers=settings.compute.worker_count(),
            report=report,
            similar=_similar_images(dataset, settings, report),
        )
        signature = signature_of(settings, outputs)
        if (out / MANIFEST).exists():
            check_signature(out, signature, settings)
            result["was_finished"] = True
        else:
            failures |= _write_dataset(out, outputs, signature, settings, report)
            describe_failures(dataset, failures, report)
            _write_manifest(out, dataset, outputs, settings)
            result["failed"] = len(failures)
            result["failures"] = [
                {"path": portable_name(dataset.samples[index].path), "error": reason}
                for index, reason in sorted(failures.items())
            ]
        result |= _count_images(out)
    if preview is not None:
        sheet = contact_sheet(
            dataset,
            settings.augmentation,
            seed=settings.seed,
            workers=settings.compute.worker_count(),
            intensity=intensity_range(settings.intensity),
        )
        with exclusive_write(preview, report) as file:
            sheet.save(file, "PNG", optimize=True)
    return result | {"seconds": round(time.monotonic() - started, 3)}


def _open_data(settings: AugmentSettings, report: Reporter) -> Dataset:
    digests = DigestReader(None, workers=settings.compute.worker_count(), report=report)
    return open_dataset(
        settings.data,
        group_by=group_pattern(settings.group_by),
        filters=settings.filters,
        columns=settings.columns,
        corrections=digests.corrections(settings.corrections),
    )


def _lock_unfinished(out: Path | None, report: Reporter) -> contextlib.AbstractContextManager[object]:
    """Lock `out` against other writers. A finished dataset needs no lock and may be read-only."""
    if out is None or out.is_file() or (out / MANIFEST).exists():
        return contextlib.nullcontext()
    return lock_output(out, report)


def _similar_images(dataset: Dataset, settings: AugmentSettings, report: Reporter) -> list[list[int]]:
    """Return the groups of images that look alike, as sample indices, if images have to be held out."""
    if dataset.has_split("validation"):
        check_split_options(settings.data, settings.group_by, settings.columns)
        return []
    if settings.group_by == NO_GROUPS:
        return []
    from tlcli.features.similar_samples import group_training_images  # imports torch

    groups = group_training_images(
        dataset,
        intensity=intensity_range(settings.intensity),
        workers=settings.compute.worker_count(),
        report=report,
    )
    if groups:
        report.note(f"  {count_groups(len(groups), max(map(len, groups)))}")
    return groups


def _write_dataset(
    out: Path, outputs: Sequence[AugmentedImage], signature: dict[str, Any], settings: AugmentSettings, report: Reporter
) -> dict[int, str]:
    """Write the images that are missing in `out`; return the reason for each sample that failed, by its index."""
    out.mkdir(parents=True, exist_ok=True)
    record_signature(out, signature, settings)
    remove_temporary_files(out, recursive=True)
    return _write_images(out, outputs, settings, report)


def _write_images(
    out: Path, outputs: Sequence[AugmentedImage], settings: AugmentSettings, report: Reporter
) -> dict[int, str]:
    """Copy originals byte for byte and write views as PNG, which is lossless."""
    todo = [output for output in outputs if not (out / output.path).exists()]
    failures: dict[int, str] = {}
    intensity = intensity_range(settings.intensity)
    options = DecodeOptions(png=True, augmentation=settings.augmentation, seed=settings.seed, intensity=intensity)
    with (
        ImageLoader(options, workers=settings.compute.worker_count(), report=report) as loader,
        report.task("Augment", len(todo)) as advance,
    ):
        requests = ((output.sample.path, output.view) for output in todo)
        for output, image in zip(todo, loader.load_views(requests), strict=True):
            advance(1)
            if image.error is not None or image.digest != output.digest:
                failures[output.index] = image.error or "was changed while it was read"
                continue
            content = image.pixels if output.view else _read_original(output)
            if content is None:
                failures[output.index] = "was changed while it was read"
                continue
            target = out / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as file:
                file.write(content)
    return failures


def _read_original(output: AugmentedImage) -> bytes | None:
    """Return the bytes of an original; None if it was removed or changed."""
    try:
        with open_image_file(output.sample.path, MAX_BYTES) as (file, _):
            content = file.read()
    except (OSError, UnreadableError):
        return None
    return content if hashlib.sha256(content).digest() == output.digest else None


def _write_manifest(out: Path, dataset: Dataset, outputs: Sequence[AugmentedImage], settings: AugmentSettings) -> None:
    """Write one row per existing image; the manifest is also a table that tlcli accepts as DATA."""

    def row(output: AugmentedImage) -> list[Any]:
        full_path = portable_name(str(out / output.path))
        parameters = draw_parameters(settings.augmentation, seed=settings.seed, view=output.view, digest=output.digest)
        return [
            full_path if full_path.startswith("file://") else output.path,
            dataset.classes[output.sample.label],
            output.sample.split,
            portable_name(output.sample.path),
            output.digest.hex(),
            output.view,
            json.dumps(parameters.to_json()) if output.view else "",
            os.fsencode(output.sample.group or "").decode("utf8", "backslashreplace"),
        ]

    rows = (row(output) for output in outputs if (out / output.path).exists())
    with atomic_write(out / MANIFEST) as file:
        text = io.TextIOWrapper(file, "utf8", newline="")
        write_csv(text, ROW_COLUMNS, rows, header=True)
        text.detach()


def _count_images(out: Path) -> dict[str, Any]:
    """Return the number of images of a finished dataset, by split."""
    with (out / MANIFEST).open(encoding="utf8", newline="") as file:
        counts = Counter(row["split"] for row in csv.DictReader(file))
    return {"written": counts.total(), "splits": {split: counts[split] for split in SPLITS}}
